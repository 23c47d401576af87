"""GatedResidualBlock: causality, conditioning, dropout, step by step equal to the whole grid."""

import hypothesis
import hypothesis.strategies as st
import keras
import numpy as np
import pytest
import tensorflow as tf

from haim_tf.layers import GatedResidualBlock


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def run_incrementally(block, inputs, condition=None, vector=None):
    batch_size, height, width, _ = inputs.shape
    cache = block.init_cache(batch_size, width)
    rows = []
    for r in range(height):
        cache = block.start_row(cache, None if condition is None else condition[:, r], vector)
        row = []
        for c in range(width):
            output, cache = block.step(cache, inputs[:, r, c], c)
            row.append(output)
        rows.append(np.stack(row, axis=1))
    return np.stack(rows, axis=1)


def test_equals_numpy():
    block = GatedResidualBlock(3, (2, 3), condition_width=2, vector_width=4)
    inputs, condition, vector = normal(2, 3, 4, 3), normal(2, 3, 4, 2), normal(2, 4)
    outputs = block(inputs, condition=condition, vector=vector)
    hidden = block.conv(inputs).numpy() + condition @ block.from_condition.kernel.numpy()
    hidden += (vector @ block.from_vector.kernel.numpy())[:, None, None]
    a, b = np.split(hidden, 2, axis=-1)
    expected = inputs + block.merge(np.tanh(a) / (1 + np.exp(-b))).numpy()
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-6)
    assert block.compute_output_shape(inputs.shape) == outputs.shape


def test_sees_exactly_its_receptive_field(dependence):
    height, width = 4, 6
    rows, columns = np.divmod(np.arange(height * width), width)
    dr, dc = rows[:, None] - rows, columns[:, None] - columns
    expected = ((dr == 0) & (dc >= 0) & (dc <= 2)) | ((dr >= 1) & (dr <= 2) & (abs(dc) <= 2))
    found = dependence(GatedResidualBlock(4, (3, 5)), (height, width, 4))
    np.testing.assert_array_equal(found, expected)


def test_condition_acts_in_place_and_vector_everywhere():
    block = GatedResidualBlock(3, (2, 3), condition_width=2, vector_width=4)
    inputs = normal(2, 3, 4, 3)
    condition, vector = tf.constant(normal(2, 3, 4, 2)), tf.constant(normal(2, 4))
    for r, c in ((0, 0), (1, 2), (2, 3)):
        with tf.GradientTape() as tape:
            tape.watch([condition, vector])
            value = tf.reduce_sum(block(inputs, condition=condition, vector=vector)[0, r, c])
        by_condition, by_vector = tape.gradient(value, [condition, vector])
        np.testing.assert_array_equal(np.argwhere(np.abs(by_condition).max(-1)), [[0, r, c]])
        assert np.abs(by_vector[0]).min() > 0
        assert np.abs(by_vector[1]).max() == 0


@hypothesis.settings(max_examples=15, deadline=None, derandomize=True)
@hypothesis.given(
    width=st.integers(1, 4),
    kernel_size=st.tuples(st.integers(1, 3), st.sampled_from([1, 3, 5])),
    condition_width=st.sampled_from([None, 3]),
    vector_width=st.sampled_from([None, 2]),
    grid=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    batch_size=st.integers(1, 2),
)
def test_incremental_equals_parallel(width, kernel_size, condition_width, vector_width, grid, batch_size):
    block = GatedResidualBlock(width, kernel_size, condition_width, vector_width, dropout=0.5)
    inputs = normal(batch_size, *grid, width)
    conditioning = {}
    if condition_width:
        conditioning["condition"] = normal(batch_size, *grid, condition_width, seed=1)
    if vector_width:
        conditioning["vector"] = normal(batch_size, vector_width, seed=2)
    block.build(inputs.shape)
    block.set_weights([normal(*w.shape, seed=3) for w in block.get_weights()])
    stepped = run_incrementally(block, inputs, **conditioning)
    np.testing.assert_allclose(stepped, block(inputs, **conditioning), rtol=1e-5, atol=1e-5)


def test_dropout_acts_in_training_only():
    block = GatedResidualBlock(4, (2, 3), dropout=0.5)
    inputs = normal(1, 3, 4, 4)
    np.testing.assert_array_equal(block(inputs), block(inputs))
    assert np.abs(block(inputs, training=True) - block(inputs)).max() > 0
    plain = GatedResidualBlock(4, (2, 3))
    np.testing.assert_array_equal(plain(inputs, training=True), plain(inputs))


def test_starts_close_to_the_identity():
    keras.utils.set_random_seed(0)
    inputs = normal(1, 8, 8, 16)
    change = GatedResidualBlock(16)(inputs) - inputs
    assert 0 < np.std(change) < 0.5


def test_mixed_precision():
    block = GatedResidualBlock(4, (2, 3), condition_width=2, vector_width=3, dtype="mixed_bfloat16")
    inputs = tf.cast(normal(1, 3, 4, 4), "bfloat16")
    conditioning = {"condition": normal(1, 3, 4, 2), "vector": normal(1, 3)}
    outputs = block(inputs, **conditioning)
    assert outputs.dtype == "bfloat16"
    assert {w.dtype for w in block.weights} == {"float32"}
    stepped = tf.cast(run_incrementally(block, inputs, **conditioning), "float32")
    np.testing.assert_allclose(stepped, tf.cast(outputs, "float32"), atol=0.05)


@pytest.mark.parametrize(
    "arguments,given,named",
    [
        ({"condition_width": 2}, {}, "condition must be given"),
        ({"vector_width": 2}, {}, "vector must be given"),
        ({}, {"condition": normal(1, 3, 3, 2)}, "condition must not be given"),
        ({}, {"vector": normal(1, 2)}, "vector must not be given"),
    ],
)
def test_conditioning_missing_or_not_wanted(arguments, given, named):
    with pytest.raises(ValueError, match=named):
        GatedResidualBlock(2, (2, 3), **arguments)(normal(1, 3, 3, 2), **given)


@pytest.mark.parametrize(
    "arguments,named",
    [
        ({"kernel_size": (2, 2)}, r"kernel_size must be \(kh, kw\).*got \(2, 2\)"),
        ({"dropout": 1.5}, "dropout must be a number of at least 0 and below 1, got 1.5"),
        ({"width": 0}, "width must be an integer of at least 1, got 0"),
        ({"condition_width": 0}, "condition_width must be an integer of at least 1 or None, got 0"),
        ({"vector_width": 2.0}, "vector_width must be an integer of at least 1 or None, got 2.0"),
    ],
)
def test_bad_arguments(arguments, named):
    with pytest.raises(ValueError, match=named):
        GatedResidualBlock(**({"width": 4} | arguments))


def test_wrong_number_of_channels():
    with pytest.raises(ValueError, match="width=4 channels, got shape"):
        GatedResidualBlock(4)(normal(1, 3, 3, 5))
