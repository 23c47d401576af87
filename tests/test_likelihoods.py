"""Likelihood heads: exact probabilities, agreement with TensorFlow Probability, sampling semantics."""

import itertools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from haim_tf.likelihoods import Categorical, DiscretizedLogisticMixture

HEADS = [
    Categorical(7),
    DiscretizedLogisticMixture(1, mixtures=4, levels=16),
    DiscretizedLogisticMixture(3, mixtures=4, levels=16),
]
IDS = ["categorical", "logistic1", "logistic3"]


def random_outputs(head, shape, seed=0, spread=1.0):
    noise = np.random.default_rng(seed).normal(size=(*shape, head.params_size))
    return (spread * noise + head.initial_bias()).astype("float32")


def random_values(head, shape, seed=0):
    rng = np.random.default_rng(seed)
    if isinstance(head, Categorical):
        return rng.integers(head.num_values, size=shape).astype("int32")
    return rng.integers(head.levels, size=(*shape, head.channels)).astype("int32")


def random_params(head, shape, seed=0, spread=1.0):
    """Parameters (*shape, P) as inside an image: with neighbours."""
    outputs = random_outputs(head, shape, seed, spread)
    if isinstance(head, Categorical):
        return ops.convert_to_tensor(outputs)
    neighbors = [head.scale(random_values(head, shape, seed + i)) for i in (1, 2, 3)]
    return head._with_prediction(outputs, *neighbors)


def uniforms(head, shape, seed=0):
    return np.random.default_rng(seed).random((*shape, head.noise_size), dtype="float32")


def all_values(head):
    if isinstance(head, Categorical):
        return np.arange(head.num_values)
    return np.array(list(itertools.product(range(head.levels), repeat=head.channels)))


def probabilities(head, params):
    """(N, number of values) probabilities for params (N, P)."""
    values = all_values(head)
    shape = (params.shape[0], len(values))
    repeated = ops.broadcast_to(params[:, None, :], (*shape, params.shape[-1]))
    tiled = np.broadcast_to(values, (shape[0], *values.shape))
    return np.exp(ops.convert_to_numpy(head.log_prob(repeated, tiled)).astype("float64"))


def sample(head, params, noise, **kwargs):
    return ops.convert_to_numpy(head.sample(params, noise, **kwargs))


# ---------------------------------------------------------------------------------------- probabilities


@pytest.mark.parametrize("spread", [0.0, 1.0, 30.0])
@pytest.mark.parametrize(
    "head",
    [
        Categorical(512),
        DiscretizedLogisticMixture(1),
        DiscretizedLogisticMixture(1, mixtures=3, levels=2),
        DiscretizedLogisticMixture(3, levels=8),
    ],
    ids=["categorical", "logistic1", "binary", "logistic3"],
)
def test_sums_to_one_over_all_values(head, spread):
    params = random_params(head, (5,), spread=spread)
    np.testing.assert_allclose(probabilities(head, params).sum(axis=1), 1.0, atol=2e-5)


def test_categorical_agrees_with_tfp():
    tfp = pytest.importorskip("tensorflow_probability")
    head = Categorical(11)
    params, x = random_params(head, (2, 3, 4)), random_values(head, (2, 3, 4))
    expected = tfp.distributions.Categorical(logits=params).log_prob(x)
    np.testing.assert_allclose(head.log_prob(params, x), expected, atol=1e-5)


def tfp_log_prob(head, params, x):
    """The mixture's log-probability from TFP's quantized logistics, in float64 and in units of levels."""
    tfd = pytest.importorskip("tensorflow_probability").distributions
    tfb = pytest.importorskip("tensorflow_probability").bijectors
    M, C, top = head.mixtures, head.channels, head.levels - 1
    params = ops.convert_to_numpy(params).astype("float64")
    groups = params[..., : head.params_size].reshape(*params.shape[:-1], -1, M)
    prediction = params[..., head.params_size :]
    residuals = x / top * 2 - 1 - prediction
    logits, log_scales = groups[..., 0, :], groups[..., 1 + C : 1 + 2 * C, :]
    means = groups[..., 1 : 1 + C, :] + prediction[..., None]
    if C == 3:
        green_red, blue_red, blue_green = np.moveaxis(groups[..., 7:, :], -2, 0)
        red, green = residuals[..., 0, None], residuals[..., 1, None]
        means[..., 1, :] += green_red * red
        means[..., 2, :] += blue_red * red + blue_green * green
    loc = np.swapaxes((means + 1) / 2 * top, -1, -2)
    scale = np.swapaxes(np.exp(log_scales) / 2 * top, -1, -2)
    bins = tfd.QuantizedDistribution(
        tfd.TransformedDistribution(tfd.Logistic(loc, scale), tfb.Shift(np.float64(-0.5))), low=0, high=top
    )
    mixture = tfd.MixtureSameFamily(tfd.Categorical(logits=logits), tfd.Independent(bins, 1))
    return mixture.log_prob(x.astype("float64"))


