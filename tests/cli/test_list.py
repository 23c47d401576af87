"""`haim_tf list`."""

import json
import shutil

from haim_tf import presets


def test_table(run):
    code, output, _ = run("list", "--pattern=deb*")
    header, row = (line.split() for line in output.splitlines())
    assert code == 0
    assert header == [
        "name",
        "image",
        "levels",
        "codes",
        "parameters",
        "pretrained",
        "bits/dim",
        "data",
        "terms",
    ]
    assert row[:8] == ["debug", "16x16x3", "2", "8x8x16,", "4x4x16", "6,913", "no", "-"]


def test_bits_and_data_from_the_metadata(run, tmp_path, monkeypatch):
    shutil.copytree(presets.find("debug"), tmp_path / "mine")
    path = tmp_path / "mine" / "metadata.json"
    metadata = json.loads(path.read_text())
    metadata.update(pretrained=True, dataset={"name": "clothes", "terms": "MIT"})
    metadata["evaluation"] = {"bits_per_dim": {"prior": 1.0, "total": 2.71828}}
    path.write_text(json.dumps(metadata))
    monkeypatch.setattr(presets.folder, "zoo", lambda: tmp_path)
    (row,) = run("list")[1].splitlines()[1:]
    assert row.split()[-4:] == ["yes", "2.718", "clothes", "MIT"]


def test_what_is_not_known_is_a_dash(run, tmp_path, monkeypatch):
    shutil.copytree(presets.find("debug"), tmp_path / "mine")
    path = tmp_path / "mine" / "metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"dataset": None, "evaluation": None}))
    monkeypatch.setattr(presets.folder, "zoo", lambda: tmp_path)
    code, output, _ = run("list")
    assert code == 0 and output.splitlines()[1].split()[-3:] == ["-", "-", "-"]


def test_pretrained(run):
    assert "debug" not in run("list", "--pretrained")[1]
    assert "debug" in run("list", "--nopretrained")[1]
