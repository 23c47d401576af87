"""The sampler: its draws and log-probabilities against whole-grid passes, seeds, batches, retracing."""

import os
import subprocess
import sys

import numpy as np
import pytest

import haim_tf
from haim_tf.likelihoods import Categorical, DiscretizedLogisticMixture
from haim_tf.networks import PixelCNN
from haim_tf.sampling import Sampler, raster, seed_pairs
from haim_tf.sampling.sampler import part_size

SEEDS = seed_pairs(3, 3)

CONDITIONING = {
    "pixels": {"codes": np.arange(18).reshape(3, 2, 3) % 5},
    "codes": {"labels": np.array([0, 2, 1])},
}


def randomized(network):
    network.build()
    rng = np.random.default_rng(0)
    network.set_weights([rng.normal(0, 0.8, w.shape) for w in network.get_weights()])
    return network


@pytest.fixture(scope="module")
def samplers():
    """Grids of 4x6 pixels given 2x3 codes, and 3x4 codes given labels, with attention, in three stages."""
    pixels = PixelCNN(
        DiscretizedLogisticMixture(3, 2),
        *(4, 1, (2, 3)),
        heads=2,
        codebook_size=5,
        upsampling=2,
        condition_width=4,
        condition_blocks=1,
    )
    codes = PixelCNN(Categorical(6), 4, 2, (2, 3), attention=[0], heads=2, num_classes=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(raster, "POSITIONS_A_STAGE", 4)
        patch.setenv("HAIM_TF_PROGRAMS", "0")  # Nothing that others made, nor for others.
        yield {
            "pixels": Sampler(randomized(pixels), (4, 6), stream=0),
            "codes": Sampler(randomized(codes), (3, 4), stream=1),
        }


@pytest.fixture(scope="module", params=["pixels", "codes"])
def case(request, samplers):
    sampler, conditioning = samplers[request.param], CONDITIONING[request.param]
    return sampler, conditioning, *sampler(SEEDS, 1.0, 1.0, **conditioning, log_prob=True)


def noise_of(sampler, seeds):
    return np.array(sampler._draw_noise(seeds))


def trace_counts(sampler):
    return [f.experimental_get_tracing_count() for f in (sampler._run, sampler._draw_noise)]


def test_shapes_and_ranges(case):
    sampler, _, grid, log_prob = case
    head = sampler.network.likelihood
    assert grid.dtype == "int32" and log_prob.dtype == "float32" and log_prob.shape == (3,)
    assert grid.shape == ((3, 4, 6, 3) if head.element_shape else (3, 3, 4))
    assert grid.min() >= 0 and grid.max() < head.num_values


def test_log_probability_is_that_of_the_whole_grid(case):
    sampler, conditioning, grid, log_prob = case
    expected = np.sum(sampler.network.log_prob(grid, **conditioning), axis=(1, 2))
    np.testing.assert_allclose(log_prob, expected, rtol=1e-5)


@pytest.mark.parametrize("temperature,top_p", [(1.0, 1.0), (0.7, 0.8), ([0.5, 1.0, 2.0], [1.0, 0.5, 0.9])])
def test_every_element_is_drawn_from_the_prediction_for_its_place(case, temperature, top_p):
    """The whole grid in one pass, with the same noise, gives the grid itself."""
    sampler, conditioning, *_ = case
    grid, _ = sampler(SEEDS, temperature, top_p, **conditioning)
    params = sampler.network(grid, **conditioning)
    shape = (3, 1, 1)
    temperature = np.broadcast_to(temperature, 3).reshape(shape)
    top_p = np.broadcast_to(top_p, 3).reshape(shape)
    drawn = sampler.network.likelihood.sample(params, noise_of(sampler, SEEDS), temperature, top_p)
    np.testing.assert_array_equal(drawn, grid)


def test_same_seed_same_sample_alone_or_in_any_batch(case):
    sampler, conditioning, grid, _ = case
    again, _ = sampler(SEEDS, 1.0, 1.0, **conditioning)
    np.testing.assert_array_equal(again, grid)
    reordered, _ = sampler(SEEDS[::-1], 1.0, 1.0, **{k: v[::-1] for k, v in conditioning.items()})
    np.testing.assert_array_equal(reordered[::-1], grid)
    alone, _ = sampler(SEEDS[1:2], 1.0, 1.0, **{k: v[1:2] for k, v in conditioning.items()})
    np.testing.assert_array_equal(alone, grid[1:2])


@pytest.mark.slow(reason="samples 28x28 images by four programs of a zoo model")
def test_same_seed_same_sample_at_real_size_at_any_batch_split():
    model = haim_tf.load("fashion_mnist28")
    labels = np.arange(16) % 10
    together = model.sample(16, labels, seed=7)
    np.testing.assert_array_equal(model.sample(16, labels, seed=7, batch_size=5), together)
    for i in (0, 11):
        np.testing.assert_array_equal(model.sample(1, [labels[i]], seed=[[7, i]]), together[i : i + 1])


AT_ONCE = """
import numpy as np
import haim_tf
from haim_tf.sampling import sampler, seed_pairs

model = haim_tf.load("plant_village128")
codes = np.random.default_rng(0).integers(0, 128, (64, 32, 32))
draw = lambda: model.sampler(0)(seed_pairs(0, 64), 1.0, 1.0, codes=codes)[0]
sampler.usable_cores = lambda: 2
at_once = draw()
sampler.usable_cores = lambda: 1
np.testing.assert_array_equal(at_once, draw())
"""


@pytest.mark.slow(reason="samples 128 images of 128x128 pixels")
def test_large_grids_begun_at_once_are_those_of_one_after_the_other():
    """In a process of its own, whose programs are optimized as ever and have all threads."""
    kept = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS" and not k.startswith("TF_NUM_")}
    done = subprocess.run([sys.executable, "-c", AT_ONCE], env=kept, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("num", [16, 17])
def test_a_batch_cut_into_parts_is_the_whole(samplers, monkeypatch, num):
    sampler, seeds = samplers["codes"], seed_pairs(5, num)
    settings = {"temperature": np.linspace(0.5, 1, num), "top_p": np.linspace(0.6, 1, num)}
    settings["labels"] = np.arange(num) % 3
    monkeypatch.setattr("haim_tf.sampling.sampler.PART_SIZES", (1, 20, 20))
    grid, log_prob = sampler(seeds, **settings, log_prob=True)
    for threads in (1, 2):
        monkeypatch.setattr("haim_tf.sampling.sampler.usable_cores", lambda threads=threads: threads)
        monkeypatch.setattr("haim_tf.sampling.sampler.PART_SIZES", (1, 3, 5))
        cut_grid, cut_log_prob = sampler(seeds, **settings, log_prob=True)
        np.testing.assert_array_equal(cut_grid, grid)
        np.testing.assert_allclose(cut_log_prob, log_prob, rtol=1e-5)


def test_few_sizes_serve_all_numbers(monkeypatch):
    monkeypatch.setattr("haim_tf.sampling.sampler.has_accelerator", lambda: False)
    monkeypatch.setattr("haim_tf.sampling.sampler.usable_cores", lambda: 2)
    sizes = {count: part_size(count, (4, 4)) for count in range(1, 200)}
    assert sizes[1] == 1 and {sizes[count] for count in range(2, 9)} == {8}
    assert sizes[16] == sizes[32] == 8 and sizes[48] == sizes[64] == sizes[199] == 32
    monkeypatch.setattr("haim_tf.sampling.sampler.usable_cores", lambda: 16)
    assert part_size(64, (4, 4)) == 8 and part_size(1000, (4, 4)) == part_size(1000, (64, 64)) == 32
    # Neither threads nor memory are for so many large grids at once.
    assert [part_size(1000, (side, side)) for side in (128, 180, 256, 512)] == [8, 8, 1, 1]
    assert part_size(3, (256, 256)) == 1
    monkeypatch.setattr("haim_tf.sampling.sampler.has_accelerator", lambda: True)
    assert [part_size(count, (256, 256)) for count in (1, 7, 9, 64, 129)] == [1, 8, 16, 64, 256]


def test_what_ran_before_does_not_matter(samplers):
    sampler = samplers["codes"]

    def sample(count):
        return sampler(seed_pairs(8, count), 1.0, 1.0, labels=np.arange(count) % 3)[0]

    first = sample(6)
    before = trace_counts(sampler)
    np.testing.assert_array_equal(sample(7)[:6], first)
    np.testing.assert_array_equal(sample(2), first[:2])
    assert trace_counts(sampler) == before


def test_compiled_ahead(samplers):
    for sampler, conditioning in zip(samplers.values(), CONDITIONING.values(), strict=True):
        sampler.compile(2)
        before = trace_counts(sampler)
        grid, log_prob = sampler(SEEDS[:2], 0.5, 0.5, **{k: v[:2] for k, v in conditioning.items()})
        assert trace_counts(sampler) == before
        assert log_prob is None and grid.any()


def test_another_seed_or_conditioning_gives_another_sample(case):
    sampler, conditioning, grid, _ = case
    other, _ = sampler(seed_pairs(4, 3), 1.0, 1.0, **conditioning)
    assert all((a != b).any() for a, b in zip(other, grid, strict=True))
    shuffled = {k: np.roll(v, 1, axis=0) for k, v in conditioning.items()}
    other, _ = sampler(SEEDS, 1.0, 1.0, **shuffled)
    assert (other != grid).any()


def test_an_example_does_not_depend_on_the_settings_of_the_others(case):
    sampler, conditioning, grid, _ = case
    mixed, _ = sampler(SEEDS, [1.0, 0.3, 1.0], [1.0, 1.0, 0.2], **conditioning)
    np.testing.assert_array_equal(mixed[0], grid[0])
    assert (mixed[1] != grid[1]).any() and (mixed[2] != grid[2]).any()


def test_new_settings_seeds_and_conditioning_build_no_new_program(case):
    sampler, conditioning, *_ = case
    before = trace_counts(sampler)
    for i in range(3):
        other = {k: (v + 1) % 3 for k, v in conditioning.items()}
        sampler(seed_pairs(i, 3), 0.5 + i, 0.9 - i / 10, **other, log_prob=True)
        sampler(seed_pairs(i, 3), [1, 2, 3], np.float32(0.5), **other, log_prob=True)
    assert trace_counts(sampler) == before


def test_channels_are_drawn_in_order():
    """More noise in a later channel leaves the channels before it, at the first position."""
    likelihood = DiscretizedLogisticMixture(3, 2)
    fresh = PixelCNN(likelihood, 4, 1, (2, 3), heads=1)
    fresh.build()
    params = fresh(np.full((1, 4, 6, 3), 128, "int32"))[:, 0, 0]
    for channel in range(3):
        noise = np.full((1, 4), 0.5, "float32")
        base = likelihood.sample(params, noise).numpy()
        noise[0, 1 + channel] = 0.9
        changed = likelihood.sample(params, noise).numpy() != base
        assert changed[0, channel] and not changed[0, :channel].any()


def test_temperature_zero_takes_the_mode(samplers):
    sampler, conditioning = samplers["codes"], CONDITIONING["codes"]
    grid, _ = sampler(SEEDS, 0.0, 1.0, **conditioning)
    np.testing.assert_array_equal(grid, np.argmax(sampler.network(grid, **conditioning), -1))
    nucleus, _ = sampler(SEEDS, 1.0, 1e-6, **conditioning)
    np.testing.assert_array_equal(nucleus, grid)


def test_noise_is_uniform_and_each_examples_and_networks_own(samplers):
    noise = noise_of(samplers["pixels"], seed_pairs(0, 200))
    assert noise.shape == (200, 4, 6, 4)
    assert noise.min() >= 0 and noise.max() < 1
    np.testing.assert_allclose(np.histogram(noise, 10, (0, 1))[0] / noise.size, 0.1, atol=0.01)
    assert len(np.unique(noise.reshape(200, -1), axis=0)) == 200
    assert np.abs(np.corrcoef(noise.reshape(200, -1)[:2])[0, 1]) < 0.4
    codes = noise_of(samplers["codes"], seed_pairs(0, 200))
    assert not np.isin(codes[:3], noise[:3]).any()


def test_frequencies_are_the_probabilities():
    network = randomized(PixelCNN(Categorical(3), 4, 1, (1, 3), heads=1))
    count = 4000
    grids, _ = Sampler(network, (1, 2), stream=0)(seed_pairs(0, count), 1.0, 1.0)
    values = np.arange(9).reshape(9, 1, 1) // np.array([3, 1]) % 3
    probabilities = np.exp(np.sum(network.log_prob(values), axis=(1, 2)))
    frequencies = np.bincount(grids[:, 0] @ [3, 1], minlength=9) / count
    np.testing.assert_allclose(frequencies, probabilities, atol=4 * np.sqrt(0.25 / count))
    assert probabilities.max() > 3 * probabilities.min()


def test_seed_pairs():
    np.testing.assert_array_equal(seed_pairs(7, 3), [[7, 0], [7, 1], [7, 2]])
    np.testing.assert_array_equal(seed_pairs(np.int64(-7), 1), [[-7, 0]])
    pairs = [[1, 2], [-(2**31), 2**31 - 1]]
    for given in (pairs, np.array(pairs)):
        found = seed_pairs(given, 2)
        assert found.dtype == "int32"
        np.testing.assert_array_equal(found, pairs)
    assert seed_pairs(0, 0).shape == (0, 2)


@pytest.mark.parametrize(
    "seed,named",
    [
        (2**31, "32 bits, got 2147483648"),
        ([[0, 0], [0, 2**31]], "32 bits"),
        ([[0, 0], [0, 2**64]], "got object"),
        (1.5, "int or an integer array"),
        (True, "int or an integer array"),
        (None, "int or an integer array"),
        ("0", "int or an integer array"),
        ([1, 2], r"shape \(2, 2\), one pair per example, got int64 of shape \(2,\)"),
        ([[0, 0]], r"got int64 of shape \(1, 2\)"),
        ([[0.0, 0.0], [0.0, 1.0]], "got float64"),
    ],
)
def test_bad_seeds(seed, named):
    with pytest.raises(ValueError, match=named):
        seed_pairs(seed, 2)


def test_many_sizes_of_batches_are_no_reason_to_warn(monkeypatch, caplog):
    """The host's walk has a program for each; TensorFlow warns of calls that trace again and again."""
    import tensorflow as tf

    function = tf.function
    monkeypatch.setattr(
        tf, "function", lambda *f, **options: function(*f, **{**options, "jit_compile": None})
    )
    monkeypatch.setattr(tf.get_logger(), "propagate", True)
    network = PixelCNN(Categorical(3), 4, 1)
    network.build()
    walk, seen = raster.HostWalk(network, (1, 1)), []
    for size in (1, 2, 3, 4, 5, 6, 2):
        grid = walk.run(
            size, lambda position, probabilities: seen.append(probabilities) or np.ones(len(probabilities))
        )
        assert grid.shape == (size, 1, 1) and (grid == 1).all() and seen[-1].shape == (size, 3)
    assert "retracing" not in caplog.text
