"""Completion: known pixels kept, codes from the encoder where it can tell, candidates weighed rightly."""

import numpy as np
import pytest
import tensorflow as tf

import haim_tf
from haim_tf import completion


@pytest.fixture(scope="module")
def model():
    level = {"downsampling": 2, "codebook_size": 4, "code_dim": 2, "width": 4, "blocks": 1}
    network = {"width": 8, "blocks": 1, "kernel_size": [2, 3]}
    model = haim_tf.HierarchicalModel(
        image_shape=(16, 8, 1),
        levels=[{**level, "decoder": network}, {**level, "decoder": network}],
        prior={**network, "attention": [0]},
        num_classes=3,
        mixtures=2,
    )
    rng = np.random.default_rng(0)
    for network in model.networks:
        network.last.kernel.assign(rng.normal(0, 0.1, network.last.kernel.shape))
    return model


@pytest.fixture(scope="module")
def images(model):
    return model.sample(2, labels=[0, 1], seed=1)


def masks(count):
    hole = np.ones((count, 16, 8), bool)
    hole[:, 5:11, 2:6] = False
    half = np.zeros((count, 16, 8), bool)
    half[:, :8] = True
    return {"random": np.random.default_rng(0).random((count, 16, 8)) < 0.5, "hole": hole, "half": half}


@pytest.mark.parametrize("name", ["random", "hole", "half"])
def test_known_pixels_stay_and_unknown_ones_play_no_part(model, images, name):
    mask = masks(2)[name]
    completed = model.complete(images, mask, labels=[0, 1], candidates=4, seed=3)
    assert completed.shape == images.shape and completed.dtype == np.uint8
    np.testing.assert_array_equal(completed[mask], images[mask])
    assert (completed[~mask] != images[~mask]).any()
    scrambled = np.where(mask[..., None], images, 255 - images)
    again = model.complete(scrambled, mask, labels=[0, 1], candidates=4, seed=3)
    np.testing.assert_array_equal(again, completed)


def test_rows_shapes_and_seeds(model, images):
    three = model.complete(images, rows=8, labels=2, candidates=2, num=2, seed=3)
    assert three.shape == (2, 2, 16, 8, 1)
    np.testing.assert_array_equal(three[:, :, :8], np.repeat(images[:, None, :8], 2, axis=1))
    assert (three[:, 0] != three[:, 1]).any()
    # An image's completions do not depend on the rest of the batch; candidates in other batches, too.
    alone = model.complete(
        images[1:], rows=8, labels=2, candidates=2, num=2, seed=np.array([[3, 1]]), batch_size=3
    )
    np.testing.assert_array_equal(alone[0], three[1])
    everything = model.complete(images, rows=16, labels=2, candidates=1)
    np.testing.assert_array_equal(everything, images)
    assert model.complete(images, rows=0, candidates=2).shape == images.shape


def test_the_models_own_sampling_values_play_no_part(model, images, monkeypatch):
    completed = model.complete(images, rows=8, labels=2, candidates=2, num=2, seed=3)
    monkeypatch.setattr(model, "sampling_defaults", {"temperature": 0.0, "top_p": 0.5})
    again = model.complete(images, rows=8, labels=2, candidates=2, num=2, seed=3)
    np.testing.assert_array_equal(again, completed)


def test_known_codes_are_those_that_no_unknown_pixel_reaches(model):
    """Against gradients of the queries, which a weight that is not zero cannot hide."""
    mask = masks(1)["half"]
    known = completion.known_codes(model, mask)
    encoder = model.autoencoders[0].encoder
    x = tf.random.stateless_normal((1, 16, 8, 1), seed=(0, 1))
    with tf.GradientTape() as tape:
        tape.watch(x)
        queries = tf.reduce_sum(encoder(x)[0], -1)
        queries = tf.reshape(queries, [-1])
    touched = np.abs(tape.jacobian(queries, x)[:, 0, :, :, 0].numpy() * ~mask[0]).max((1, 2)) > 0
    np.testing.assert_array_equal(~touched.reshape(8, 4), known[0][0])
    assert known[0].any() and not known[0].all()
    assert all(level.all() for level in completion.known_codes(model, np.ones((1, 16, 8), bool)))


