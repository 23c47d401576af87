"""Main decoders that are told the label as the prior is: trained, sampled, measured, coded with, kept."""

import keras
import numpy as np
import pytest

import haim_tf
from haim_tf import compression
from haim_tf.data import ImageData
from haim_tf.evaluation import evaluate_and_score, scores
from haim_tf.evaluation.sheets import RECONSTRUCTED, reconstructions
from haim_tf.models import HierarchicalModel

NETWORK = {"width": 4, "blocks": 1, "kernel_size": [2, 3], "heads": 2}
LEVEL = {"downsampling": 2, "codebook_size": 6, "code_dim": 2, "width": 4, "blocks": 1}
PRIOR = {**NETWORK, "label_dropout": 0.1}
TOLD = {**NETWORK, "labels": True, "label_dropout": 0.1}
LABELS = np.array([0, 2, 1], "int32")
NO_LABEL = 3


def make(*decoders, **arguments):
    levels = [{**LEVEL, "decoder": decoder} for decoder in decoders]
    arguments = {"prior": PRIOR, "num_classes": 3, **arguments}
    keras.utils.set_random_seed(0)
    model = HierarchicalModel((8, 8, 1), levels, mixtures=2, **arguments)
    # A fresh network hardly heeds what it is told.
    rng = np.random.default_rng(0)
    for network in model.networks[1:]:
        for layer in (*network.label_layers(), network.last):
            for weight in layer.weights:
                weight.assign(rng.normal(size=weight.shape))
    for weight in model.decoders[0].trainable_variables:
        weight.assign(rng.normal(0, 0.5, weight.shape))
    return model


@pytest.fixture(scope="module")
def model():
    return make(NETWORK, TOLD)


@pytest.fixture(scope="module")
def images(model):
    return model.sample(3, LABELS, seed=4)


def test_the_configuration_says_which_decoders_are_told(model):
    assert [network.num_classes for network in model.networks] == [None, 3, 3]
    assert [network.takes_guidance for network in model.networks] == [False, True, True]
    again = HierarchicalModel.from_config(model.get_config())
    assert again.get_config() == model.get_config() and again.decoders[1].no_label == NO_LABEL


@pytest.mark.parametrize(
    "decoder, num_classes, named",
    [
        ({"labels": True}, None, "level 1's decoder: labels must be false without num_classes, got True"),
        ({"labels": 1}, 3, "level 1's decoder: labels must be true or false, got 1"),
        ({"label_dropout": 0.1}, 3, "level 1's decoder: labels must be true with label_dropout, got False"),
    ],
)
def test_bad_labels(decoder, num_classes, named):
    with pytest.raises(ValueError, match=named):
        make({**NETWORK, **decoder}, prior=NETWORK, num_classes=num_classes)


def test_the_bound_is_that_of_each_network_told_its_label(model, images):
    grids = [images, *model.encode(images)]
    bits = model.bits_per_dim(images, LABELS, per_level=True)
    told = np.asarray(model.decoders[1].log_prob(grids[1], codes=grids[2], labels=LABELS))
    np.testing.assert_allclose(-bits["level_2"] * 64 * np.log(2), told.sum(axis=(1, 2)), rtol=1e-5)
    assert np.abs(told - np.asarray(_told(model, grids, LABELS[::-1]))).max() > 0.01
    unlabelled = -model.bits_per_dim(images, per_level=True)["level_2"] * 64 * np.log(2)
    expected = np.asarray(_told(model, grids, np.full(3, NO_LABEL)))
    np.testing.assert_allclose(unlabelled, expected.sum(axis=(1, 2)), rtol=1e-5)


def _told(model, grids, labels):
    return model.decoders[1].log_prob(grids[1], codes=grids[2], labels=labels)


