"""Guidance and sampling defaults: labels left out in training, logits moved in sampling, values kept."""

import copy

import keras
import numpy as np
import pytest

import haim_tf
from haim_tf.likelihoods import Categorical, DiscretizedLogisticMixture
from haim_tf.models import HierarchicalModel
from haim_tf.networks import PixelCNN
from haim_tf.sampling import Sampler, seed_pairs

SEEDS = seed_pairs(1, 3)
LABELS = np.array([0, 2, 1], "int32")
LEVEL = {
    "downsampling": 2,
    "codebook_size": 6,
    "code_dim": 2,
    "width": 4,
    "blocks": 1,
    "decoder": {"width": 4, "blocks": 1, "kernel_size": [2, 3], "heads": 2, "condition_width": 4},
}


def strong(network):
    """Weights under which a label makes a difference."""
    rng = np.random.default_rng(0)
    for variable in network.trainable_variables:
        variable.assign(rng.normal(0, 0.7, variable.shape))
    return network


@pytest.fixture(scope="module")
def prior():
    network = PixelCNN(Categorical(6), 4, 2, (2, 3), attention=[0], heads=2, num_classes=3, label_dropout=0.5)
    network.build()
    return strong(network)


@pytest.fixture(scope="module")
def model():
    prior = {"width": 4, "blocks": 1, "kernel_size": [2, 3], "heads": 2, "label_dropout": 0.1}
    model = HierarchicalModel((4, 8, 1), [LEVEL], prior, num_classes=3, mixtures=2)
    strong(model.prior)
    strong(model.decoders[0])
    return model


def test_labels_are_left_out_in_training_only_and_as_often_as_asked(prior):
    x, labels = np.zeros((400, 2, 2), "int32"), np.full(400, 1)
    given, absent, training = (
        np.asarray(prior.log_prob(x, labels=label, training=train))[:, 0, 0]
        for label, train in ((labels, False), (labels * 0 + prior.no_label, False), (labels, True))
    )
    assert abs(given[0] - absent[0]) > 0.01
    as_absent = np.isclose(training, absent[0], atol=1e-5)
    assert (as_absent | np.isclose(training, given[0], atol=1e-5)).all()
    assert 0.4 < as_absent.mean() < 0.6


def test_the_row_of_no_label_is_one_more_and_only_where_asked():
    arguments = {"likelihood": Categorical(4), "width": 4, "blocks": 1, "num_classes": 3}
    with_row = PixelCNN(**arguments, label_dropout=0.1)
    with_row.build()
    without = PixelCNN(**arguments)
    without.build()
    assert with_row.embed_label.embeddings.shape == (4, 4) and with_row.no_label == 3
    assert without.embed_label.embeddings.shape == (3, 4) and without.no_label is None
    assert PixelCNN.from_config(with_row.get_config()).label_dropout == 0.1


@pytest.mark.parametrize(
    "change, named",
    [
        ({"label_dropout": 1.0}, r"\[0, 1\), got 1.0"),
        ({"label_dropout": 0.1, "num_classes": None}, "num_classes"),
    ],
)
def test_bad_label_dropout(change, named):
    with pytest.raises(ValueError, match=named):
        PixelCNN(**{"likelihood": Categorical(4), "width": 4, "blocks": 1, "num_classes": 3, **change})


@pytest.mark.parametrize("guidance", [0.0, 0.5, 3.0])
def test_every_element_is_drawn_from_guided_logits(prior, guidance):
    sampler = Sampler(prior, (3, 4), stream=1)
    grid, log_prob = sampler(SEEDS, 0.8, 0.9, labels=LABELS, guidance=guidance, log_prob=True)
    given = np.asarray(prior(grid, labels=LABELS))
    absent = np.asarray(prior(grid, labels=np.full(3, prior.no_label)))
    logits = absent + guidance * (given - absent)
    noise = np.asarray(sampler._draw_noise(SEEDS))
    np.testing.assert_array_equal(prior.likelihood.sample(logits, noise, 0.8, 0.9), grid)
    # The log-probability is the plain model's.
    expected = np.sum(np.asarray(prior.log_prob(grid, labels=LABELS)), axis=(1, 2))
    np.testing.assert_allclose(log_prob, expected, rtol=1e-5)


def test_guidance_1_is_plain_and_0_leaves_the_label_out(prior):
    sampler = Sampler(prior, (3, 4), stream=1)
    plain, _ = sampler(SEEDS, 1.0, 1.0, labels=LABELS)
    np.testing.assert_array_equal(sampler(SEEDS, 1.0, 1.0, labels=LABELS, guidance=1.0)[0], plain)
    absent, _ = sampler(SEEDS, 1.0, 1.0, labels=np.full(3, prior.no_label))
    np.testing.assert_array_equal(sampler(SEEDS, 1.0, 1.0, labels=LABELS, guidance=0.0)[0], absent)
    assert (plain != absent).any()


def test_guidance_is_for_codes():
    pixels = PixelCNN(DiscretizedLogisticMixture(1, 2), 4, 1, (2, 3), num_classes=2, label_dropout=0.1)
    pixels.build()
    flat = HierarchicalModel(
        (4, 8, 1), [], {"width": 4, "blocks": 1, "label_dropout": 0.1}, num_classes=2, mixtures=2
    )
    with pytest.raises(ValueError, match="guidance must be 1"):
        flat.sampling_defaults = {"guidance": 2}
    with pytest.raises(ValueError, match="priors of codes"):
        Sampler(pixels, (2, 2), stream=0)(SEEDS, 1.0, 1.0, labels=LABELS % 2, guidance=2.0)


