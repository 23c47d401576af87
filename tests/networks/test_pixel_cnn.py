"""PixelCNN: receptive field to the last position, step by step equal to whole grids, normalised."""

import itertools

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import tensorflow as tf

from haim_tf.layers import CausalAttention2D, GatedResidualBlock, MaskedConv2D
from haim_tf.likelihoods import Categorical, DiscretizedLogisticMixture
from haim_tf.networks import PixelCNN
from haim_tf.networks.autoregressive import crop_at
from haim_tf.presets import list_models, load

CODES_4 = Categorical(4)
GREY, COLOUR = DiscretizedLogisticMixture(1, 2), DiscretizedLogisticMixture(3, 2)


def make(likelihood=CODES_4, width=4, blocks=1, kernel_size=(2, 3), heads=2, **arguments):
    conditioning = {"condition_width": 3, "condition_blocks": 1}
    return PixelCNN(likelihood, width, blocks, kernel_size, heads=heads, **(conditioning | arguments))


def randomize(network):
    """Weights of the size that training gives them: fresh ones make the last layer all but constant."""
    rng = np.random.default_rng(0)
    network.build()
    network.set_weights([rng.normal(0, 0.5, w.shape) for w in network.get_weights()])
    return network


def make_grid(likelihood, shape, seed=0):
    rng = np.random.default_rng(seed)
    if isinstance(likelihood, Categorical):
        return rng.integers(likelihood.num_values, size=shape).astype("int32")
    return rng.integers(256, size=(*shape, likelihood.channels)).astype("int32")


