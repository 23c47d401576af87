"""Scores of single images."""

import csv

import numpy as np
import pytest

import haim_tf
from haim_tf.evaluation import scores


@pytest.fixture(scope="module")
def model():
    return haim_tf.load("debug")


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), "uint8")


def test_scores_are_the_models(model, images, tmp_path):
    labels = np.array([0, 1, 2, 9, 4])
    found = scores.score(model, images, labels, batch_size=2)
    for name, bits in model.bits_per_dim(images, labels, per_level=True).items():
        np.testing.assert_allclose(found[name], bits, rtol=1e-5)
    log_probs = np.stack([model.log_prob(images, y) for y in range(10)], axis=1)
    np.testing.assert_allclose(scores.label_log_probs(model, images), log_probs, rtol=1e-5)
    # Differences of large numbers: the posterior is computed from the prior alone.
    parts = scores.label_log_probs(model, images)
    posterior = scores.label_posterior(parts)
    np.testing.assert_allclose(posterior.sum(axis=1), 1.0)
    np.testing.assert_array_equal(found["predicted_label"], posterior.argmax(axis=1))
    np.testing.assert_allclose(found["label_probability"], posterior[np.arange(5), labels], rtol=1e-6)

    scores.write_csv(tmp_path / "scores.csv", {"image": np.arange(5), **found})
    with open(tmp_path / "scores.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5 and [int(row["label"]) for row in rows] == labels.tolist()
    np.testing.assert_allclose([float(row["total"]) for row in rows], found["total"], rtol=1e-5)


def test_posterior_and_summary():
    posterior = scores.label_posterior(np.log([[1.0, 3.0], [9.0, 1.0]]) - 2000.0)
    np.testing.assert_allclose(posterior, [[0.25, 0.75], [0.9, 0.1]])
    with pytest.raises(ValueError, match=r"\(B, num_classes\), got shape \(2,\)"):
        scores.label_posterior([0.5, 0.5])
    columns = {
        "label": np.array([0, 0]),
        "predicted_label": posterior.argmax(axis=1),
        "label_probability": posterior[:, 0],
    }
    summary = scores.summary(columns)
    assert summary["accuracy"] == 0.5 and summary["num"] == 2
    assert summary["mean_log2_probability"] == pytest.approx(np.log2([0.25, 0.9]).mean())


def test_without_labels(images):
    model = haim_tf.HierarchicalModel((16, 16, 3), [], {"width": 4, "blocks": 1})
    found = scores.score(model, images)
    assert list(found) == ["prior", "total"]
    np.testing.assert_allclose(found["total"], model.bits_per_dim(images), rtol=1e-5)
    with pytest.raises(ValueError, match="not class-conditional"):
        scores.label_log_probs(model, images)


def test_paths_are_written_as_they_are(tmp_path):
    paths = np.array(["/a, b/1.png", "/caf\udce9/2.png"])
    scores.write_csv(tmp_path / "scores.csv", {"image": np.arange(2), "path": paths, "total": np.ones(2)})
    lines = (tmp_path / "scores.csv").read_bytes().split(b"\n")
    assert lines[:3] == [b"image,path,total", b'0,"/a, b/1.png",1', b"1,/caf\xe9/2.png,1"]
