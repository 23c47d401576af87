"""The judge: what it says of samples and of real images is what its parts say."""

import keras
import numpy as np
import pytest

import haim_tf
from haim_tf import evaluation
from haim_tf.data import ImageData


def squares(count, seed):
    """Images of two classes: bright above or bright below, on noise."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    images = rng.integers(0, 100, (count, 8, 8, 1), "uint8")
    for image, label in zip(images, labels, strict=True):
        image[label * 4 : label * 4 + 4] += 120
    return ImageData(images, labels)


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(0)
    images = keras.Input((8, 8, 1))
    hidden, logits = keras.layers.Dense(6), keras.layers.Dense(2)
    network = keras.Model(images, logits(hidden(keras.layers.Flatten()(images))))
    # Right where the bright half tells it: class 1 is brighter below.
    below = np.repeat([[-1.0], [1.0]], 32, axis=0) / 100
    hidden.kernel.assign(below + np.random.default_rng(0).normal(0, 1e-4, (64, 6)))
    logits.kernel.assign(np.ones((6, 1)) * [-1.0, 1.0])
    return network


def test_the_judge_measures_on_what_it_was_told(network):
    train, val, scored = squares(40, 0), squares(20, 1), squares(30, 2)
    scored.labels[:6] = 1 - scored.labels[:6]
    judge = evaluation.Judge(network, train, val, scored)
    real = judge.score_real(num=25, seed=3)
    assert (real["num_train"], real["num_val"], real["num_scored"]) == (40, 20, 30)
    assert real["accuracy"] == pytest.approx(24 / 30)
    assert real["standard_error"] == pytest.approx(np.sqrt(0.8 * 0.2 / 30))
    extractor = evaluation.feature_layer(network)
    features = evaluation.extract_features(val.images, extractor)
    rows = np.sort(np.random.default_rng(3).permutation(40)[:25])
    others = evaluation.extract_features(train.images[rows], extractor)
    assert real["frechet_distance"] == evaluation.frechet_distance(features, others)
    assert real["counts"] == [20, 25] and real["neighbors"] == 3

    samples = squares(24, 4)
    samples = ImageData(samples.images, 1 - samples.labels)
    found = judge.score_samples(samples, steps=2, batch_size=8, seed=1, verbose=False)
    parts = evaluation.classification_accuracy_score(
        samples.images,
        samples.labels,
        train,
        scored,
        steps=2,
        batch_size=8,
        seed=1,
        verbose=False,
        real_classifier=network,
    )
    assert found.items() >= {**parts, "num_val": 20, "num_scored": 30}.items()
    assert found["accuracy_real"] == real["accuracy"]
    for which in ("samples", "real"):
        share = found[f"accuracy_{which}"]
        assert found[f"standard_error_{which}"] == pytest.approx(np.sqrt(share * (1 - share) / 30))
    assert found["counts"] == [20, 24]
    assert evaluation.Judge(network, train, val).score_real(5)["accuracy"] == 1.0


def named(data, names):
    """The same pictures, their classes called so in this order."""
    labels = [names.index(("above", "below")[label]) for label in data.labels]
    return ImageData(data.images, labels, class_names=names, name="others")


def test_classes_are_matched_by_name(network):
    train, val, samples = squares(40, 0), squares(20, 1), squares(24, 4)
    order, other = ["above", "below"], ["below", "above"]
    judge = evaluation.Judge(network, named(train, order), named(val, other))
    assert judge.score_real(20)["accuracy"] == 1

    def score(names):
        return judge.score_samples(named(samples, names), steps=2, batch_size=8, verbose=False)

    assert score(other) == score(order)
    strangers = ImageData(val.images, val.labels * 0, class_names=["beside"], name="strangers")
    with pytest.raises(ValueError, match="strangers does not fit others: there is no class 'beside'"):
        evaluation.Judge(network, named(train, order), val, strangers)


def test_samples_have_the_labels_that_were_drawn():
    network = {"width": 4, "blocks": 1}
    model = haim_tf.HierarchicalModel((4, 4, 1), [], network, num_classes=10, mixtures=2)
    model.class_names = list("abcdefghij")
    model.sampling_defaults = {"temperature": 0.5}
    samples = evaluation.draw_samples(model, 6, classes=[2, 7], seed=1, batch_size=4, verbose=False)
    assert set(samples.labels) == {2, 7} and samples.class_names == model.class_names
    expected = model.sample(6, samples.labels, seed=1, temperature=0.5)
    np.testing.assert_array_equal(samples.images, expected)
    assert set(evaluation.draw_samples(model, 60, verbose=False).labels) == set(range(10))
    often = evaluation.draw_samples(model, 200, classes=[7, 2, 4], frequencies=[3, 1, 0], verbose=False)
    counts = np.bincount(often.labels, minlength=10)
    assert counts[7] + counts[2] == 200 and 130 < counts[7] < 170
    for wrong in ([1, 1], [1, -1, 1], [0, 0, 0], [1, np.nan, 1]):
        with pytest.raises(ValueError, match="at least 0 for each of the 3 classes"):
            evaluation.draw_samples(model, 2, classes=[7, 2, 4], frequencies=wrong)
    with pytest.raises(ValueError, match="not class-conditional"):
        evaluation.draw_samples(haim_tf.HierarchicalModel((4, 4, 1), [], network), 2)
