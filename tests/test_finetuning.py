"""docs/finetuning.md: its code, on a folder of ten classes; the benchmark beside it."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import haim_tf
from haim_tf import training

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Holds my_folder: each class a colour, with stripes of one of two kinds."""
    root = tmp_path_factory.mktemp("finetuning")
    rng = np.random.default_rng(0)
    colours = rng.integers(40, 216, (10, 3))
    for split, count in (("train", 8), ("val", 2)):
        for label in range(10):
            place = root / "my_folder" / split / f"class{label}"
            place.mkdir(parents=True)
            for i in range(count):
                image = np.full((16, 16, 3), colours[label], "int64")
                image[:: 2 + label % 2] += 30
                image += rng.integers(-3, 4, image.shape)
                Image.fromarray(image.clip(0, 255).astype("uint8")).save(place / f"{i}.png")
    return root


def code_of_the_page():
    return re.findall(r"```python\n(.*?)```", (ROOT / "docs/finetuning.md").read_text(), re.S)


def test_the_few_lines_of_the_page(folder, running, monkeypatch):
    code = code_of_the_page()[0].replace('"imagenet32"', '"debug"')
    code = code.replace("output=", "smoke=True, output=")
    monkeypatch.chdir(folder)
    # A few steps, and no pictures of them.
    monkeypatch.setattr(training.outcome, "save_pictures", lambda *arguments: None)
    monkeypatch.setattr(training, "fine_tune", running(training.fine_tune, eagerly=True))
    exec(code, found := {})
    assert found["model"].class_names == [f"class{i}" for i in range(10)]
    assert haim_tf.load("runs/mine/preset").class_names == found["model"].class_names
    assert Image.open("samples.png").width == 5 * (3 * 16 + 2) - 2


def test_the_code_of_the_page(folder, monkeypatch):
    code = code_of_the_page()[1]
    assert 'load("imagenet32"' in code and "epochs=5" in code
    code = code.replace('"imagenet32"', '"debug"').replace("epochs=5", "epochs=1")
    code = code.replace("(32, 32, 3)", "(16, 16, 3)")
    monkeypatch.chdir(folder)
    found = {}
    exec(code, found)
    assert found["after"] < found["before"] - 0.5
    model = haim_tf.load("my_model")
    assert model.class_names == [f"class{i}" for i in range(10)]
    val = found["val"]
    for codes, kept in zip(
        model.encode(val.images[:]), haim_tf.load("debug").encode(val.images[:]), strict=True
    ):
        assert (np.asarray(codes) == np.asarray(kept)).all()
    assert (folder / "samples.png").is_file()


@pytest.mark.slow(reason="trains two models by the clock")
def test_the_benchmark(folder, script, monkeypatch):
    monkeypatch.chdir(folder)
    flags = ["--model=debug", "--data=my_folder", "--minutes=0.02", "--output=figures.json"]
    script(ROOT / "benchmarks/finetuning.py", *flags)
    figures = json.loads((folder / "figures.json").read_text())
    loaded, tuned, scratch = figures["rows"]
    assert (figures["train"], figures["val"], loaded["steps"]) == (80, 20, 0)
    assert tuned["steps"] > 1 and scratch["steps"] > 1
    assert tuned["total"] < loaded["total"] and scratch["total"] != tuned["total"]
