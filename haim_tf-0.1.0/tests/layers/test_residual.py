"""ResidualBlock and ResidualStack."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.ops import convert_to_numpy as to_numpy

from haim_tf.layers.residual import ResidualBlock, ResidualStack

LAYERS = [
    lambda: ResidualBlock(width=4),
    lambda: ResidualStack(width=4, blocks=2),
]
INPUTS = np.random.default_rng(0).normal(size=(2, 5, 6, 4)).astype("float32")


def swish(x):
    return x / (1 + np.exp(-x))


def test_block_is_preactivation_and_adds_to_its_input():
    block = ResidualBlock(width=4)
    outputs = np.array(block(INPUTS))
    first, second = to_numpy(block.spatial_conv.kernel), to_numpy(block.pointwise_conv.kernel)[0, 0]
    padded = np.pad(swish(INPUTS), [(0, 0), (1, 1), (1, 1), (0, 0)])
    taps = [padded[:, r : r + 5, c : c + 6] @ first[r, c] for r in range(3) for c in range(3)]
    expected = INPUTS + swish(sum(taps)) @ second
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-5)


def test_stack_is_its_blocks_in_order():
    stack = ResidualStack(width=4, blocks=3)
    outputs = stack(INPUTS)
    assert len(stack.residual_blocks) == 3
    expected = INPUTS
    for block in stack.residual_blocks:
        expected = block(expected)
    np.testing.assert_array_equal(outputs, expected)


@pytest.mark.parametrize("make", LAYERS)
def test_starts_near_identity_and_every_weight_learns(make):
    layer = make()
    with tf.GradientTape() as tape:
        outputs = layer(INPUTS)
        loss = tf.reduce_sum(tf.square(outputs - 1.0))
    change = np.std(outputs - INPUTS) / np.std(INPUTS)
    assert 1e-3 < change < 0.3
    for gradient in tape.gradient(loss, layer.trainable_variables):
        assert float(tf.reduce_max(tf.abs(gradient))) > 0


def test_sees_all_neighbours():
    block = ResidualBlock(width=4)
    inputs = tf.constant(INPUTS)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        value = tf.reduce_sum(block(inputs)[0, 2, 2])
    reached = np.abs(tape.gradient(value, inputs)).max(-1)
    expected = np.zeros((2, 5, 6), bool)
    expected[0, 1:4, 1:4] = True
    np.testing.assert_array_equal(reached > 0, expected)


@pytest.mark.parametrize("make", LAYERS)
def test_config_and_weights_round_trip(make, tmp_path):
    layer = make()
    fresh = type(layer).from_config(layer.get_config())
    assert fresh.get_config() == layer.get_config()
    grid = keras.Input((5, 6, 4))
    model, other = keras.Model(grid, layer(grid)), keras.Model(grid, fresh(grid))
    assert np.abs(layer(INPUTS) - fresh(INPUTS)).max() > 0
    model.save_weights(tmp_path / "w.weights.h5")
    other.load_weights(tmp_path / "w.weights.h5")
    np.testing.assert_array_equal(layer(INPUTS), fresh(INPUTS))
    model.save(tmp_path / "m.keras")
    np.testing.assert_array_equal(keras.saving.load_model(tmp_path / "m.keras")(INPUTS), layer(INPUTS))


@pytest.mark.parametrize("make", LAYERS)
def test_mixed_precision(make):
    keras.config.set_dtype_policy("mixed_bfloat16")
    layer = make()
    assert layer(INPUTS).dtype == "bfloat16"
    assert {w.dtype for w in layer.weights} == {"float32"}


@pytest.mark.parametrize("arguments", [{"width": 0}, {"width": 1.5}, {"blocks": "2"}])
def test_bad_arguments(arguments):
    name = next(iter(arguments))
    with pytest.raises(ValueError, match=name):
        ResidualStack(**({"width": 4, "blocks": 1} | arguments))


@pytest.mark.parametrize("make", LAYERS)
def test_bad_input(make):
    with pytest.raises(ValueError, match="expected"):
        make()(np.zeros((2, 5, 6, 3), "float32"))
