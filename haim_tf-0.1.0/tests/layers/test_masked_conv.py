"""MaskedConv2D: a NumPy oracle, causality to the last tap, step by step equal to the whole grid."""

import hypothesis
import hypothesis.strategies as st
import keras
import numpy as np
import pytest
import tensorflow as tf

from haim_tf.layers import MaskedConv2D

KERNELS = [
    ((1, 3), False),
    ((1, 3), True),
    ((1, 1), True),
    ((2, 1), False),
    ((2, 3), True),
    ((3, 5), False),
    ((4, 3), True),
]


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def taps(kernel_size, include_center):
    """Offsets (row, column) that a kernel covers."""
    height, width = kernel_size
    reach = width // 2
    above = [(r, c) for r in range(1 - height, 0) for c in range(-reach, reach + 1)]
    return above + [(0, c) for c in range(-reach, 1 if include_center else 0)]


def run_incrementally(layer, inputs):
    batch_size, height, width, _ = inputs.shape
    cache = layer.init_cache(batch_size, width)
    rows = []
    for r in range(height):
        cache = layer.start_row(cache)
        row = []
        for c in range(width):
            if layer.include_center:
                cache = layer.write(cache, inputs[:, r, c], c)
            row.append(layer.read(cache, c))
            if not layer.include_center:
                cache = layer.write(cache, inputs[:, r, c], c)
        rows.append(np.stack(row, axis=1))
    return np.stack(rows, axis=1)


@pytest.mark.parametrize("kernel_size,include_center", KERNELS)
def test_equals_numpy_over_the_taps(kernel_size, include_center):
    layer = MaskedConv2D(4, kernel_size, include_center)
    inputs = normal(2, 4, 5, 3)
    layer.build(inputs.shape)
    layer.bias.assign(normal(4))
    weights = [w.numpy().reshape(-1, 3, 4) for w in (layer.kernel_above, layer.kernel_row) if w is not None]
    kernel = np.concatenate(weights)
    assert len(kernel) == len(taps(kernel_size, include_center))
    expected = np.zeros((2, 4, 5, 4), "float32") + layer.bias.numpy()
    for (dr, dc), matrix in zip(taps(kernel_size, include_center), kernel, strict=True):
        for r in range(4):
            for c in range(5):
                if 0 <= r + dr and 0 <= c + dc < 5:
                    expected[:, r, c] += inputs[:, r + dr, c + dc] @ matrix
    outputs = layer(inputs)
    assert layer.compute_output_shape(inputs.shape) == outputs.shape
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kernel_size,include_center", KERNELS)
def test_sees_exactly_its_receptive_field(kernel_size, include_center, dependence):
    height, width = 5, 6
    expected = np.zeros((height * width, height * width), bool)
    for p in range(height * width):
        for dr, dc in taps(kernel_size, include_center):
            r, c = p // width + dr, p % width + dc
            if 0 <= r and 0 <= c < width:
                expected[p, r * width + c] = True
    found = dependence(MaskedConv2D(3, kernel_size, include_center), (height, width, 2))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kernel_size,include_center", KERNELS)
def test_wrapped_sees_the_end_of_the_row_above_left_of_a_row(kernel_size, include_center, dependence):
    height, width = 5, 6
    expected = np.zeros((height * width, height * width), bool)
    for p in range(height * width):
        for dr, dc in taps(kernel_size, include_center):
            r, c = p // width + dr, p % width + dc
            if c < 0:
                r, c = r - 1, c + width
            if 0 <= r and c < width:
                expected[p, r * width + c] = True
    layer = MaskedConv2D(3, kernel_size, include_center, wrap=True)
    np.testing.assert_array_equal(dependence(layer, (height, width, 2)), expected)
    if kernel_size[1] > 1:
        assert expected[np.arange(1, height * width), np.arange(height * width - 1)].all()


@hypothesis.settings(max_examples=25, deadline=None, derandomize=True)
@hypothesis.given(
    kernel=st.tuples(st.integers(1, 4), st.sampled_from([1, 3, 5])),
    include_center=st.booleans(),
    wrap=st.booleans(),
    grid=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    channels=st.integers(1, 3),
    batch_size=st.integers(1, 2),
)
def test_incremental_equals_parallel(kernel, include_center, wrap, grid, channels, batch_size):
    hypothesis.assume(include_center or kernel != (1, 1))
    layer = MaskedConv2D(3, kernel, include_center, wrap)
    inputs = normal(batch_size, *grid, channels)
    layer.build(inputs.shape)
    layer.bias.assign([1.0, -2.0, 3.0])
    np.testing.assert_allclose(run_incrementally(layer, inputs), layer(inputs), rtol=1e-5, atol=1e-5)


def test_caches_of_two_grids_do_not_mix():
    layer = MaskedConv2D(3, (2, 3), include_center=False)
    inputs = normal(2, 1, 3, 4, 2)
    expected = [layer(x).numpy() for x in inputs]
    caches = [layer.init_cache(1, 4) for _ in inputs]
    for r in range(3):
        caches = [layer.start_row(cache) for cache in caches]
        for c in range(4):
            for i in range(2):
                output = layer.read(caches[i], c)
                np.testing.assert_allclose(output, expected[i][:, r, c], rtol=1e-5, atol=1e-5)
                caches[i] = layer.write(caches[i], inputs[i][:, r, c], c)


def test_mixed_precision_computes_in_half_in_both_forms():
    layer = MaskedConv2D(4, (2, 3), dtype="mixed_bfloat16")
    inputs = tf.constant(normal(1, 3, 4, 8))
    outputs = layer(inputs)
    assert outputs.dtype == "bfloat16"
    assert {w.dtype for w in layer.weights} == {"float32"}
    half = tf.cast(outputs, "float32")
    stepped = tf.cast(run_incrementally(layer, inputs), "float32")
    np.testing.assert_allclose(stepped, half, atol=0.05)
    exact = MaskedConv2D.from_config(layer.get_config() | {"dtype": "float32"})
    exact.build(inputs.shape)
    exact.set_weights(layer.get_weights())
    np.testing.assert_allclose(exact(inputs), half, atol=0.05)


@pytest.mark.parametrize("include_center", [True, False])
def test_grid_sizes_may_be_unknown_while_tracing(include_center):
    layer = MaskedConv2D(3, (2, 3), include_center)
    inputs = normal(2, 3, 4, 2)
    traced = tf.function(layer, input_signature=[tf.TensorSpec((None, None, None, 2))])
    np.testing.assert_allclose(traced(inputs), layer(inputs), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "arguments,named",
    [
        ({"kernel_size": (0, 3)}, "kernel_size"),
        ({"kernel_size": (2, 4)}, "odd"),
        ({"kernel_size": (2, 0)}, "kernel_size"),
        ({"kernel_size": 3}, r"kernel_size must be \(kh, kw\).*got 3"),
        ({"kernel_size": (2, 3, 3)}, "kernel_size"),
        ({"kernel_size": (1, 1), "include_center": False}, "no taps"),
        ({"filters": 0}, "filters"),
        ({"filters": 2.5}, "filters"),
    ],
)
def test_bad_arguments(arguments, named):
    with pytest.raises(ValueError, match=named):
        MaskedConv2D(**({"filters": 2, "kernel_size": (2, 3)} | arguments))


def test_output_scale_is_about_that_of_the_input():
    keras.utils.set_random_seed(1)
    inputs = normal(2, 16, 16, 32)
    outputs = MaskedConv2D(32, (3, 5))(inputs).numpy()
    assert 0.7 < outputs[:, 4:, 4:-4].std() < 1.3
