"""Sampling under JAX: determined by each example's own seed, whatever else is in the batch."""

import jax
import numpy as np
import pytest

import haim_tf

pytestmark = pytest.mark.jax

PAIRS = np.array([[3, 0], [3, 1], [-5, 2**31 - 1]], "int32")
LABELS = np.array([4, 0, 9])


@pytest.fixture(scope="module")
def model():
    return haim_tf.load("debug")


@pytest.fixture(scope="module")
def images(model):
    return model.sample(3, LABELS, seed=PAIRS)


def test_an_example_depends_on_its_own_seed_alone(model, images):
    assert images.shape == (3, 16, 16, 3) and images.dtype == "uint8"
    np.testing.assert_array_equal(model.sample(3, LABELS, seed=PAIRS), images)
    np.testing.assert_array_equal(model.sample(3, LABELS[::-1], seed=PAIRS[::-1])[::-1], images)
    others = PAIRS + [[0, 0], [7, 7], [9, -9]]
    np.testing.assert_array_equal(model.sample(3, [4, 1, 1], seed=others)[0], images[0])
    assert all((a != b).any() for a, b in zip(model.sample(3, LABELS, seed=8), images, strict=True))


def test_log_probability_is_that_of_the_whole_grid(model):
    grid, nats = model.sampler(2)(PAIRS, 0.9, 0.9, labels=LABELS, log_prob=True)
    expected = np.sum(model.prior.log_prob(grid, labels=LABELS), axis=(1, 2))
    np.testing.assert_allclose(nats, expected, rtol=1e-4)


def test_settings_and_new_weights_build_no_new_program(model, caplog):
    """Weights are inputs of the program, so that training goes on under a sampler that is compiled."""
    prior = model.sampler(2)
    before, _ = prior(PAIRS, 1.0, 1.0, labels=LABELS)
    old = model.prior.get_weights()
    rng = np.random.default_rng(0)
    with jax.log_compiles():
        for variable in model.prior.weights:
            variable.assign(rng.normal(0, 0.5, variable.shape))
        caplog.clear()
        after, _ = prior(PAIRS, 1.0, 1.0, labels=LABELS)
        prior(PAIRS + 1, 0.5, 0.9, labels=LABELS[::-1])
        assert not [record for record in caplog.records if "ompiling" in record.getMessage()]
        prior(PAIRS[:1], 1.0, 1.0, labels=LABELS[:1])
        assert [record for record in caplog.records if "ompiling" in record.getMessage()]
    model.prior.set_weights(old)
    assert (after != before).any()
    np.testing.assert_array_equal(prior(PAIRS, 1.0, 1.0, labels=LABELS)[0], before)


def test_completion_and_reconstruction(model, images):
    completed = model.complete(images, rows=8, labels=LABELS, candidates=1)
    np.testing.assert_array_equal(completed[:, :8], images[:, :8])
    assert (completed[:, 8:] != images[:, 8:]).any()
    np.testing.assert_array_equal(model.complete(images, rows=8, labels=LABELS, candidates=1), completed)
    codes = model.encode(images)[0]
    again = model.reconstruct(images, level=1, seed=PAIRS)
    np.testing.assert_array_equal(model.decode(codes, level=1, seed=PAIRS), again)


@pytest.mark.parametrize(
    "use",
    [
        lambda model: model.as_distribution(labels=0),
        lambda model: model.prior_distribution(labels=0),
        lambda model: haim_tf.saved_model.export(model, "nowhere"),
        lambda model: haim_tf.compression.compress(model, []),
        lambda model: haim_tf.compression.decompress(model, []),
    ],
)
def test_what_is_tensorflows_says_so(model, use):
    with pytest.raises(ValueError, match="must run under Keras' TensorFlow backend .*, got 'jax'"):
        use(model)
