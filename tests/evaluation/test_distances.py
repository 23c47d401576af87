"""Frechet distance, precision and recall: against reference implementations, and from images to figures."""

from pathlib import Path

import keras
import numpy as np
import ot
import pytest
from PIL import Image
from prdc import compute_prdc

from haim_tf import evaluation
from haim_tf.data import Batches, load

RNG = np.random.default_rng(0)


def features(count, size, shift=0.0, rank=None):
    mixing = RNG.normal(size=(rank or size, size))
    return (RNG.normal(size=(count, rank or size)) @ mixing + shift).astype("float32")


@pytest.mark.parametrize("shift", [0.0, 2.0])
def test_frechet_distance_is_the_reference_implementations(shift):
    real, samples = features(300, 48), features(200, 48, shift)
    means = [f.astype("float64").mean(axis=0) for f in (real, samples)]
    covariances = [np.cov(f.astype("float64"), rowvar=False) for f in (real, samples)]
    distance = ot.gaussian.bures_wasserstein_distance(*means, *covariances)
    assert evaluation.frechet_distance(real, samples) == pytest.approx(float(distance) ** 2, rel=1e-5)


@pytest.mark.parametrize(("counts", "rank"), [((40, 500), 5), ((20, 30), None)])
def test_frechet_distance_with_singular_covariances(counts, rank):
    """Fewer examples than features, or features that depend on each other: the reference gives NaN there.

    With covariances A A' and B B', the trace of their product's root is the sum of A' B's singular values.
    """
    real, samples = features(counts[0], 48), features(counts[1], 48, -1.0, rank)
    roots = [(f - f.mean(axis=0)) / np.sqrt(len(f) - 1) for f in map(np.float64, (real, samples))]
    difference = real.mean(axis=0, dtype="float64") - samples.mean(axis=0, dtype="float64")
    expected = np.sum(difference**2) + sum(np.sum(root**2) for root in roots)
    expected -= 2 * np.linalg.norm(roots[0] @ roots[1].T, "nuc")
    assert evaluation.frechet_distance(real, samples) == pytest.approx(expected, rel=1e-5)


def test_frechet_distance_by_hand():
    real = features(100, 6)
    assert evaluation.frechet_distance(real, real[::-1]) == pytest.approx(0, abs=1e-4)
    assert evaluation.frechet_distance(real, real + 3) == pytest.approx(6 * 9, rel=1e-4)
    line = np.array([[-1.0], [1.0]])  # Variance 2.
    assert evaluation.frechet_distance(line, 3 * line) == pytest.approx(2 + 18 - 2 * 6)


@pytest.mark.parametrize("neighbors", [1, 3, 5])
def test_precision_and_recall_are_the_reference_implementations(neighbors, monkeypatch):
    monkeypatch.setattr(evaluation.distances, "ROWS", 64)
    real, samples = features(150, 4), features(130, 4, shift=1.0)
    expected = compute_prdc(real, samples, nearest_k=neighbors)
    found = evaluation.precision_and_recall(real, samples, neighbors)
    assert 0 < found["precision"] < 1 and 0 < found["recall"] < 1
    assert found == {
        "precision": pytest.approx(expected["precision"]),
        "recall": pytest.approx(expected["recall"]),
        "neighbors": neighbors,
    }


def test_precision_and_recall_tell_collapse_from_garbage():
    real = features(100, 3)
    collapsed = real[:1] + 1e-3 * features(50, 3)
    found = evaluation.precision_and_recall(real, collapsed)
    assert found["precision"] == 1 and found["recall"] < 0.1
    garbage = 100 * RNG.normal(size=(50, 3))
    found = evaluation.precision_and_recall(real, garbage)
    assert found["precision"] < 0.2 < found["recall"]


@pytest.mark.parametrize("function", [evaluation.frechet_distance, evaluation.precision_and_recall])
def test_bad_features(function):
    real = features(20, 3)
    with pytest.raises(ValueError, match=r"samples must be features .*\(20, 3, 1\)"):
        function(real, real[..., None])
    with pytest.raises(ValueError, match="real must be features .* got"):
        function(real[:1], real)
    with pytest.raises(ValueError, match="got 3 and 2"):
        function(real, real[:, :2])
    with pytest.raises(ValueError, match="samples must be finite"):
        function(real, np.where(real > 0, np.nan, real))


def test_neighbors_must_be_a_positive_int():
    for neighbors in (0, 1.5, True):
        with pytest.raises(ValueError, match="neighbors must be"):
            evaluation.precision_and_recall(features(20, 3), features(20, 3), neighbors)


def test_features_of_nothing_and_of_lists():
    flatten = keras.layers.Flatten()
    with pytest.raises(ValueError, match="images must be at least one, got none"):
        evaluation.extract_features(np.zeros((0, 8, 8, 1), "uint8"), flatten)
    with pytest.raises(ValueError, match="batch_size must be an integer"):
        evaluation.extract_features(np.zeros((1, 8, 8, 1), "uint8"), flatten, batch_size=0)
    assert evaluation.extract_features([np.zeros((8, 8, 1), "uint8")] * 2, flatten).shape == (2, 64)


def test_features_of_a_classifier():
    network = evaluation.small_classifier((16, 16, 1), 10)
    images = RNG.integers(256, size=(7, 16, 16, 1)).astype("uint8")
    extractor = evaluation.feature_layer(network)
    found = evaluation.extract_features(images, extractor, batch_size=3)
    assert found.shape == (7, 64) and found.dtype == "float32"
    dense = network.layers[-1]
    np.testing.assert_allclose(found @ dense.kernel + dense.bias, network(images), atol=1e-4)
    deeper = evaluation.feature_layer(network, network.layers[2].name)
    assert evaluation.extract_features(images, deeper).shape == (7, 16 * 16 * 32)
    with pytest.raises(ValueError, match="no layer 'nothing'; it has"):
        evaluation.feature_layer(network, "nothing")


@pytest.mark.slow(reason="builds Inception v3")
def test_inception_features():
    images = RNG.integers(256, size=(2, 28, 28, 1)).astype("uint8")
    extractor = evaluation.inception_features((28, 28, 1), weights=None)
    assert evaluation.extract_features(images, extractor).shape == (2, 2048)


def test_a_trained_classifier_is_seeded():
    from haim_tf.data import ImageData

    data = ImageData(RNG.integers(256, size=(16, 8, 8, 1)).astype("uint8"), np.arange(16) % 2)
    networks = [
        evaluation.train_classifier(data, 2, steps=2, batch_size=8, seed=seed, verbose=False)
        for seed in (0, 0, 1)
    ]
    right = networks[0].predict(data.images, verbose=0).argmax(axis=1) == data.labels
    assert evaluation.accuracy(networks[0], data, batch_size=5) == right.mean()
    first, again, other = (n.get_weights()[0] for n in networks)
    assert (first == again).all() and (first != other).any()


def test_a_damaged_picture_in_a_later_batch_is_named(tmp_path):
    for i in range(16):
        (tmp_path / "ab"[i % 2]).mkdir(exist_ok=True)
        pixels = RNG.integers(256, size=(8, 8, 3)).astype("uint8")
        Image.fromarray(pixels).save(tmp_path / "ab"[i % 2] / f"{i:02}.png")
    data = load(tmp_path)
    file = Path(data.paths[Batches(data, 8).drawn(1)[0][5]])
    content = bytearray(file.read_bytes())
    content[content.index(b"IDAT") + 8] ^= 255
    file.write_bytes(content)
    with pytest.raises(ValueError, match=file.name):
        evaluation.train_classifier(data, 2, steps=3, batch_size=8, verbose=False)