def test_the_posterior_asks_every_network_that_is_told(model, images):
    each = np.stack([model.log_prob(images, label) for label in range(3)], axis=1)
    np.testing.assert_allclose(scores.label_log_probs(model, images), each, rtol=1e-5)
    # Without the pixels, whose share is the same, and so large that float32 would blur the others'.
    told = [model.bits_per_dim(images, label, per_level=True) for label in range(3)]
    told = np.stack([-(bits["level_2"] + bits["prior"]) * 64 * np.log(2) for bits in told], axis=1)
    shares = np.exp(told - told.max(axis=1, keepdims=True))
    found = scores.score(model, images, LABELS)
    expected = shares[np.arange(3), LABELS] / shares.sum(axis=1)
    np.testing.assert_allclose(found["label_probability"], expected, rtol=1e-3)
    parts = scores.marginal_log_probs(model, images)
    marginal = np.logaddexp.reduce(each, axis=1) - np.log(3)
    np.testing.assert_allclose(parts.sum(axis=1), marginal, rtol=1e-5)
    # The top codes' share is the prior's alone, the pixels' that of their decoder.
    own = model.bits_per_dim(images, LABELS, per_level=True)
    np.testing.assert_allclose(parts[:, 0], -own["level_1"] * 64 * np.log(2), rtol=1e-4)
    np.testing.assert_allclose(
        parts[:, 1:].sum(axis=1), np.logaddexp.reduce(told, axis=1) - np.log(3), rtol=1e-5
    )
    report, columns = evaluate_and_score(
        model, ImageData(images, LABELS), num=3, reconstructions=2, verbose=False
    )
    order = columns["image"]
    np.testing.assert_allclose(columns["label_probability"], expected[order], rtol=1e-3)
    assert report["bits_per_dim"]["total"] == pytest.approx(own["total"].mean(), rel=1e-5)


def test_reconstructions_on_a_card_are_of_each_image_s_class(model, images):
    named = HierarchicalModel.from_config({**model.get_config(), "class_names": ["a", "b", "c"]})
    named.set_weights(model.get_weights())
    data = ImageData(images, 2 - LABELS, ["c", "b", "a"])  # The same classes in another order.
    sheet = reconstructions(named, data, seed=6).reshape(-1, RECONSTRUCTED, 8, 8, 1)
    shown = np.linspace(0, 2, RECONSTRUCTED).astype(int)
    expected = named.reconstruct(images[shown], 2, seed=6, labels=LABELS[shown])
    np.testing.assert_array_equal(sheet[5], expected)


def test_the_distribution_is_the_models(model, images):
    distribution = model.as_distribution()
    expected = scores.marginal_log_probs(model, images).sum(axis=1)
    np.testing.assert_allclose(distribution.log_prob(images.astype("float32")), expected, rtol=1e-5)
    drawn = model.as_distribution(2).sample(2, seed=5)
    np.testing.assert_array_equal(drawn, model.sample(2, 2, seed=5, guidance=1.0))


def test_decoders_sample_for_a_label_and_are_guided_by_it(model, images):
    codes = model.encode(images)[1]

    def decode(**options):
        return model.decode(codes, level=2, seed=6, **options)

    given = decode(labels=LABELS)
    assert (given != decode(labels=[1, 0, 2])).any()
    np.testing.assert_array_equal(decode(labels=LABELS, guidance=1.0), given)
    assert (decode(labels=LABELS, guidance=8.0) != given).any()
    np.testing.assert_array_equal(decode(labels=LABELS, guidance=0.0), decode())
    np.testing.assert_array_equal(model.reconstruct(images, 2, seed=6, labels=LABELS), given)
    with pytest.raises(ValueError, match="guidance must be 1 without labels, got 2.0"):
        decode(guidance=2.0)
    # What lies below level 1 is told no label: it makes no difference there.
    fine = model.encode(images)[0]
    np.testing.assert_array_equal(model.decode(fine, 1, labels=LABELS), model.decode(fine, 1))


def test_sampling_guides_all_that_take_it(model):
    def sampled(guidance):
        codes, _ = model.sampler(2)(_seeds(7), 1.0, 1.0, labels=LABELS, guidance=guidance)
        return model.decode(codes, 2, seed=_seeds(7), labels=LABELS, guidance=guidance)

    for guidance in (1.0, 3.0):
        found = model.sample(3, LABELS, seed=_seeds(7), guidance=guidance)
        np.testing.assert_array_equal(found, sampled(guidance))


