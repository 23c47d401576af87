"""CausalAttention2D: a NumPy oracle, no blind spot, step by step equal to the whole grid."""

import hypothesis
import hypothesis.strategies as st
import keras
import numpy as np
import pytest
import tensorflow as tf

from haim_tf.layers import CausalAttention2D
from haim_tf.layers.causal_attention import position_features


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def run_incrementally(layer, inputs, growing=False):
    batch_size, height, width, channels = inputs.shape
    cache = layer.init_cache(batch_size, height, width)
    outputs = []
    for index, x in enumerate(inputs.reshape(batch_size, -1, channels).swapaxes(0, 1)):
        if growing and index % width == 0:
            cache = layer.resize_cache(cache, index + width)
        output, cache = layer.step(cache, x, index)
        outputs.append(output)
    return np.stack(outputs, axis=1).reshape(inputs.shape)


def test_no_fused_kernel_is_asked_for(monkeypatch):
    """JAX has one for NVIDIA's GPUs, which takes some counts of positions and refuses others, such as 49."""
    attention, asked = keras.ops.dot_product_attention, []
    monkeypatch.setattr(
        "haim_tf.layers.causal_attention.ops.dot_product_attention",
        lambda *args, **kwargs: asked.append(kwargs["flash_attention"]) or attention(*args, **kwargs),
    )
    CausalAttention2D(heads=2, key_dim=3)(normal(1, 7, 7, 5))
    assert asked == [False]


def test_equals_numpy():
    layer = CausalAttention2D(heads=2, key_dim=3)
    inputs = normal(2, 3, 4, 5)
    outputs = layer(inputs)
    flat = inputs.reshape(2, 12, 5)
    queries, keys, values = np.split(flat @ layer.project.kernel.numpy(), 3, axis=-1)
    positions = position_features(3, 4) @ layer.position.kernel.numpy()
    queries, keys = queries + positions[:, :6], keys + positions[:, 6:]
    mixed = np.zeros((2, 12, 6), "float32")
    for b in range(2):
        for head in (slice(0, 3), slice(3, 6)):
            for i in range(12):
                seen = slice(0, i + 1)
                scores = keys[b, seen, head] @ queries[b, i, head] / np.sqrt(3)
                weights = np.exp(scores - scores.max())
                mixed[b, i, head] = weights / weights.sum() @ values[b, seen, head]
    expected = (mixed @ layer.merge.kernel.numpy()).reshape(inputs.shape)
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-6)
    assert layer.compute_output_shape(inputs.shape) == outputs.shape


def test_sees_itself_and_every_earlier_position(dependence):
    found = dependence(CausalAttention2D(heads=2, key_dim=4), (4, 5, 3))
    np.testing.assert_array_equal(found, np.tri(20).astype(bool))


@pytest.mark.filterwarnings("ignore:You are using a softmax")  # over one position: it is meant
@hypothesis.settings(max_examples=12, deadline=None, derandomize=True)
@hypothesis.given(
    heads=st.integers(1, 3),
    key_dim=st.integers(1, 4),
    grid=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    channels=st.integers(1, 4),
    batch_size=st.integers(1, 2),
    growing=st.booleans(),
)
def test_incremental_equals_parallel(heads, key_dim, grid, channels, batch_size, growing):
    layer = CausalAttention2D(heads, key_dim)
    inputs = 2 * normal(batch_size, *grid, channels)
    layer.build(inputs.shape)
    outputs = run_incrementally(layer, inputs, growing)
    np.testing.assert_allclose(outputs, layer(inputs), rtol=1e-5, atol=1e-5)


def test_looks_at_places_not_only_at_content():
    layer = CausalAttention2D(heads=2, key_dim=8)
    inputs = normal(1, 2, 4, 6)
    swapped = inputs.copy()
    swapped[0, 0, [0, 2]] = inputs[0, 0, [2, 0]]
    assert np.abs(layer(inputs)[0, 1, 3] - layer(swapped)[0, 1, 3]).max() > 1e-4


def test_position_features_tell_places_apart_whatever_the_grid():
    small, large = position_features(4, 5), position_features(9, 7)
    np.testing.assert_array_equal(
        small.reshape(4, 5, -1), large.reshape(9, 7, -1)[:4, :5], err_msg="depends on the size of the grid"
    )
    places = position_features(64, 64)
    assert len(np.unique(places.round(4), axis=0)) == len(places)


@pytest.mark.parametrize("half", ["bfloat16", "float16"])
def test_mixed_precision(half):
    layer = CausalAttention2D(heads=2, key_dim=4, dtype=f"mixed_{half}")
    inputs = normal(2, 3, 4, 8)
    outputs = layer(inputs)
    assert outputs.dtype == half
    assert {w.dtype for w in layer.weights} == {"float32"}
    stepped = tf.cast(run_incrementally(layer, inputs), "float32")
    np.testing.assert_allclose(stepped, tf.cast(outputs, "float32"), atol=0.02)


def test_the_softmax_is_float32_under_mixed_precision(monkeypatch):
    layer = CausalAttention2D(heads=1, key_dim=4, dtype="mixed_bfloat16")
    weights = []
    softmax = tf.nn.softmax

    def watched(logits, axis=None):
        weights.append(softmax(logits, axis=axis))
        return weights[-1]

    monkeypatch.setattr(tf.nn, "softmax", watched)
    layer(normal(1, 4, 4, 4))
    run_incrementally(layer, normal(1, 1, 2, 4))
    assert {w.dtype for w in weights} == {tf.float32} and len(weights) == 3
    # In bfloat16 a row would sum to 1 within half a percent.
    np.testing.assert_allclose(tf.reduce_sum(weights[0], axis=-1), 1.0, atol=1e-5)


@pytest.mark.parametrize("arguments", [{"heads": 0}, {"key_dim": 0}, {"heads": 1.5}, {"key_dim": True}])
def test_bad_arguments(arguments):
    ((name, value),) = arguments.items()
    with pytest.raises(ValueError, match=f"{name} must be an integer of at least 1, got {value!r}"):
        CausalAttention2D(**({"heads": 2, "key_dim": 4} | arguments))
