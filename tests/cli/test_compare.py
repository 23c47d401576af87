"""`haim_tf compare`: the figures of `haim_tf.evaluation`, in the features of a model from a file."""

import json

import keras
import numpy as np
import pytest
from PIL import Image

from haim_tf import evaluation
from haim_tf.models import HierarchicalModel


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    np.savez("real.npz", images=rng.integers(0, 200, (30, 8, 8, 1), "uint8"), labels=np.arange(30) % 2)
    np.savez("samples.npz", images=rng.integers(50, 256, (20, 8, 8, 1), "uint8"))
    evaluation.small_classifier((8, 8, 1), 2).save("classifier.keras")
    keras.Sequential([keras.Input((9, 9, 1)), keras.layers.Flatten(), keras.layers.Dense(2)]).save(
        "large.keras"
    )
    HierarchicalModel((8, 8, 1), [], {"width": 4, "blocks": 1}).save("model.keras")
    return tmp_path


def test_prints_and_writes_the_figures(folder, run):
    flags = ["--data=real.npz", "--split=all", "--samples=samples.npz", "--extractor=classifier.keras"]
    code, output, errors = run("compare", *flags, "--output=figures.json")
    assert (code, errors) == (0, "")
    report = json.loads((folder / "figures.json").read_text())
    assert report["num"] == 20 and report["layer"] is None and report["neighbors"] == 3
    extractor = evaluation.feature_layer(keras.saving.load_model("classifier.keras"))
    features = [
        evaluation.extract_features(np.load(name)["images"][:20], extractor)
        for name in ("real.npz", "samples.npz")
    ]
    expected = evaluation.frechet_distance(*features)
    assert report["frechet_distance"] == pytest.approx(expected, rel=1e-4) and expected > 0
    assert f"Frechet distance {report['frechet_distance']:.4f}" in output
    assert report["recall"] == evaluation.precision_and_recall(*features)["recall"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--num=21", "--extractor=classifier.keras"],
            "--num must be at most the count of real images, 30, and of samples, 20, got 21",
        ),
        (["--extractor=real.npz"], "--extractor must be a file of a Keras model, got 'real.npz'"),
        (["--extractor=classifier.keras", "--layer=x"], "no layer 'x'"),
        (["--layer=x"], "--layer is for extractors from files"),
        (["--extractor=~/none.keras"], "--extractor must be a file of a Keras model, got '~/none.keras'"),
        (["--extractor=large.keras"], "the extractor must take images (8, 8, 1), got one of the input"),
        (
            ["--extractor=model.keras"],
            "must be of a functional or sequential Keras model of several layers, got a Hier",
        ),
        (["--extractor=classifier.keras", "--neighbors=20"], "--neighbors must be less than the 20 images"),
    ],
)
def test_bad_input(folder, run, flags, message):
    code, _, errors = run("compare", "--data=real.npz", "--split=all", "--samples=samples.npz", *flags)
    assert code == 2 and message in errors and errors.count("\n") == 1


def test_what_cannot_be_downloaded_is_one_line(folder, run, monkeypatch):
    def offline(*arguments, **options):
        raise Exception("URL fetch failure on https://storage.googleapis.com/x: None --\n no such host")

    monkeypatch.setattr("keras.src.applications.inception_v3.InceptionV3", offline)
    monkeypatch.setattr("keras.applications.InceptionV3", offline)
    code, output, errors = run(
        "compare", "--data=real.npz", "--split=all", "--samples=samples.npz", "--output=x.json"
    )
    assert (code, output) == (2, "") and errors.count("\n") == 1 and not (folder / "x.json").exists()
    assert errors.startswith(
        "haim_tf compare: inception_v3 must be downloaded, which failed: give --extractor"
    )


def test_a_classifier_to_compare_with(folder, run):
    code, output, errors = run(
        "classifier", "--data=real.npz", "--steps=2", "--val_split=all", "--output=new.keras"
    )
    assert code == 0, errors
    assert output.startswith("a classifier of 2 classes, learned from 30 images, in new.keras, right on ")
    assert errors == "Training a classifier on real.npz, 30 images, 2 steps\n"
    code, output, _ = run(
        "compare", "--data=real.npz", "--split=all", "--samples=samples.npz", "--extractor=new.keras"
    )
    assert code == 0 and output.startswith("20 images each: Frechet distance")


def test_a_classifier_of_a_model_s_size(folder, run):
    """Pictures of any sizes, for what is to be compared with the model's samples."""
    for label in ("cat", "dog"):
        (folder / "photos" / label).mkdir(parents=True)
        for i, side in enumerate((17, 30)):
            Image.new("RGB", (side, 20), (100 * i, 50, 0)).save(folder / "photos" / label / f"{i}.png")
    code, _, errors = run(
        "classifier", "--data=photos", "--split=all", "--model=debug", "--steps=1", "--output=new.keras"
    )
    assert code == 0, errors
    assert keras.saving.load_model("new.keras").input_shape == (None, 16, 16, 3)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--data=real.npz", "--output=a.h5"], "--output must be a file that ends in .keras, got a.h5"),
        (["--data=real.npz", "--output=classifier.keras"], "classifier.keras exists"),
        (["--data=samples.npz", "--output=a.keras"], "samples.npz must have labels"),
        (["--data=real.npz", "--output=a.keras", "--seed=4294967296"], "flag --seed"),
    ],
)
def test_a_classifier_that_cannot_be_made(folder, run, flags, message):
    code, output, errors = run("classifier", *flags)
    assert (code, output) == (2, "") and message in errors and errors.count("\n") == 1
