"""Files checked before long work, and never half-written."""

import gc
import json
import os

import numpy as np
import pytest

import haim_tf
from haim_tf import files
from haim_tf.data import save_grid


def test_write_json(tmp_path):
    path = files.check_new_file(tmp_path / "figures.json")
    files.write_json(path, {"a": 1})
    assert json.loads(path.read_text()) == {"a": 1}
    with pytest.raises(TypeError):
        files.write_json(tmp_path / "other.json", {"a": object()})
    assert os.listdir(tmp_path) == ["figures.json"]


def test_check_new_file(tmp_path):
    (tmp_path / "there").write_text("kept")
    with pytest.raises(ValueError, match="exists"):
        files.check_new_file(tmp_path / "there")
    with pytest.raises(FileNotFoundError, match="no folder"):
        files.check_new_file(tmp_path / "absent" / "figures.json")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match="cannot write"):
        files.write_json(tmp_path / "folder", {})
    assert sorted(os.listdir(tmp_path)) == ["folder", "there"]


def test_a_home_is_found_or_named_as_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    files.write_json(files.check_new_file("~/a.json"), {"a": 1})
    assert files.read_json("~/a.json") == files.read_json(tmp_path / "a.json") == {"a": 1}
    assert files.absolute("~/a.json") == tmp_path / "a.json"
    with pytest.raises(ValueError, match="must be a path without ~, for there is no such home"):
        files.check_new_file("~nobody-is-called-so/a.json")


def test_no_path_is_not_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images.npy").touch()
    for path in ("", "a\0b"):
        for use in (files.expanded, files.check_new_file, haim_tf.data.load):
            with pytest.raises(ValueError, match="a path must have at least one character"):
                use(path)


def test_links_stay_and_what_they_point_to_is_written(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "old").write_text("old")
    for name in ("old", "new"):
        (tmp_path / name).symlink_to(tmp_path / "far" / name)
    files.check_new_file(tmp_path / "new")
    for name in ("old", "new"):
        files.write_json(tmp_path / name, name)
        assert (tmp_path / name).is_symlink() and files.read_json(tmp_path / "far" / name) == name
    with pytest.raises(ValueError, match="old exists"):
        files.check_new_file(tmp_path / "old")
    (tmp_path / "lost").symlink_to(tmp_path / "nowhere" / "a")
    with pytest.raises(FileNotFoundError, match="no folder .*nowhere"):
        files.check_new_file(tmp_path / "lost")


def test_names_may_be_as_long_as_the_system_takes(tmp_path):
    files.write_json(tmp_path / ("a" * 255), 1)
    assert os.listdir(tmp_path) == ["a" * 255]


def test_arrays_are_read_as_they_were(tmp_path):
    arrays = {"images": np.arange(6, dtype="uint8").reshape(2, 3), "paths": np.array(["a", "b"]), "one": 1}
    for compressed in (True, False):
        files.write_arrays(tmp_path / "x.npz", arrays, compressed)
        with np.load(tmp_path / "x.npz") as found:
            assert set(found) == set(arrays)
            for name, array in arrays.items():
                np.testing.assert_array_equal(found[name], array)


WRITERS = {
    "file": lambda path: files.write_file(path, lambda file: file.write(bytes(1 << 20))),
    "arrays": lambda path: files.write_arrays(path, {"a": np.zeros(100), "b": np.zeros(1 << 18)}),
    "compressed": lambda path: files.write_arrays(
        path, {"a": np.random.default_rng(0).random(1 << 16)}, compressed=True
    ),
    "sheet": lambda path: save_grid(
        np.random.default_rng(0).integers(0, 256, (4, 256, 256, 3), "uint8"), path.with_suffix(".png")
    ),
    "files": lambda path: files.write_files(
        {path.with_name("new") / "a": bytes(10), path.with_name("new") / "b": bytes(1 << 20)}
    ),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_is_one_line_and_leaves_what_was_there(tmp_path, full_disk, writer, capfd):
    (tmp_path / "old").write_text("kept")
    (tmp_path / "old.png").write_text("kept")
    with full_disk(60_000), pytest.raises(ValueError, match="cannot write .*: .") as caught:
        WRITERS[writer](tmp_path / "old")
    assert "\n" not in str(caught.value)
    del caught
    gc.collect()
    assert capfd.readouterr().err == ""
    assert sorted(os.listdir(tmp_path)) == ["old", "old.png"]
    assert (tmp_path / "old").read_text() == (tmp_path / "old.png").read_text() == "kept"


@pytest.mark.parametrize("figure", [float("nan"), float("inf"), np.float64("nan")])
def test_json_has_no_word_for_figures_that_are_not_finite(tmp_path, figure):
    with pytest.raises(ValueError, match=r"levels\.level_1\.1 must be a finite number, got (nan|inf)"):
        files.write_json(tmp_path / "a.json", {"num": 3, "levels": {"level_1": [0.5, figure]}})
    assert not list(tmp_path.iterdir())


def test_a_path_is_one_that_a_file_system_has(tmp_path):
    assert files.expanded(os.fsencode(tmp_path) + b"/caf\xe9") == tmp_path / "caf\udce9"
    for wrong, message in (
        (5, "a path must be a text or a path, got 5"),
        ("", "at least one character"),
        ("a\0b", "no null byte"),
        ("a/" + "b" * 256, "the names in a path must have at most 255 bytes"),
    ):
        with pytest.raises(ValueError, match=message):
            files.expanded(wrong)


def test_what_is_written_by_path_is_whole_or_not_there(tmp_path, full_disk):
    files.write_by_path(tmp_path / "a.txt", lambda path: path.write_text(path.name))
    with full_disk(100), pytest.raises(ValueError, match="cannot write .*a.txt: File too large"):
        files.write_by_path(tmp_path / "a.txt", lambda path: path.write_bytes(bytes(1000)))
    assert os.listdir(tmp_path) == ["a.txt"] and (tmp_path / "a.txt").read_text() == "a.txt"
