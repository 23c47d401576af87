"""`haim_tf compare`: the figures of `haim_tf.evaluation`, in the features of a model from a file."""

import json

import numpy as np
import pytest

from haim_tf import evaluation


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    np.savez("real.npz", images=rng.integers(0, 200, (30, 8, 8, 1), "uint8"), labels=np.arange(30) % 2)
    np.savez("samples.npz", images=rng.integers(50, 256, (20, 8, 8, 1), "uint8"))
    evaluation.small_classifier((8, 8, 1), 2).save("classifier.keras")
    return tmp_path


def test_prints_and_writes_the_figures(folder, run):
    flags = ["--data=real.npz", "--samples=samples.npz", "--extractor=classifier.keras"]
    code, output, errors = run("compare", *flags, "--output=figures.json")
    assert (code, errors) == (0, "")
    report = json.loads((folder / "figures.json").read_text())
    assert report["num"] == 20 and report["layer"] is None and report["neighbors"] == 3
    import keras

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
    ],
)
def test_bad_input(folder, run, flags, message):
    code, _, errors = run("compare", "--data=real.npz", "--samples=samples.npz", *flags)
    assert code == 2 and message in errors and errors.count("\n") == 1
