"""FeedForwardDecoder: shapes, losses against NumPy, reconstructions, saving."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from haim_tf.networks import FeedForwardDecoder

RNG = np.random.default_rng(0)
VECTORS = RNG.normal(size=(2, 3, 4, 5)).astype("float32")
KINDS = [{"channels": 3}, {"codebook_size": 7}]


def make(kind, upsampling=2, **arguments):
    return FeedForwardDecoder(upsampling, width=6, blocks=1, **kind, **arguments)


def make_target(decoder, outputs):
    if decoder.codebook_size is None:
        return RNG.uniform(-1, 1, outputs.shape).astype("float32")
    return RNG.integers(decoder.codebook_size, size=outputs.shape[:-1]).astype("int32")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("upsampling", [1, 2, 3, 4, 12])
def test_shapes(upsampling, kind):
    outputs = make(kind, upsampling)(VECTORS)
    assert outputs.shape == (2, 3 * upsampling, 4 * upsampling, *kind.values())
    assert outputs.dtype == "float32"


@pytest.mark.parametrize("upsampling", [1, 2, 3, 4])
def test_every_code_reaches_its_pixels_and_no_other_example(upsampling):
    decoder = make({"channels": 1}, upsampling)
    for row in (upsampling, 2 * upsampling - 1):
        vectors = tf.constant(VECTORS)
        with tf.GradientTape() as tape:
            tape.watch(vectors)
            value = tf.reduce_sum(decoder(vectors)[0, row, row])
        reached = np.abs(tape.gradient(value, vectors)).max(-1) > 0
        assert reached[0, 1, 1]
        assert not reached[1].any()


def test_pixel_loss_is_mean_squared_error():
    decoder = make({"channels": 3})
    outputs = decoder(VECTORS)
    target = make_target(decoder, outputs)
    loss = decoder.loss(outputs, target)
    assert loss.shape == () and loss.dtype == "float32"
    np.testing.assert_allclose(loss, np.mean((outputs - target) ** 2), rtol=1e-6)


def test_code_loss_is_cross_entropy_in_nats_per_position():
    decoder = make({"codebook_size": 7})
    outputs = 5 * decoder(VECTORS)
    target = make_target(decoder, outputs)
    logits = np.array(outputs, "float64")
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = -np.take_along_axis(log_probs, target[..., None], -1).mean()
    loss = decoder.loss(outputs, target)
    assert loss.shape == () and loss.dtype == "float32"
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(decoder.loss(tf.zeros_like(outputs), target), np.log(7), rtol=1e-6)


def test_reconstruct_pixels_clips():
    decoder = make({"channels": 3})
    outputs = RNG.normal(0, 2, (2, 6, 8, 3)).astype("float32")
    np.testing.assert_array_equal(decoder.reconstruct(outputs), np.clip(outputs, -1, 1))


def test_reconstruct_codes_takes_the_likeliest():
    decoder = make({"codebook_size": 7})
    outputs = RNG.normal(size=(2, 6, 8, 7)).astype("float32")
    codes = decoder.reconstruct(outputs)
    assert codes.dtype == "int32"
    np.testing.assert_array_equal(codes, outputs.argmax(-1))


@pytest.mark.parametrize("kind", KINDS)
def test_loss_trains_every_weight_and_the_code_vectors(kind):
    decoder = make(kind, upsampling=4)
    vectors = tf.constant(VECTORS)
    with tf.GradientTape() as tape:
        tape.watch(vectors)
        outputs = decoder(vectors)
        loss = decoder.loss(outputs, make_target(decoder, outputs))
    for gradient in tape.gradient(loss, [vectors, *decoder.trainable_variables]):
        assert float(tf.reduce_max(tf.abs(gradient))) > 0


@pytest.mark.parametrize("kind", KINDS)
def test_config_and_weights_round_trip(kind, tmp_path):
    decoder = make(kind, upsampling=4)
    fresh = FeedForwardDecoder.from_config(decoder.get_config())
    assert fresh.get_config() == decoder.get_config()
    inputs = keras.Input(VECTORS.shape[1:])
    model, other = keras.Model(inputs, decoder(inputs)), keras.Model(inputs, fresh(inputs))
    assert np.abs(decoder(VECTORS) - fresh(VECTORS)).max() > 0
    model.save_weights(tmp_path / "w.weights.h5")
    other.load_weights(tmp_path / "w.weights.h5")
    np.testing.assert_array_equal(decoder(VECTORS), fresh(VECTORS))
    model.save(tmp_path / "m.keras")
    np.testing.assert_array_equal(keras.saving.load_model(tmp_path / "m.keras")(VECTORS), decoder(VECTORS))


@pytest.mark.parametrize("kind", KINDS)
def test_mixed_precision_ends_in_float32(kind):
    decoder = make(kind, dtype="mixed_bfloat16")
    outputs = decoder(VECTORS)
    assert outputs.dtype == "float32"
    assert decoder.loss(outputs, make_target(decoder, outputs)).dtype == "float32"
    assert decoder.to_outputs.compute_dtype == "bfloat16"
    assert decoder.upsampling_convs[0].compute_dtype == "bfloat16"
    assert {w.dtype for w in decoder.weights} == {"float32"}


@pytest.mark.parametrize(
    "arguments,named",
    [
        ({"upsampling": 0}, "upsampling"),
        ({"width": 1.5}, "width"),
        ({"blocks": 0}, "blocks"),
        ({"channels": 0}, "channels"),
        ({"channels": None, "codebook_size": -3}, "codebook_size"),
        ({"codebook_size": 7}, "exactly one"),
        ({"channels": None}, "exactly one"),
    ],
)
def test_bad_arguments(arguments, named):
    with pytest.raises(ValueError, match=named):
        FeedForwardDecoder(**({"upsampling": 2, "width": 4, "blocks": 1, "channels": 1} | arguments))


def test_bad_input_and_targets():
    decoder = make({"channels": 3})
    with pytest.raises(ValueError, match="ndim"):
        decoder(np.zeros((2, 3, 4), "int32"))
    outputs = decoder(VECTORS)
    for shape in ((2, 6, 8, 1), (2, 6, 8), (1, 6, 8, 3)):
        with pytest.raises(ValueError, match="target must have shape"):
            decoder.loss(outputs, np.zeros(shape, "float32"))
    codes = make({"codebook_size": 7})
    with pytest.raises(ValueError, match="target must have shape"):
        codes.loss(codes(VECTORS), np.zeros((2, 6, 8, 1), "int32"))