@pytest.mark.parametrize("channels", [1, 3])
def test_logistic_mixture_agrees_with_tfp(channels):
    head = DiscretizedLogisticMixture(channels)
    params, x = random_params(head, (3, 40)), random_values(head, (3, 40))
    x[0, 0], x[0, 1] = 0, 255
    np.testing.assert_allclose(head.log_prob(params, x), tfp_log_prob(head, params, x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("head", HEADS, ids=IDS)
@pytest.mark.parametrize("spread", [0.0, 1.0, 1e3, 1e6])
def test_log_prob_and_gradients_are_finite(head, spread):
    tf = pytest.importorskip("tensorflow")
    x = all_values(head)
    params = tf.Variable(random_params(head, (len(x),), spread=spread))
    with tf.GradientTape() as tape:
        log_prob = head.log_prob(params, x)
    assert np.isfinite(log_prob).all() and (np.asarray(log_prob) <= 1e-5).all()
    gradient = tape.gradient(log_prob, params)
    assert np.isfinite(gradient).all() and np.any(gradient)


@pytest.mark.parametrize("log_scale", [-50.0, 50.0])
def test_extreme_scales_are_finite_at_every_intensity(log_scale):
    tf = pytest.importorskip("tensorflow")
    head = DiscretizedLogisticMixture(1, mixtures=1)
    params = tf.Variable(np.tile(np.float32([0.0, 0.3, log_scale, 0.0]), (256, 1)))
    with tf.GradientTape() as tape:
        log_prob = head.log_prob(params, np.arange(256)[:, None])
    assert np.isfinite(log_prob).all() and np.isfinite(tape.gradient(log_prob, params)).all()
    assert np.exp(np.float64(log_prob)).sum() == pytest.approx(1.0, abs=1e-4)


def test_far_tail_keeps_a_gradient_towards_the_value():
    tf = pytest.importorskip("tensorflow")
    head = DiscretizedLogisticMixture(1, mixtures=1)
    params = tf.Variable([[0.0, -1.0, -7.0, 0.0]])
    with tf.GradientTape() as tape:
        log_prob = head.log_prob(params, [[200]])
    assert log_prob < -1000
    assert tape.gradient(log_prob, params)[0, 1] > 1000


def test_channels_are_in_order():
    """No parameter of green or blue moves the marginal of red, none of blue that of red and green."""
    tf = pytest.importorskip("tensorflow")
    head = DiscretizedLogisticMixture(3, mixtures=2, levels=4)
    M, values = head.mixtures, all_values(head)
    groups = {"red": [1, 4], "green": [2, 5, 7], "blue": [3, 6, 8, 9]}
    later = {"red": ["green", "blue"], "green": ["blue"], "blue": []}
    for channel, name in enumerate(groups):
        outputs = random_outputs(head, (1,), spread=0.3)
        outputs[:, 4 * M : 7 * M] += 4.0  # wide: every component reaches every value
        neighbor = head.scale([[0, 2, 3]])
        params = tf.Variable(head._with_prediction(outputs, neighbor, neighbor, neighbor))
        with tf.GradientTape() as tape:
            p = tf.exp(head.log_prob(tf.repeat(params, len(values), 0), values))
            marginal = tf.reduce_sum(p[(values[:, : channel + 1] == 1).all(axis=1)])
        gradient = tape.gradient(marginal, params).numpy()[0, : head.params_size].reshape(-1, M)
        assert (np.abs(gradient[groups[name]]).max(axis=1) > 1e-4).all()
        for other in later[name]:
            np.testing.assert_allclose(gradient[groups[other]], 0.0, atol=1e-6)


# ------------------------------------------------------------------------------------------- parameters


@pytest.mark.parametrize("head", HEADS, ids=IDS)
def test_parameters_on_the_grid_equal_those_element_by_element(head):
    outputs, x = random_outputs(head, (2, 3, 4)), random_values(head, (2, 3, 4))
    whole = ops.convert_to_numpy(head.parameters(outputs, x))
    assert whole.shape[-1] == head.output_size
    if not head.embedded:
        scaled = ops.convert_to_numpy(head.scale(x))
        assert scaled.min() == -1.0 and scaled.max() == 1.0
    cache = head.init_cache(2, 4)
    for r in range(3):
        cache = head.start_row(cache)
        for c in range(4):
            single = head.parameters_at(cache, outputs[:, r, c], c)
            np.testing.assert_array_equal(single, whole[:, r, c])
            cache = head.write(cache, x[:, r, c], c)


def test_linear_prediction():
    head = DiscretizedLogisticMixture(1, mixtures=1, levels=5)
    x = np.array([[0, 4, 4], [3, 2, 1]])[None, ..., None]  # -1, 1, 1 over 0.5, 0, -0.5
    params = head.parameters(np.zeros((1, 2, 3, head.params_size)), x)
    expected = [[0.0, -0.75, 0.75], [-0.75, 1.0, 0.25]]  # the 1.0 is 0.375 + 0.75 + 0.5, clipped
    np.testing.assert_allclose(params[0, :, :, -1], expected, atol=1e-6)


def test_initial_bias_is_a_sensible_image_model():
    """Smooth grey images cost clearly less than the log(256) a channel of uniform noise."""
    head = DiscretizedLogisticMixture(3)
    bias = head.initial_bias().reshape(-1, head.mixtures)
    np.testing.assert_allclose(bias[4:7], np.tile(np.linspace(-4.5, -1.5, 10), (3, 1)), atol=1e-6)
    np.testing.assert_allclose(bias[7:, 0], [0.9, 0.0, 0.9])
    assert not bias[:4].any() and bias.dtype == np.float32
    ramp = np.add.outer(np.arange(0, 160, 10), np.arange(0, 80, 5))[None, :, :, None]
    images = np.repeat(ramp, 3, axis=-1)
    outputs = np.broadcast_to(head.initial_bias(), (1, 16, 16, head.params_size))
    nats = -np.mean(head.log_prob(head.parameters(outputs, images), images)) / 3
    assert nats < 0.75 * math.log(256)


@pytest.mark.parametrize("head", HEADS, ids=IDS)
def test_half_precision_outputs_are_computed_in_float32(head):
    outputs, x = random_outputs(head, (1, 2, 2)), random_values(head, (1, 2, 2))
    half = ops.cast(outputs, "bfloat16")
    params = head.parameters(half, x)
    assert keras.backend.standardize_dtype(params.dtype) == "float32"
    expected = head.log_prob(head.parameters(ops.cast(half, "float32"), x), x)
    np.testing.assert_array_equal(head.log_prob(params, x), expected)


def test_uint8_values_equal_int32_values():
    head = DiscretizedLogisticMixture(3)
    outputs, x = random_outputs(head, (1, 4, 4)), random_values(head, (1, 4, 4))
    x[0, 0, 0], x[0, 0, 1] = 0, 255
    expected = head.log_prob(head.parameters(outputs, x), x)
    x = x.astype("uint8")
    np.testing.assert_array_equal(head.log_prob(head.parameters(outputs, x), x), expected)


# --------------------------------------------------------------------------------------------- sampling


def assert_frequencies_match(counts, expected, num_samples):
    """Pearson's statistic stays under its mean plus five standard deviations."""
    common = expected * num_samples >= 5
    rest = max(expected[~common].sum() * num_samples, 1e-9)
    rare = counts[~common].sum()
    expected_counts = expected[common] * num_samples
    statistic = np.sum((counts[common] - expected_counts) ** 2 / expected_counts)
    degrees = common.sum()
    assert degrees > 3
    assert statistic < degrees + 5 * np.sqrt(2 * degrees)
    assert rare <= rest + 5 * np.sqrt(rest) + 5


@pytest.mark.parametrize(
    "head",
    [Categorical(20), DiscretizedLogisticMixture(1, 4, 32), DiscretizedLogisticMixture(3, 4, 6)],
    ids=IDS,
)
@pytest.mark.parametrize("seed", [0, 1])
def test_samples_follow_log_prob(head, seed):
    num_samples = 50_000
    params = random_params(head, (1,), seed)
    expected = probabilities(head, params)[0]
    repeated = ops.broadcast_to(params, (num_samples, params.shape[-1]))
    drawn = sample(head, repeated, uniforms(head, (num_samples,), seed))
    values = all_values(head)
    if isinstance(head, DiscretizedLogisticMixture):
        weights = head.levels ** np.arange(head.channels)[::-1]
        drawn, values = drawn @ weights, values @ weights
        np.testing.assert_array_equal(values, np.arange(len(values)))
    counts = np.bincount(drawn, minlength=len(values))
    assert_frequencies_match(counts, expected, num_samples)


def test_categorical_inverts_the_cdf():
    head = Categorical(4)
    logits = np.log(np.float32([[0.5, 0.25, 0.125, 0.125]]))
    noise = np.float32([0.0, 0.49, 0.51, 0.74, 0.76, 0.87, 0.88, 1 - 2**-24])[:, None]
    drawn = sample(head, np.repeat(logits, len(noise), 0), noise)
    np.testing.assert_array_equal(drawn, [0, 0, 1, 1, 2, 2, 3, 3])
    assert drawn.dtype == np.int32


def test_values_without_mass_are_never_drawn():
    head = Categorical(5)
    logits = np.float32([[-np.inf, 0.0, -200.0, 0.0, -np.inf]])
    noise = np.float32([0.0, 0.4999, 0.5001, 1 - 2**-24])[:, None]
    np.testing.assert_array_equal(sample(head, np.repeat(logits, 4, 0), noise), [1, 1, 3, 3])


@pytest.mark.parametrize("temperature", [0.0, 1e-30, 1e-12])
@pytest.mark.parametrize("top_p", [1.0, 0.5])
def test_zero_temperature_gives_the_mode(temperature, top_p):
    noise = np.linspace(0, 1 - 2**-24, 50, dtype="float32")
    head = Categorical(30)
    params = ops.broadcast_to(random_params(head, (1,)), (50, 30))
    drawn = sample(head, params, noise[:, None], temperature=temperature, top_p=top_p)
    np.testing.assert_array_equal(drawn, np.argmax(params, axis=-1))

    head = DiscretizedLogisticMixture(1, mixtures=3)
    params = np.tile(np.float32([0.1, 0.2, 0.15, -0.5, 0.25, 0.5, -1.0, -1.0, -1.0, 0.0]), (50, 1))
    noise = np.stack([noise, noise[::-1]], -1)
    drawn = sample(head, params, noise, temperature=temperature, top_p=top_p)
    np.testing.assert_array_equal(drawn, np.full((50, 1), round(1.25 / 2 * 255)))


def test_zero_temperature_takes_the_first_of_equal_modes():
    drawn = sample(Categorical(4), np.float32([[0.0, 2.0, 2.0, 1.0]] * 2), [[0.0], [0.99]], temperature=0.0)
    np.testing.assert_array_equal(drawn, [1, 1])


def test_temperature_divides_the_logits():
    head, noise = Categorical(9), uniforms(Categorical(9), (400,))
    params = random_params(head, (400,))
    cold = sample(head, params, noise, temperature=0.5)
    np.testing.assert_array_equal(cold, sample(head, 2.0 * params, noise))
    assert np.any(cold != sample(head, params, noise))


def test_temperature_multiplies_the_scales():
    head = DiscretizedLogisticMixture(1, mixtures=1)
    params = np.tile(np.float32([0.0, 0.1, -2.5, 0.0]), (300, 1))
    noise = uniforms(head, (300,))
    wide = params + np.float32([0.0, 0.0, math.log(0.3), 0.0])
    np.testing.assert_array_equal(sample(head, params, noise, temperature=0.3), sample(head, wide, noise))


@pytest.mark.parametrize(
    "top_p, nucleus", [(0.0, [3]), (0.3, [3]), (0.45, [3, 1]), (0.75, [3, 1, 0]), (0.999, [3, 1, 0, 2, 4])]
)
def test_top_p_keeps_the_smallest_set_and_renormalises(top_p, nucleus):
    head, num_samples = Categorical(5), 20_000
    p = np.float32([0.2, 0.25, 0.1, 0.4, 0.05])
    params = np.broadcast_to(np.log(p), (num_samples, 5))
    counts = np.bincount(sample(head, params, uniforms(head, (num_samples,)), top_p=top_p), minlength=5)
    expected = np.zeros(5)
    expected[nucleus] = p[nucleus] / p[nucleus].sum()
    assert set(np.flatnonzero(counts)) == set(nucleus)
    np.testing.assert_allclose(counts / num_samples, expected, atol=0.015)


def test_top_p_cuts_through_equal_probabilities():
    head = Categorical(8)
    drawn = sample(head, np.zeros((500, 8), "float32"), uniforms(head, (500,)), top_p=0.5)
    np.testing.assert_array_equal(np.unique(drawn), np.arange(4))


def test_top_p_confines_the_logistic_to_its_central_mass():
    head = DiscretizedLogisticMixture(1, mixtures=1)
    params = np.tile(np.float32([0.0, 0.0, -3.0, 0.0]), (20_000, 1))
    noise = uniforms(head, (20_000,))
    drawn = sample(head, params, noise, top_p=0.8)[:, 0]
    ends = [(math.exp(-3.0) * math.log(u / (1 - u)) + 1) / 2 * 255 for u in (0.1, 0.9)]
    assert drawn.min() == round(ends[0]) and drawn.max() == round(ends[1])
    everything = sample(head, params, noise)[:, 0]
    assert everything.min() < drawn.min() and everything.max() > drawn.max()


@pytest.mark.parametrize("head", HEADS, ids=IDS)
def test_sample_does_not_depend_on_the_batch(head):
    num = 200
    params, noise = random_params(head, (num,)), uniforms(head, (num,))
    top_p = np.where(np.arange(num) % 2, 0.3, 1.0).astype("float32")
    temperature = np.linspace(0.0, 2.0, num, dtype="float32")
    mixed = sample(head, params, noise, temperature=temperature, top_p=top_p)
    everything = sample(head, params, noise, temperature=temperature, top_p=np.ones(num, "float32"))
    np.testing.assert_array_equal(mixed[::2], everything[::2])
    assert np.any(mixed[1::2] != everything[1::2])
    for i in (0, 1, 50, 101, 199):
        one = {"temperature": float(temperature[i]), "top_p": float(top_p[i])}
        alone = sample(head, params[i : i + 1], noise[i : i + 1], **one)
        np.testing.assert_array_equal(alone[0], mixed[i])


def test_noise_of_a_channel_moves_only_it_and_the_later_ones():
    head = DiscretizedLogisticMixture(3)
    params = random_params(head, (100,), spread=0.1)
    noise = uniforms(head, (100,))
    before = sample(head, params, noise)
    for channel in range(3):
        changed = noise.copy()
        changed[:, 1 + channel] = 1.0 - changed[:, 1 + channel]
        moved = (sample(head, params, changed) != before).mean(axis=0)
        assert not moved[:channel].any()
        assert (moved[channel:] > 0.3).all()


@pytest.mark.parametrize("head", HEADS, ids=IDS)
@pytest.mark.parametrize("noise", [0.0, 1 - 2**-24])
def test_extreme_parameters_and_noise_give_valid_samples(head, noise):
    params = random_params(head, (64,), spread=1e6)
    noise = np.full((64, head.noise_size), noise, "float32")
    highest = head.num_values - 1 if isinstance(head, Categorical) else head.levels - 1
    for temperature, top_p in itertools.product([0.0, 1.0, 100.0], [0.0, 0.5, 1.0]):
        drawn = sample(head, params, noise, temperature=temperature, top_p=top_p)
        assert drawn.min() >= 0 and drawn.max() <= highest


@pytest.mark.parametrize("head", HEADS, ids=IDS)
def test_compiles_with_xla(head):
    tf = pytest.importorskip("tensorflow")
    shape = (2, 3, 4)
    outputs, x, noise = random_outputs(head, shape), random_values(head, shape), uniforms(head, shape)

    @tf.function(jit_compile=True)
    def compiled(outputs, x, noise, temperature, top_p):
        params = head.parameters(outputs, x)
        return head.log_prob(params, x), head.sample(params, noise, temperature, top_p)

    params = head.parameters(outputs, x)
    for top_p in (1.0, 0.7):
        log_prob, drawn = compiled(outputs, x, noise, tf.constant(0.9), tf.constant(top_p))
        np.testing.assert_allclose(log_prob, head.log_prob(params, x), rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(drawn, sample(head, params, noise, temperature=0.9, top_p=top_p))


# ---------------------------------------------------------------------------------------- configuration


@pytest.mark.parametrize("head", HEADS, ids=IDS)
def test_config_round_trip(head):
    restored = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(head))
    assert type(restored) is type(head)
    assert restored.get_config() == head.get_config()
    params, x = random_params(head, (2,)), random_values(head, (2,))
    np.testing.assert_array_equal(restored.log_prob(params, x), head.log_prob(params, x))


@pytest.mark.parametrize("head", HEADS, ids=IDS)
def test_sizes_and_shapes(head):
    shape = (2, 3, 4)
    params = head.parameters(random_outputs(head, shape), random_values(head, shape))
    assert head.initial_bias().shape == (head.params_size,)
    assert tuple(head.log_prob(params, random_values(head, shape)).shape) == shape
    channels = () if isinstance(head, Categorical) else (head.channels,)
    assert sample(head, params, uniforms(head, shape)).shape == shape + channels


def test_params_sizes():
    assert Categorical(512).params_size == 512
    assert DiscretizedLogisticMixture(1).params_size == 30
    assert DiscretizedLogisticMixture(3, mixtures=5).params_size == 50


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Categorical(1), "num_values must be .* got 1"),
        (lambda: Categorical(2.5), "num_values must be .* got 2.5"),
        (lambda: DiscretizedLogisticMixture(2), "1 or 3, got 2"),
        (lambda: DiscretizedLogisticMixture("3"), "got '3'"),
        (lambda: DiscretizedLogisticMixture(3, mixtures=0), "mixtures must be .* got 0"),
        (lambda: DiscretizedLogisticMixture(3, levels=1), "levels must be .* got 1"),
        (lambda: DiscretizedLogisticMixture(3, levels=True), "levels must be .* got True"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_log_probs_are_the_factors_of_log_prob():
    """Of every value of a channel, they sum to one; along the channels, they sum up to the pixel's."""
    rng = np.random.default_rng(0)
    head = DiscretizedLogisticMixture(channels=3, mixtures=4)
    params = rng.normal(0, 1.5, (20, head.params_size + 3)).astype("float32")
    x = rng.integers(0, 256, (20, 3)).astype("int32")
    total = 0.0
    for channel in range(3):
        log_probs = np.array(head.log_probs(params, x[:, :channel] if channel else None), "float64")
        assert log_probs.shape == (20, 256)
        np.testing.assert_allclose(np.exp(log_probs).sum(axis=-1), 1.0, rtol=1e-4)
        total = total + log_probs[np.arange(20), x[:, channel]]
    np.testing.assert_allclose(total, head.log_prob(params, x), rtol=1e-4)

    head, logits = Categorical(5), rng.normal(0, 2, (20, 5)).astype("float32")
    x = rng.integers(0, 5, 20)
    np.testing.assert_allclose(
        np.array(head.log_probs(logits))[np.arange(20), x], head.log_prob(logits, x), 1e-5
    )


@pytest.mark.parametrize("top_p", [1.0, 0.9])
def test_temperature_0_gives_the_mode_of_guided_logits_in_any_program(top_p):
    """A compiler may compute guided logits once for their maximum and once more, rounded otherwise."""
    head, rng = Categorical(6), np.random.default_rng(0)
    hidden, kernel, bias = (rng.normal(size=shape).astype("float32") for shape in ((50, 2, 4), (4, 6), (6,)))
    guidance = np.full(1, 4.0, "float32")

    @tf.function(jit_compile=True, autograph=False)
    def draw(hidden, guidance):
        def visit(i, found):
            logits = head.guided(*tf.split(tf.matmul(3.0 * hidden[i], kernel) + bias, 2), guidance)
            drawn = head.sample(logits, tf.zeros((1, 1)), 0.0 * guidance, top_p + 0.0 * guidance)
            return i + 1, tf.tensor_scatter_nd_update(found, [[i]], drawn)

        return tf.while_loop(lambda i, _: i < 50, visit, (0, tf.zeros(50, "int32")))[1]

    given, absent = np.moveaxis(3.0 * hidden @ kernel + bias, 1, 0)
    logits = absent + guidance * (given - absent)
    found = np.asarray(draw(hidden, guidance))
    assert found.max() < 6
    chosen = np.take_along_axis(logits, found[:, None], axis=1)[:, 0]
    np.testing.assert_allclose(chosen, logits.max(axis=1), atol=1e-3)