def _seeds(seed):
    return np.stack([np.full(3, seed), np.arange(3)], axis=1)


def test_without_a_row_for_no_label_labels_are_needed(images):
    model = make(NETWORK, {**NETWORK, "labels": True})
    codes = model.encode(images)
    for without in (lambda: model.decode(codes[1], 2), lambda: model.log_prob(images)):
        with pytest.raises(ValueError, match=r"labels must be ints in 0\.\.2, got None"):
            without()
    assert model.decode(codes[1], 2, labels=1).shape == images.shape
    assert model.decode(codes[0], 1).shape == images.shape
    assert model.takes_guidance and not model.decoders[1].takes_guidance
    assert model.sample(2, 1, guidance=2.0).shape == (2, 8, 8, 1)


def test_fit_teaches_what_a_label_means():
    """Codes of level 2 that the label decides and the codes above do not tell."""
    rng = np.random.default_rng(0)
    model = make(NETWORK, {**NETWORK, "labels": True, "width": 8})
    labels = rng.integers(2, size=256).astype("int32")
    images = np.where(labels[:, None, None, None] == 1, rng.integers(0, 256, (256, 8, 8, 1)), 128)
    model.freeze("codes", "prior", "decoder_1")
    model.compile(keras.optimizers.Adam(0.02))
    model.fit(images.astype("uint8"), labels, batch_size=64, epochs=15, verbose=0)
    own, other = (model.bits_per_dim(images[:64], y[:64], per_level=True) for y in (labels, 1 - labels))
    assert own["level_2"].mean() < other["level_2"].mean() - 0.01
    np.testing.assert_allclose(own["level_1"], other["level_1"], rtol=1e-5)


def test_completion_and_compression_tell_decoders_the_label(model, images):
    many = np.repeat(images, 8, axis=0)
    one, other = (model.complete(many, rows=2, labels=label, candidates=2, seed=1) for label in (0, 1))
    np.testing.assert_array_equal(one[:, :2], many[:, :2])
    assert (one != other).any()
    for labels in (LABELS, None):
        files = compression.compress(model, images, labels)
        for image, again in zip(images, compression.decompress(model, files), strict=True):
            np.testing.assert_array_equal(again, image)


def test_a_copy_whose_decoders_are_told_labels_says_the_same_at_first(images):
    plain = make(NETWORK, NETWORK)
    told = plain.with_labels(1, 2, label_dropout=0.2)
    assert [network.num_classes for network in told.networks] == [3, 3, 3]
    assert [network.label_dropout for network in told.networks] == [0.2, 0.2, 0.1]
    np.testing.assert_array_equal(told.log_prob(images, LABELS), plain.log_prob(images, LABELS))
    assert told.with_labels(2, label_dropout=0.5).decoders[1].label_dropout == 0.2
    assert plain.decoders[1].num_classes is None
    with pytest.raises(ValueError, match="level must be"):
        plain.with_labels(3)
    with pytest.raises(ValueError, match="labels must be false without num_classes"):
        make(NETWORK, prior=NETWORK, num_classes=None).with_labels(1)


def test_other_classes_begin_as_those_of_their_names(model, images, tmp_path):
    model.class_names = ["a", "b", "c"]
    model.save_to_preset(tmp_path / "preset")
    np.testing.assert_array_equal(
        haim_tf.load(tmp_path / "preset").log_prob(images, "b"), model.log_prob(images, "b")
    )
    changed = haim_tf.load(tmp_path / "preset", class_names=["d", "c"])
    np.testing.assert_allclose(changed.log_prob(images, "c"), model.log_prob(images, "c"), rtol=1e-6)
    np.testing.assert_allclose(changed.log_prob(images, "d"), model.log_prob(images), rtol=1e-6)


def test_decoders_that_get_labels_learn_where_they_were_frozen():
    model = make(NETWORK, NETWORK)
    model.freeze("codes", "decoders")
    frozen = [name for name, part in model.with_labels(2).parts.items() if not part.trainable]
    assert sorted(frozen) == ["autoencoder_1", "autoencoder_2", "decoder_1"]
