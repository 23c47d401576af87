"""`haim_tf info`."""

import json
import shutil

import pytest

from haim_tf import presets


@pytest.fixture
def mine(tmp_path):
    """`mine(changes)` is a preset with other entries in its metadata."""

    def make(changes):
        shutil.copytree(presets.find("debug"), tmp_path / "mine")
        path = tmp_path / "mine" / "metadata.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
        return tmp_path / "mine"

    return make


def test_all_classes_with_their_numbers(run):
    code, output, errors = run("info", "fashion_mnist28")
    assert (code, errors) == (0, "")
    lines = output.splitlines()
    assert lines[1:3] == ["image     28x28x1", "codes     14x14 of 8, 7x7 of 16"]
    assert lines[-11:-9] == ["classes", "  0  T-shirt/top"] and lines[-1] == "  9  Ankle boot"
    lines = run("info", "--model=imagenet64")[1].splitlines()
    assert "    0  goldfish, Carassius auratus" in lines and lines[-1].startswith("  199  ")


def test_weights_that_are_elsewhere(run, mine):
    folder = mine({"pretrained": True})
    (folder / "model.weights.h5").unlink()
    assert "weights   pretrained, not downloaded yet\n" in run("info", str(folder))[1]


def test_its_picture_and_figures(run, tmp_path):
    output = run("info", "fashion_mnist28")[1]
    folder = presets.find("fashion_mnist28")
    metadata = json.loads((folder / "metadata.json").read_text())
    report = metadata["evaluation"]
    assert f"picture   {folder / 'samples.png'}\n" in output and (folder / "samples.png").is_file()
    figure = f"{report['bits_per_dim']['total']:.3f} on {report['num']:,} images of {report['data']}"
    assert f"bits/dim  {figure}\n" in output
    for metric in metadata["metrics"]:
        assert f"metric    {metric['name']} {metric['value']}\n" in output


def test_sampling_defaults(run, tmp_path):
    shutil.copytree(presets.find("fashion_mnist28"), tmp_path / "mine")
    path = tmp_path / "mine" / "metadata.json"
    metadata = json.loads(path.read_text())
    metadata.update(sampling={"temperature": [0.9, 1.0, 0.8], "guidance": 2.0}, class_names=None)
    path.write_text(json.dumps(metadata))
    output = run("info", tmp_path / "mine")[1]
    assert "sampling  temperature [0.9, 1, 0.8], top_p 1, guidance 2\n" in output
    assert "classes   0..9, without names" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name one model"),
        (["debug", "--model=debug"], "name one model"),
        (["fashion_mnist"], "there is no model 'fashion_mnist': did you mean 'fashion_mnist28'?"),
    ],
)
def test_bad_input(run, arguments, message):
    code, output, errors = run("info", *arguments)
    assert (code, output) == (2, "")
    assert errors.startswith(f"haim_tf info: {message}") and errors.count("\n") == 1


@pytest.mark.parametrize("nothing", ["evaluation", "pictures", "metrics", "sampling", "dataset"])
def test_entries_may_be_null(run, mine, nothing):
    assert run("info", mine({nothing: None}))[0] == 0


@pytest.mark.parametrize("wrong", [{"evaluation": {"bits_per_dim": [3]}}, {"metrics": [{}]}])
def test_metadata_that_nothing_writes_is_named(run, mine, wrong):
    folder = mine(wrong)
    code, output, errors = run("info", folder)
    assert (code, output) == (2, "")
    assert errors.startswith(f"haim_tf info: {folder} must be as save_to_preset writes it, got ")
    assert errors.count("\n") == 1
