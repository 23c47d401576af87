"""The TensorFlow Probability view: equal to the model, usable inside other TFP code."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import haim_tf

tfd = tfp.distributions
SHAPE = (4, 4, 1)


def tiny(**changes):
    """A model that compiles fast, its weights away from those of a fresh one, which says nearly nothing."""
    level = {"downsampling": 2, "codebook_size": 4, "code_dim": 2, "width": 4, "blocks": 1}
    arguments = {
        "image_shape": SHAPE,
        "levels": [{**level, "decoder": {"width": 4, "blocks": 1}}],
        "prior": {"width": 4, "blocks": 1},
        "mixtures": 2,
    }
    model = haim_tf.HierarchicalModel(**{**arguments, **changes})
    rng = np.random.default_rng(0)
    for network in model.networks:
        network.last.kernel.assign(rng.normal(0, 0.3, network.last.kernel.shape))
    return model


@pytest.fixture(scope="module")
def model():
    return tiny(num_classes=4)


@pytest.fixture(scope="module")
def images(model):
    return model.sample(4, labels=[1, 2, 3, 0], seed=5)[:3]


def test_log_prob_is_the_models(model, images):
    one, several = model.as_distribution(labels=2), model.as_distribution(labels=[1, 2, 3])
    assert (one.dtype, one.event_shape, one.batch_shape) == (tf.float32, SHAPE, ())
    assert isinstance(one, tfd.Distribution) and several.batch_shape == (3,)
    values = images.astype("float32")
    np.testing.assert_allclose(one.log_prob(values), model.log_prob(images, 2), rtol=1e-5)
    np.testing.assert_allclose(several.log_prob(values), model.log_prob(images, [1, 2, 3]), rtol=1e-5)
    # One image under every label, and two sample dimensions.
    np.testing.assert_allclose(
        several.log_prob(values[:1]), model.log_prob(np.repeat(images[:1], 3, 0), [1, 2, 3]), rtol=1e-5
    )
    again = one.log_prob(np.stack([values, values[::-1]]))
    np.testing.assert_allclose(again, [one.log_prob(values), one.log_prob(values[::-1])], rtol=1e-5)
    assert one.log_prob(values[0] - 300.0) == -np.inf


def test_no_labels_means_every_label_equally_likely(model, images):
    each = np.stack([model.log_prob(images, y) for y in range(model.num_classes)])
    expected = np.logaddexp.reduce(each, axis=0) - np.log(model.num_classes)
    found = model.as_distribution().log_prob(images.astype("float32"))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    labels = model.as_distribution()._draw_labels(tf.stack([tf.zeros(200, tf.int32), tf.range(200)], 1))
    assert set(labels.numpy()) == set(range(4))


def test_samples_equal_the_models_and_each_other_for_equal_seeds(model):
    distribution = model.as_distribution(labels=3, temperature=[0.5, 2.0])
    expected = model.sample(4, labels=3, seed=7, temperature=[0.5, 2.0])
    found = distribution.sample(4, seed=7)
    assert found.dtype == tf.float32
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(distribution.sample(4, seed=7), expected)
    one, two, other = (distribution.sample(4, seed=tf.constant([1, s])) for s in (2, 2, 3))
    np.testing.assert_array_equal(one, two)
    assert (one != other).numpy().any()
    assert (distribution.sample(4) != distribution.sample(4)).numpy().any()


def test_whatever_the_models_own_sampling_values_are():
    model = tiny(num_classes=4)
    model.sampling_defaults = {"temperature": 0.1, "top_p": 0.5}
    found = model.as_distribution(labels=3).sample(4, seed=7)
    expected = model.sample(4, 3, seed=7, temperature=1.0, top_p=1.0, guidance=1.0)
    np.testing.assert_array_equal(found, expected)
    assert (expected != model.sample(4, 3, seed=7)).any()


def test_shapes_of_samples(model):
    distribution = model.as_distribution(labels=[0, 3])
    assert distribution.sample(2, seed=0).shape == (2, 2, *SHAPE)
    grid = distribution.sample((2, 1), seed=3)
    assert grid.shape == (2, 1, 2, *SHAPE)
    flat = model.sample(4, labels=[0, 3, 0, 3], seed=3)
    np.testing.assert_array_equal(tf.reshape(grid, (4, *SHAPE)), flat)
    assert model.as_distribution().sample(4, seed=0).shape == (4, *SHAPE)
    assert model.prior_distribution().sample(4, seed=0).shape == (4, 2, 2)


def test_under_tf_function(model):
    distribution = model.as_distribution(labels=2)

    @tf.function
    def run(values, n):
        return distribution.log_prob(values), distribution.sample(4, seed=1), distribution.sample(n, seed=1)

    expected = model.sample(4, labels=2, seed=1)
    log_prob, samples, dynamic = run(expected.astype("float32"), tf.constant(3))
    np.testing.assert_allclose(log_prob, model.log_prob(expected, 2), rtol=1e-5)
    np.testing.assert_array_equal(samples, expected)
    np.testing.assert_array_equal(dynamic, expected[:3])


@pytest.mark.parametrize("labels", [2, None, [0, 1]])
def test_the_prior_sums_to_one(model, labels):
    prior = model.prior_distribution(labels)
    assert (prior.dtype, prior.event_shape) == (tf.int32, (2, 2))
    codes = np.stack(np.meshgrid(*[range(4)] * 4), -1).reshape(-1, 1, 2, 2)
    total = tf.reduce_sum(prior.prob(codes if labels == [0, 1] else codes[:, 0]), 0)
    np.testing.assert_allclose(total, np.ones(prior.batch_shape), rtol=1e-4)


def test_samples_of_the_prior_follow_its_log_prob(model):
    prior = model.prior_distribution(1)
    codes = prior.sample(2000, seed=0).numpy()
    shares = np.bincount(codes[:, 1, 1], minlength=4) / 2000
    everything = np.stack(np.meshgrid(*[range(4)] * 4), -1).reshape(-1, 2, 2)
    weights = prior.prob(everything).numpy()
    np.testing.assert_allclose(shares, np.bincount(everything[:, 1, 1], weights, minlength=4), atol=0.04)


def test_without_levels_or_labels():
    model = tiny(levels=[])
    images = model.sample(4)
    values = images.astype("float32")
    found = model.as_distribution().log_prob(values)
    np.testing.assert_allclose(found, model.log_prob(values), rtol=1e-5)
    np.testing.assert_allclose(model.prior_distribution().log_prob(values.astype("int32")), found, rtol=1e-5)
    np.testing.assert_array_equal(model.prior_distribution().sample(4, seed=0), images)


def test_a_mixture_of_two_models():
    models = [tiny(levels=[]), tiny(levels=[])]
    for model, shift in zip(models, (-3.0, 3.0), strict=True):
        bias = model.prior.last.bias
        bias.assign(bias + shift * np.repeat([0, 1, 0], 2))
    distribution = tfd.Mixture(
        tfd.Categorical(probs=[0.25, 0.75]), [model.as_distribution() for model in models]
    )
    values = models[0].sample(4).astype("float32")
    expected = np.logaddexp(
        *(np.log(p) + m.log_prob(values) for p, m in zip((0.25, 0.75), models, strict=True))
    )
    np.testing.assert_allclose(distribution.log_prob(values), expected, rtol=1e-4)
    draws = tf.function(lambda: distribution.sample(128, seed=(1, 2)))()
    assert draws.shape == (128, *SHAPE)
    assert np.mean(draws.numpy().mean((1, 2, 3)) > 127) == pytest.approx(0.75, abs=0.1)


def test_independent_and_joint_distributions(model, images):
    several = model.as_distribution(labels=[1, 2, 3])
    independent = tfd.Independent(several, reinterpreted_batch_ndims=1)
    values = images.astype("float32")
    assert independent.event_shape == (3, *SHAPE) and independent.batch_shape == ()
    np.testing.assert_allclose(
        independent.log_prob(values), model.log_prob(images, [1, 2, 3]).sum(), rtol=1e-5
    )
    assert independent.sample(1, seed=(0, 1)).shape == (1, 3, *SHAPE)

    joint = tfd.JointDistributionSequential(
        [
            model.as_distribution(labels=2),
            lambda image: tfd.Independent(tfd.Normal(image, 10.0), reinterpreted_batch_ndims=3),
        ]
    )
    image, noisy = joint.sample(4, seed=(3, 4))
    assert image.shape == noisy.shape == (4, *SHAPE)
    noise = tfd.Normal(image, 10.0).log_prob(noisy).numpy().sum((1, 2, 3))
    expected = noise + model.log_prob(image.numpy(), 2)
    np.testing.assert_allclose(joint.log_prob([image, noisy]), expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": 4}, "labels must lie in 0..3"),
        ({"labels": [0.5]}, "labels must be integers"),
        ({"temperature": -1.0}, "temperature must lie in"),
        ({"temperature": [1.0, 1.0, 1.0]}, "temperature must be one number or 2"),
    ],
)
def test_bad_arguments(model, arguments, message):
    for make in (model.as_distribution, model.prior_distribution):
        with pytest.raises(ValueError, match=message):
            make(**arguments)


def test_log_prob_is_known_at_temperature_1_only(model, images):
    with pytest.raises(ValueError, match="log_prob is that of the model as trained"):
        model.as_distribution(2, temperature=0.9).log_prob(images.astype("float32"))
    prior = model.prior_distribution(2, temperature=[0.5, 1.0])
    assert np.isfinite(prior.log_prob(prior.sample(4, seed=0))).all()


def test_slices_and_copies_are_those_of_the_labels(model, images):
    values = images[0].astype("float32")
    for make in (model.as_distribution, model.prior_distribution):
        grid = make([[0, 1, 2], [3, 2, 1]])
        event = grid.event_shape
        value = values if len(event) == 3 else np.array([[0, 1], [2, 3]])
        every = grid.log_prob(value)
        assert grid.batch_shape == every.shape == (2, 3) and grid.sample(4, seed=0).shape == (4, 2, 3, *event)
        assert len(set(every.numpy()[0])) == 3
        for place in (0, (1, 2), (slice(None), 1), (..., slice(1, None)), (slice(None), None, 0), np.s_[:0]):
            part = grid[place]
            assert part.batch_shape == every.numpy()[place].shape
            np.testing.assert_allclose(part.log_prob(value), every.numpy()[place], rtol=1e-5)
            assert part.sample(2, seed=0).shape == (2, *part.batch_shape, *event)
        changed = grid.copy(labels=[3, 1], temperature=0.5)
        assert changed.batch_shape == (2,) and changed.temperature == [0.5, 0.5]
        unknown = make()
        assert unknown.copy().batch_shape == unknown[...].batch_shape == ()
        assert unknown[None].sample(2, seed=0).shape == (2, 1, *event)


def test_shapes_inside_other_distributions(model):
    for make in (model.as_distribution, model.prior_distribution):
        grid, one = make([[0, 1, 2], [3, 2, 1]]), make(2)
        event = tuple(one.event_shape)
        for distribution, batch, inner in (
            (tfd.Independent(grid, 1), (2,), (3, *event)),
            (tfd.Independent(grid, 1)[0], (), (3, *event)),
            (tfd.Sample(grid, 2), (2, 3), (2, *event)),
            (tfd.Sample(grid, [2])[:, 1], (2,), (2, *event)),
            (tfd.BatchBroadcast(one, [2, 3]), (2, 3), event),
            (tfd.BatchBroadcast(grid[0], [4, 3]), (4, 3), event),
            (tfd.BatchReshape(grid, [6]), (6,), event),
        ):
            assert (distribution.batch_shape, distribution.event_shape) == (batch, inner)
            for shape in ((), (2,), (2, 1)):
                sample = distribution.sample(shape, seed=(0, 1))
                assert sample.shape == (*shape, *batch, *inner)
                assert distribution.log_prob(sample).shape == (*shape, *batch)


def test_accepts_and_refuses_the_images_that_the_model_does(model):
    distribution = model.as_distribution(2)
    for values in (
        np.full((1, *SHAPE), 0.5, "float32"),
        np.full((1, *SHAPE), np.nan),
        np.full((1, *SHAPE), np.inf),
        np.zeros((1, *SHAPE), bool),
        np.zeros((1, 5, 4, 1)),
        np.zeros((1, 1, 1, 1)),
    ):
        with pytest.raises(ValueError, match="images must"):
            model.log_prob(values, 2)
        for ask in (distribution.log_prob, distribution.prob):
            with pytest.raises(ValueError, match="images must|value must"):
                ask(values)
    for values in (np.full((1, *SHAPE), 1.4), np.ones((1, *SHAPE), "uint8"), np.full((1, *SHAPE), 254.6)):
        np.testing.assert_allclose(distribution.log_prob(values), model.log_prob(values, 2), rtol=1e-5)
    for value in (-0.4, 255.4):
        assert distribution.log_prob(np.full(SHAPE, value)) == -np.inf
    prior = model.prior_distribution(2)
    assert (prior.log_prob(np.array([[[0, 4], [1, 1]], [[0, -1], [1, 1]]])).numpy() == -np.inf).all()


def test_samples_are_drawn_in_parts_as_the_model_has_them(model, monkeypatch):
    monkeypatch.setattr("haim_tf.sampling.sampler.POSITIONS_AT_ONCE", 8 * 4 * 4)
    distribution, at_once = model.as_distribution(2), []
    given = distribution._draw

    def spy(seeds, labels):
        at_once.append(seeds.shape[0])
        return given(seeds, labels)

    monkeypatch.setattr(distribution, "_draw", spy)
    images = distribution.sample(20, seed=0)
    assert set(at_once) == {8}
    np.testing.assert_array_equal(images, model.sample(20, 2, seed=0))
    graph = tf.function(lambda: distribution.sample(20, seed=0)).get_concrete_function().graph
    (loop,) = [op for op in graph.get_operations() if "While" in op.type]
    assert loop.get_attr("parallel_iterations") == 1


def test_drawing_says_nothing_of_its_own(model, caplog):
    with caplog.at_level("WARNING", logger="tensorflow"):
        model.prior_distribution(2).sample(1, seed=0)
    assert not caplog.records


@pytest.mark.parametrize("seed", [2**31, -(2**31) - 1, np.array(2**40)])
def test_seeds_that_the_model_refuses(model, seed):
    with pytest.raises(ValueError, match="seed must be an integer in"):
        model.prior_distribution(2).sample(1, seed=seed)


def test_many_images_are_taken_in_parts(model, images, monkeypatch):
    many = np.resize(images, (70, *SHAPE)).astype("float32")
    expected = model.log_prob(many, 2)
    distribution, at_once = model.as_distribution(labels=2), []
    given = distribution._log_prob_given

    def spy(images, labels):
        at_once.append(images.shape[0])
        return given(images, labels)

    monkeypatch.setattr(distribution, "_log_prob_given", spy)
    np.testing.assert_allclose(distribution.log_prob(many), expected, rtol=1e-5)
    assert set(at_once) == {64}
    specification = tf.TensorSpec((None, *SHAPE), "float32")
    in_a_graph = tf.function(distribution.log_prob, input_signature=[specification])
    for count in (70, 2, 0):
        np.testing.assert_allclose(in_a_graph(many[:count]), expected[:count], rtol=1e-5)
    each = model.as_distribution().log_prob(many)
    np.testing.assert_allclose(each[:3], model.as_distribution().log_prob(many[:3]), rtol=1e-5)