def test_without_a_row_guidance_is_refused():
    debug = haim_tf.load("debug")
    with pytest.raises(ValueError, match="guidance must be 1 for this model.*got 2.0"):
        debug.sample(1, labels=0, guidance=2.0)
    np.testing.assert_array_equal(debug.sample(1, labels=0, guidance=1), debug.sample(1, labels=0))
    with pytest.raises(ValueError, match="guidance must be 1"):
        debug.sampling_defaults = {"guidance": 2}


def test_likelihoods_without_a_label(model):
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 8, 1)).astype("uint8")
    codes = model.encode(images)[-1]
    expected = np.sum(np.asarray(model.prior.log_prob(codes, labels=np.full(3, 3))), axis=(1, 2))
    found = -model.bits_per_dim(images, per_level=True)["prior"] * 4 * 8 * np.log(2)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert np.abs(model.log_prob(images) - model.log_prob(images, labels=0)).max() > 0.01


def test_fit_leaves_labels_out(model):
    copied = copy.deepcopy(model)
    copied.freeze("codes", "decoders")
    copied.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    images = np.random.default_rng(0).integers(0, 256, (64, 4, 8, 1)).astype("uint8")
    before = copied.prior.embed_label.embeddings.numpy().copy()
    copied.fit(images, np.zeros(64, "int32"), batch_size=64, verbose=0)
    moved = np.abs(copied.prior.embed_label.embeddings.numpy() - before).max(axis=1) > 0
    assert moved.tolist() == [True, False, False, True]


def test_defaults_are_what_is_done_when_nothing_else_is_asked(model):
    values = {"temperature": [0.5, 0.7], "top_p": [0.9, 0.8], "guidance": 2.5}
    changed = copy.deepcopy(model)
    changed.sampling_defaults = values
    assert changed.sampling_defaults == values
    np.testing.assert_array_equal(changed.sample(4, 1), model.sample(4, 1, **values))
    np.testing.assert_array_equal(
        changed.sample(4, 1, temperature=1.0), model.sample(4, 1, **{**values, "temperature": 1.0})
    )
    codes = model.encode(model.sample(3, 0))[0]
    of_decoders = {name: values[name] for name in ("temperature", "top_p")}
    np.testing.assert_array_equal(changed.decode(codes), model.decode(codes, **of_decoders))
    images = model.sample(2, 0)
    np.testing.assert_array_equal(changed.reconstruct(images), model.reconstruct(images, **of_decoders))
    np.testing.assert_allclose(changed.log_prob(images, 1), model.log_prob(images, 1), rtol=1e-6)
    changed.sampling_defaults = {"guidance": 3}
    assert changed.sampling_defaults == {"temperature": [1.0, 1.0], "top_p": [1.0, 1.0], "guidance": 3.0}
    changed.sampling_defaults = None
    np.testing.assert_array_equal(changed.sample(4, 1), model.sample(4, 1))


@pytest.mark.parametrize(
    "values, named",
    [
        ({"temprature": 1}, "temprature"),
        ({"temperature": [1, 1, 1]}, "temperature must be one number or 2"),
        ({"top_p": 0}, "top_p must lie in"),
        ({"guidance": -1}, "guidance must lie in"),
        ({"guidance": [1, 2]}, "guidance must be one number"),
        ([1, 1], "a dict"),
    ],
)
def test_bad_defaults(model, values, named):
    with pytest.raises(ValueError, match=named):
        model.sampling_defaults = values


def test_names_and_defaults_survive_copies_and_files(model, tmp_path):
    known = copy.deepcopy(model)
    known.class_names = ["a", "b", "c"]
    known.sampling_defaults = {"temperature": 0.8, "guidance": 2}
    known.save(tmp_path / "m.keras")
    known.save_to_preset(tmp_path / "preset")
    for other in (
        copy.deepcopy(known),
        keras.saving.load_model(tmp_path / "m.keras"),
        haim_tf.load(tmp_path / "preset"),
        known.without_teachers(),
    ):
        assert other.class_names == ["a", "b", "c"]
        assert other.sampling_defaults == {"temperature": [0.8] * 2, "top_p": [1.0] * 2, "guidance": 2.0}
        np.testing.assert_array_equal(other.sample(2, 1), known.sample(2, 1))


def test_a_preset_with_defaults_that_do_not_fit_is_refused(tmp_path):
    model = haim_tf.load("debug")
    with pytest.raises(ValueError, match="metadata.json does not fit the model: guidance must be 1"):
        model.save_to_preset(tmp_path / "preset", metadata={"sampling": {"guidance": 2}})
    assert not list(tmp_path.iterdir())


def test_other_classes_keep_the_defaults_and_get_a_row_of_their_own(model, tmp_path):
    model.save_to_preset(tmp_path / "preset", metadata={"sampling": {"guidance": 2}})
    other = haim_tf.load(tmp_path / "preset", num_classes=5)
    assert other.prior.no_label == 5 and other.sampling_defaults["guidance"] == 2.0
    # All begin as "no label", which stays what it was.
    rows, own = (np.asarray(m.prior.embed_label.embeddings) for m in (other, model))
    np.testing.assert_array_equal(rows, np.repeat(own[-1:], 6, axis=0))
