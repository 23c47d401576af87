"""Encoder: shapes, reach, kinds of input, saving."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.ops import convert_to_numpy as to_numpy

from haim_tf.networks.encoder import Encoder, prime_factors

RNG = np.random.default_rng(0)


def make(downsampling=2, codebook_size=None, **arguments):
    return Encoder(downsampling, width=6, blocks=1, code_dim=3, codebook_size=codebook_size, **arguments)


def make_inputs(encoder, height=12, width=24):
    if encoder.codebook_size is None:
        return RNG.uniform(-1, 1, (2, height, width, 3)).astype("float32")
    return RNG.integers(encoder.codebook_size, size=(2, height, width)).astype("int32")


@pytest.mark.parametrize(
    "number,factors", [(1, []), (2, [2]), (7, [7]), (8, [2, 2, 2]), (12, [2, 2, 3]), (49, [7, 7])]
)
def test_prime_factors(number, factors):
    assert prime_factors(number) == factors


@pytest.mark.parametrize("codebook_size", [None, 5])
@pytest.mark.parametrize("downsampling", [1, 2, 3, 4, 12])
def test_shapes(downsampling, codebook_size):
    encoder = make(downsampling, codebook_size)
    queries = encoder(make_inputs(encoder))
    assert queries.shape == (2, 12 // downsampling, 24 // downsampling, 3)
    assert queries.dtype == "float32"


@pytest.mark.parametrize("downsampling", [1, 2, 3, 4])
def test_every_pixel_reaches_its_query_and_no_other_example(downsampling):
    encoder = make(downsampling)
    pixels = tf.constant(make_inputs(encoder))
    with tf.GradientTape() as tape:
        tape.watch(pixels)
        value = tf.reduce_sum(encoder(pixels)[0, 1, 1])
    reached = np.abs(tape.gradient(value, pixels)).max(-1) > 0
    own = slice(downsampling, 2 * downsampling)
    assert reached[0, own, own].all()
    assert not reached[1].any()


def test_codes_are_embedded_not_measured():
    encoder = make(2, codebook_size=5)
    codes = make_inputs(encoder)
    before = encoder(codes)
    # Renaming the codes together with their embeddings changes nothing.
    renaming = np.array([3, 0, 4, 1, 2])
    table = to_numpy(encoder.embedding.embeddings)
    encoder.embedding.embeddings.assign(table[np.argsort(renaming)])
    np.testing.assert_array_equal(encoder(renaming[codes]), before)


@pytest.mark.parametrize("codebook_size", [None, 5])
def test_every_weight_gets_a_gradient(codebook_size):
    encoder = make(4, codebook_size)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.square(encoder(make_inputs(encoder))))
    for gradient in tape.gradient(loss, encoder.trainable_variables):
        assert float(tf.reduce_max(tf.abs(tf.convert_to_tensor(gradient)))) > 0


@pytest.mark.parametrize("codebook_size", [None, 5])
def test_config_and_weights_round_trip(codebook_size, tmp_path):
    encoder = make(4, codebook_size)
    fresh = Encoder.from_config(encoder.get_config())
    assert fresh.get_config() == encoder.get_config()
    values = make_inputs(encoder)
    inputs = keras.Input(values.shape[1:], dtype=values.dtype.name)
    model, other = keras.Model(inputs, encoder(inputs)), keras.Model(inputs, fresh(inputs))
    assert np.abs(encoder(values) - fresh(values)).max() > 0
    model.save_weights(tmp_path / "w.weights.h5")
    other.load_weights(tmp_path / "w.weights.h5")
    np.testing.assert_array_equal(encoder(values), fresh(values))
    model.save(tmp_path / "m.keras")
    np.testing.assert_array_equal(keras.saving.load_model(tmp_path / "m.keras")(values), encoder(values))


@pytest.mark.parametrize("codebook_size", [None, 5])
def test_mixed_precision_ends_in_float32(codebook_size):
    encoder = make(2, codebook_size, dtype="mixed_bfloat16")
    assert encoder(make_inputs(encoder)).dtype == "float32"
    assert encoder.to_queries.compute_dtype == "bfloat16"
    assert encoder.stack.residual_blocks[0].spatial_conv.compute_dtype == "bfloat16"
    assert {w.dtype for w in encoder.weights} == {"float32"}


@pytest.mark.parametrize(
    "arguments",
    [{"downsampling": 0}, {"width": -1}, {"blocks": 0}, {"code_dim": 1.5}, {"codebook_size": 0}],
)
def test_bad_arguments(arguments):
    name = next(iter(arguments))
    with pytest.raises(ValueError, match=name):
        Encoder(**({"downsampling": 2, "width": 4, "blocks": 1, "code_dim": 2} | arguments))


def test_bad_input():
    pixels, codes = make(4), make(4, codebook_size=5)
    for height, width in ((13, 24), (12, 26)):
        with pytest.raises(ValueError, match=f"divisible by the downsampling 4, got {height} x {width}"):
            pixels(np.zeros((2, height, width, 3), "float32"))
        with pytest.raises(ValueError, match="divisible"):
            codes(np.zeros((2, height, width), "int32"))
    with pytest.raises(ValueError, match="ndim"):
        pixels(np.zeros((2, 12, 12), "float32"))
    with pytest.raises(ValueError, match="ndim"):
        codes(np.zeros((2, 12, 12, 1), "int32"))
    with pytest.raises(ValueError, match="uint8"):
        pixels(np.zeros((2, 12, 12, 3), "uint8"))
    with pytest.raises(ValueError, match="float32"):
        codes(np.zeros((2, 12, 12), "float32"))


def test_activations_stand_between_the_convolutions():
    encoder = make(4)
    pixels = make_inputs(encoder)
    queries = to_numpy(encoder(pixels))
    first, second = encoder.downsampling_convs
    hidden = encoder.stack(second(tf.nn.silu(first(pixels))))
    expected = encoder.to_queries(tf.nn.silu(hidden))
    np.testing.assert_allclose(queries, to_numpy(expected), rtol=1e-5, atol=1e-6)