def test_codes_with_a_known_field_of_view_are_the_encoders(model, images):
    mask = masks(2)["half"]
    _, codes = completion.complete(model, images, mask, labels=0, candidates=4, return_codes=True)
    for drawn, encoded, known in zip(
        codes, model.encode(images), completion.known_codes(model, mask), strict=True
    ):
        np.testing.assert_array_equal(drawn[known], encoded[known])


def test_weights_are_the_models(model, images):
    """The weight of a draw is p(forced and guided elements) / q, from the network's parallel form."""
    rng = np.random.default_rng(0)
    draw = tf.function(completion.draw_given)  # Element by element it would take long.
    decoder, codes = model.decoders[0], model.encode(images)[0]
    mask = masks(2)["random"]
    uniforms = rng.random((2, 16, 8, decoder.likelihood.noise_size), "float32")
    known = np.array(model.elements(images))
    grid, weight = draw(decoder, tf.constant(uniforms), known=known, mask=mask, codes=codes)
    np.testing.assert_array_equal(grid.numpy()[mask], known[mask])
    expected = (decoder.log_prob(grid, codes=codes).numpy() * mask).sum((1, 2))
    np.testing.assert_allclose(weight, expected, rtol=1e-4)

    guide = rng.normal(0, 2, (2, 4, 2, 4)).astype("float32")
    uniforms = rng.random((2, 4, 2, 1), "float32")
    labels = np.array([0, 1])
    grid, weight = draw(model.prior, tf.constant(uniforms), guide, labels=labels)
    logits = model.prior(grid, labels=labels)
    head = model.prior.likelihood
    expected = head.log_prob(logits, grid) - head.log_prob(logits + guide, grid)
    np.testing.assert_allclose(weight, expected.numpy().sum((1, 2)), rtol=1e-4, atol=1e-4)


def test_candidates_are_chosen_by_weight(model, images):
    drawn = completion._Candidates(
        model,
        images,
        masks(2)["half"],
        np.zeros(2, "int32"),
        np.stack([np.zeros(2), np.arange(2)], 1).astype("int32"),
        500,
        2,
    )
    weights = np.tile(np.log([1.0, 3.0]), 1000) - 5000.0
    (chosen,) = drawn.choose([np.tile([0, 1], 1000)], weights)
    assert chosen.shape == (1000,) and chosen.mean() == pytest.approx(0.75, abs=0.05)


def test_a_model_without_levels():
    model = haim_tf.HierarchicalModel((4, 4, 1), [], {"width": 4, "blocks": 1}, mixtures=2)
    images = model.sample(2)
    completed = model.complete(images, rows=2, candidates=2)
    np.testing.assert_array_equal(completed[:, :2], images[:, :2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "either mask or rows"),
        ({"rows": 17}, r"rows must be an integer in 0\.\.16, got 17"),
        ({"rows": 3, "mask": np.ones((16, 8), bool)}, "either mask or rows"),
        ({"mask": np.ones((8, 16), bool)}, r"mask must be bool of shape \(16, 8\) or \(2, 16, 8\)"),
        ({"mask": np.ones((16, 8))}, "got float64"),
        ({"rows": 8, "candidates": 0}, "candidates must be an integer of at least 1"),
        ({"rows": 8, "labels": 3}, r"labels must lie in 0\.\.2"),
    ],
)
def test_bad_arguments(model, images, arguments, message):
    with pytest.raises(ValueError, match=message):
        model.complete(images, **arguments)


@pytest.mark.parametrize("num", [None, np.int64(3)])
def test_no_images_give_no_completions(model, images, num):
    arguments = {"rows": np.int32(8), "labels": 1, "candidates": np.int64(2), "num": num}
    completed, codes = model.complete(images[:0], **arguments, return_codes=True)
    several = () if num is None else (3,)
    assert completed.shape == (0, *several, *model.image_shape) and completed.dtype == np.uint8
    expected = [(0, *several, *shape) for shape in model.grid_shapes[1:]]
    assert [x.shape for x in codes] == expected and all(x.dtype == np.int32 for x in codes)
    assert model.complete(images, **arguments).shape == (2, *several, *model.image_shape)