def make_conditioning(network, batch_size, height, width):
    rng = np.random.default_rng(1)
    given = {}
    if network.codebook_size:
        shape = (batch_size, height // network.upsampling, width // network.upsampling)
        given["codes"] = rng.integers(network.codebook_size, size=shape).astype("int32")
    if network.num_classes:
        given["labels"] = rng.integers(network.num_classes, size=batch_size).astype("int32")
    return given


def run_incrementally(network, x, **conditioning):
    batch_size, height, width = x.shape[:3]
    cache = network.init_cache(batch_size, height, width, **conditioning)
    rows = []
    for r in range(height):
        cache = network.start_row(cache, r)
        row = []
        for c in range(width):
            params, cache = network.read(cache, r, c)
            row.append(params)
            cache = network.write(cache, x[:, r, c], c)
        rows.append(np.stack(row, axis=1))
    return np.stack(rows, axis=1)


def reach(height, width, kernel_size, include_center, wrap=False):
    """Which positions (columns) a masked convolution's output (rows) sees, bools (H * W, H * W)."""
    rows, columns = np.divmod(np.arange(height * width), width)
    dr, dc = rows[:, None] - rows, columns[:, None] - columns
    side = kernel_size[1] // 2

    def taps(dr, dc):
        current = (dr == 0) & (dc >= (0 if include_center else 1)) & (dc <= side)
        return current | ((dr >= 1) & (dr < kernel_size[0]) & (abs(dc) <= side))

    # Wrapped, a position also stands left of the next row's start.
    return taps(dr, dc) | (taps(dr - 1, dc + width) if wrap else False)


@pytest.mark.parametrize("overlap", [False, True])
def test_a_crop_is_conditioned_as_in_the_whole_grid(overlap):
    network = randomize(make(codebook_size=5, upsampling=2, condition_overlap=overlap))
    conditioning, x = make_conditioning(network, 3, 8, 12), make_grid(CODES_4, (3, 8, 12))
    condition = network._conditioning(conditioning["codes"], None)[0]
    corner = np.array([[0, 0], [4, 6], [2, 8]], "int32")
    for given, (row, column), part in zip(condition, corner, crop_at(condition, corner, (4, 4)), strict=True):
        np.testing.assert_array_equal(part, given[row : row + 4, column : column + 4])
    # Where nothing is cut off, nothing changes.
    whole = network(x, **conditioning, corner=np.zeros((3, 2), "int32"))
    np.testing.assert_allclose(whole, network(x, **conditioning), rtol=1e-6)
    # Codes beyond the crop tell on it: cut off, they would not.
    seen = network(x[:, 2:6, 4:8], **conditioning, corner=np.full((3, 2), (2, 4), "int32"))
    cut = {"codes": conditioning["codes"][:, 1:3, 2:4]}
    assert np.abs(seen - network(x[:, 2:6, 4:8], **cut)).max() > 1e-3


def test_overlapping_conditioning_reaches_beyond_a_code_s_cell():
    reaches = []
    for overlap in (False, True):
        network = make(codebook_size=5, upsampling=2, condition_overlap=overlap)
        network.build()
        grid = tf.Variable(np.random.default_rng(0).normal(size=(1, 4, 4, 3)).astype("float32"))
        with tf.GradientTape() as tape:
            cell = network.upsample(grid)[0, 2:4, 2:4]
        reaches.append((np.abs(tape.gradient(cell, grid)[0]).max(axis=-1) > 0).sum())
    assert reaches == [1, 9]


def test_codes_reach_the_head_past_the_blocks():
    network = randomize(make(GREY, codebook_size=5, upsampling=2))
    for block in network.block_layers:
        block.merge.kernel.assign(0 * block.merge.kernel)
    x = make_grid(GREY, (1, 4, 4))
    codes = make_conditioning(network, 1, 4, 4)["codes"]
    there, elsewhere = (np.asarray(network(x, codes=c)) for c in (codes, (codes + 1) % 5))
    assert (np.abs(there - elsewhere).max(axis=-1) > 1e-3).all()
    network.condition_skip.kernel.assign(0 * network.condition_skip.kernel)
    there, elsewhere = (np.asarray(network(x, codes=c)) for c in (codes, (codes + 1) % 5))
    np.testing.assert_array_equal(there, elsewhere)


def test_codes_that_mean_alike_are_embedded_alike():
    network = make(Categorical(8), codebook_size=6, width=32, condition_width=16)
    network.build()
    rng = np.random.default_rng(0)
    elements, codes = 100 + 7 * rng.normal(size=(8, 3)), rng.normal(size=(6, 4))
    elements[3] = elements[5] + 0.01
    before = network.embed_codes.embeddings.numpy()
    network.embed_by_codebook(elements=elements)
    np.testing.assert_array_equal(before, network.embed_codes.embeddings.numpy())
    network.embed_by_codebook(codes=codes)
    table = network.embed.embeddings.numpy()
    assert 0.2 < table.std() < 0.8 and 0.2 < network.embed_codes.embeddings.numpy().std() < 0.8
    distances = np.linalg.norm(table - table[3], axis=1)
    assert distances.argsort()[:2].tolist() == [3, 5] and distances[5] < 0.1 * np.sort(distances)[2]


@pytest.mark.parametrize("likelihood", [CODES_4, GREY, COLOUR], ids=["codes", "grey", "colour"])
@pytest.mark.parametrize(
    "blocks,kernel_size,attention",
    [
        (1, (2, 3), []),
        (2, (3, 5), []),
        (3, (1, 3), []),
        (1, (2, 3), [0]),
        (3, (2, 3), [0, 1]),
        (1, (2, 5), [0]),
    ],
)
def test_fresh_network_sees_every_earlier_position_in_reach_and_no_other(
    likelihood, blocks, kernel_size, attention, dependence, monkeypatch
):
    height, width = 4, 6
    network = make(likelihood, blocks=blocks, kernel_size=kernel_size, attention=attention)
    network.build()
    first = (kernel_size[0] + 1, kernel_size[1] + 2)
    seen = reach(height, width, first, include_center=False, wrap=bool(attention)).astype(int)
    block = reach(height, width, kernel_size, include_center=True).astype(int)
    everything_before = np.tri(height * width).astype(int)
    for i in range(blocks):
        seen = block @ seen
        if i in attention:
            seen = everything_before @ seen
    channels = getattr(likelihood, "channels", network.width)
    if isinstance(likelihood, Categorical):
        # Gradients need something continuous: the embedded codes.
        monkeypatch.setattr(network, "_embed_elements", lambda x: x)
    found = dependence(lambda x: network(x)[..., : likelihood.params_size], (height, width, channels))
    np.testing.assert_array_equal(found, seen > 0)
    # With the head's own prediction from finished neighbours it is still causal.
    everything = dependence(network, (height, width, channels))
    assert not np.triu(everything).any()
    assert (everything >= found).all()


def test_attention_leaves_no_blind_spot(dependence):
    network = make(GREY, blocks=2, attention=[0, 1])
    found = dependence(lambda x: network(x)[..., : GREY.params_size], (4, 6, 1))
    np.testing.assert_array_equal(found, np.tri(24, k=-1))


@pytest.mark.parametrize("likelihood", [CODES_4, COLOUR], ids=["codes", "colour"])
def test_changing_an_element_changes_nothing_before_or_at_it(likelihood):
    network = randomize(make(likelihood, blocks=2, attention=[1]))
    x = make_grid(likelihood, (1, 3, 4))
    before = network(x).numpy().reshape(12, -1)
    for p in (0, 5, 10):
        changed = x.reshape(1, 12, -1).copy()
        changed[0, p] = (changed[0, p] + 2) % 4
        after = network(changed.reshape(x.shape)).numpy().reshape(12, -1)
        np.testing.assert_array_equal(after[: p + 1], before[: p + 1])
        assert (np.abs(after - before).max(-1)[p + 1 :] > 0).all()


@hypothesis.settings(max_examples=12, deadline=None, derandomize=True)
@hypothesis.given(
    likelihood=st.sampled_from([CODES_4, GREY, COLOUR]),
    blocks=st.integers(1, 3),
    kernel_size=st.tuples(st.integers(1, 3), st.sampled_from([1, 3, 5])),
    attention=st.sets(st.integers(0, 2)),
    heads=st.sampled_from([1, 2]),
    codebook_size=st.sampled_from([None, 5]),
    num_classes=st.sampled_from([None, 3]),
    upsampling=st.sampled_from([1, 2]),
    grid=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    batch_size=st.integers(1, 2),
)
def test_incremental_equals_parallel(likelihood, blocks, attention, grid, batch_size, **arguments):
    attention = [i for i in attention if i < blocks]
    network = randomize(make(likelihood, blocks=blocks, attention=attention, dropout=0.5, **arguments))
    height, width = grid[0] * arguments["upsampling"], (grid[1] + 1) * arguments["upsampling"]
    x = make_grid(likelihood, (batch_size, height, width))
    conditioning = make_conditioning(network, batch_size, height, width)
    parallel = network(x, **conditioning)
    np.testing.assert_allclose(run_incrementally(network, x, **conditioning), parallel, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["debug", *list_models(pretrained=True)])
def test_incremental_equals_parallel_for_every_network_of_the_zoo(name):
    model = load(name)
    for network, shape in zip(model.networks, model.grid_shapes, strict=True):
        # A corner of the grid: every layer, its own weights, a few rows, not square.
        height, width = 2 * network.upsampling, min(shape[1], 3 * network.upsampling)
        x = make_grid(network.likelihood, (2, height, width))
        conditioning = make_conditioning(network, 2, height, width)
        parallel = tf.function(network, autograph=False)(tf.constant(x), **conditioning)
        stepped = run_incrementally(network, x, **conditioning)
        # Sums over 128 channels and more, in another order.
        np.testing.assert_allclose(stepped, parallel, rtol=1e-5, atol=3e-5)


@pytest.mark.parametrize("conditioning", [{"codebook_size": 4, "num_classes": 2}, {}])
def test_rematerialized_training_has_the_same_gradients(conditioning):
    network = randomize(make(COLOUR, blocks=2, attention=[1], **conditioning))
    again = PixelCNN.from_config({**network.get_config(), "remat": True})
    again.build()
    again.set_weights(network.get_weights())
    x = make_grid(COLOUR, (2, 3, 4))
    inputs = make_conditioning(network, 2, 3, 4)

    def gradients(one):
        with tf.GradientTape() as tape:
            loss = -tf.reduce_mean(one.log_prob(x, **inputs, training=True))
        gradients = tape.gradient(loss, [w.value for w in one.trainable_variables])
        return [tf.convert_to_tensor(gradient) for gradient in gradients]

    plain, rematerialized = (tf.function(gradients, autograph=False)(one) for one in (network, again))
    for name, one, other in zip((w.path for w in network.weights), plain, rematerialized, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-5, err_msg=name)


def test_every_layer_has_an_incremental_form():
    """What the property above relies on: nothing else in the network looks at more than one position."""
    network = make(blocks=2, attention=[0])
    causal = (MaskedConv2D, GatedResidualBlock, CausalAttention2D)
    others = [layer for layer in network._layers if not isinstance(layer, causal)]
    assert {type(layer).__name__ for layer in others} == {"Embedding", "Dense"}


@pytest.mark.parametrize("attention", [[], [0]])
@pytest.mark.parametrize("codebook_size,num_classes", [(None, None), (3, None), (None, 3), (3, 3)])
def test_probabilities_of_all_grids_sum_to_one(codebook_size, num_classes, attention):
    likelihood = Categorical(2)
    network = randomize(
        make(likelihood, attention=attention, codebook_size=codebook_size, num_classes=num_classes)
    )
    grids = np.array(list(itertools.product([0, 1], repeat=6)), "int32").reshape(-1, 2, 3)
    conditioning = {name: np.repeat(v, 64, 0) for name, v in make_conditioning(network, 1, 2, 3).items()}
    log_probs = network.log_prob(grids, **conditioning)
    assert log_probs.shape == (64, 2, 3) and log_probs.dtype == "float32"
    probabilities = np.exp(np.sum(log_probs, axis=(1, 2)))
    np.testing.assert_allclose(probabilities.sum(), 1.0, rtol=1e-5)
    assert probabilities.max() > 1.3 * probabilities.min()


def test_conditioning_changes_the_prediction_where_it_should():
    network = randomize(make(codebook_size=5, num_classes=3, upsampling=3))
    x = make_grid(CODES_4, (1, 6, 9))
    codes, labels = np.zeros((1, 2, 3), "int32"), np.array([0])
    base = network(x, codes=codes, labels=labels).numpy()
    changed = codes.copy()
    changed[0, 1, 2] = 4
    by_code = np.abs(network(x, codes=changed, labels=labels) - base).max(-1)[0] > 0
    assert by_code[3:, 6:].all(), "a code reaches every position of its own block"
    assert (np.abs(network(x, codes=codes, labels=np.array([2])) - base).max(-1) > 0).all()


def test_starts_as_the_heads_own_initial_guess():
    x = make_grid(CODES_4, (2, 4, 4))
    np.testing.assert_allclose(make().log_prob(x), -np.log(4), atol=0.02)
    pixels = make_grid(GREY, (2, 4, 4))
    outputs = np.zeros((2, 4, 4, GREY.params_size), "float32") + GREY.initial_bias()
    np.testing.assert_allclose(make(GREY)(pixels), GREY.parameters(outputs, pixels), atol=0.02)


@pytest.mark.parametrize("likelihood", [CODES_4, GREY, COLOUR], ids=["codes", "grey", "colour"])
def test_output_shape_is_as_computed(likelihood):
    network = make(likelihood, codebook_size=4, upsampling=2)
    x = make_grid(likelihood, (2, 4, 6))
    outputs = network(x, codes=np.zeros((2, 2, 3), "int32"))
    assert outputs.shape == network.compute_output_shape(x.shape)
    assert outputs.dtype == "float32"


def test_log_prob_trains_every_weight():
    network = randomize(make(COLOUR, blocks=2, attention=[1], codebook_size=4, num_classes=2))
    x = make_grid(COLOUR, (4, 5, 6))
    codes = np.arange(4 * 30).reshape(4, 5, 6) % 4
    with tf.GradientTape() as tape:
        loss = -tf.reduce_sum(network.log_prob(x, codes=codes, labels=np.array([0, 1, 0, 1])))
    gradients = tape.gradient(loss, [w.value for w in network.trainable_variables])
    for weight, gradient in zip(network.trainable_variables, gradients, strict=True):
        assert gradient is not None and np.abs(tf.convert_to_tensor(gradient)).max() > 0, weight.path


def test_dropout_acts_in_training_only():
    network = randomize(make(dropout=0.5))
    x = make_grid(CODES_4, (1, 4, 4))
    np.testing.assert_array_equal(network(x), network(x))
    assert np.abs(network(x, training=True) - network(x)).max() > 0


@pytest.mark.parametrize(
    "arguments,named",
    [
        ({"width": 0}, "width"),
        ({"blocks": 0}, "blocks"),
        ({"heads": 0}, "heads"),
        ({"width": 6, "heads": 4}, "width=6, heads=4"),
        ({"attention": [1]}, r"blocks 0\.\.0, each once, got \[1\]"),
        ({"attention": [-1]}, "attention"),
        ({"blocks": 2, "attention": [1, 1]}, "each once"),
        ({"kernel_size": (2, 2)}, "kernel_size"),
        ({"codebook_size": 0}, "codebook_size"),
        ({"num_classes": 0}, "num_classes"),
        ({"upsampling": 0}, "upsampling"),
        ({"remat": True, "dropout": 0.5}, "dropout must be 0 with remat.* got 0.5"),
        ({"likelihood": "categorical"}, "likelihoods.Likelihood, got 'categorical'"),
    ],
)
def test_bad_arguments(arguments, named):
    with pytest.raises(ValueError, match=named):
        make(**arguments)


@pytest.mark.parametrize(
    "arguments,given,named",
    [
        ({"codebook_size": 4}, {}, "codes must be given"),
        ({"num_classes": 4}, {}, "labels must be given"),
        ({}, {"codes": np.zeros((1, 3, 3), "int32")}, "codes must not be given"),
        ({}, {"labels": np.zeros(1, "int32")}, "labels must not be given"),
    ],
)
def test_conditioning_missing_or_not_wanted(arguments, given, named):
    network = make(**arguments)
    with pytest.raises(ValueError, match=named):
        network(np.zeros((1, 3, 3), "int32"), **given)
    with pytest.raises(ValueError, match=named):
        network.init_cache(1, 3, 3, **given)
