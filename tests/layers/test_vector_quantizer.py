"""VectorQuantizer against a NumPy oracle, and what moves, flows and survives saving."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.ops import convert_to_numpy as to_numpy

from haim_tf.layers.vector_quantizer import VectorQuantizer

K, D = 8, 3


def make_queries(seed, shift=0.0, batch=4):
    return np.random.default_rng(seed).normal(shift, 1.0, (batch, 3, 3, D)).astype("float32")


def state(quantizer):
    return [to_numpy(w) for w in (quantizer.codebook, quantizer.counts, quantizer.sums)]


def nearest(queries, codebook):
    """The oracle's codes, by distances in float64 and written out."""
    differences = queries[..., None, :].astype("float64") - codebook.astype("float64")
    return np.argmin((differences**2).sum(-1), axis=-1)


def follow(queries, codes, counts, sums, decay, epsilon):
    """The oracle's moving averages and codebook after a batch, without revival."""
    one_hot = np.eye(K)[codes.reshape(-1)]
    counts = decay * counts + (1 - decay) * one_hot.sum(0)
    sums = decay * sums + (1 - decay) * one_hot.T @ queries.reshape(-1, D)
    total = counts.sum()
    smoothed = (counts + epsilon) / (total + K * epsilon) * total
    return sums / smoothed[:, None], counts, sums


def is_one_of(vectors, queries):
    distances = np.abs(vectors[:, None] - queries.reshape(-1, D)[None]).max(-1)
    return distances.min(1) < 1e-4


def trained(**arguments):
    quantizer = VectorQuantizer(K, D, seed=1, **arguments)
    for seed in range(3):
        quantizer(make_queries(seed), training=True)
    return quantizer


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("revive_below", [0.0, 0.1])
def test_agrees_with_the_numpy_oracle(graph, revive_below):
    # An epsilon large enough to see.
    decay, epsilon = 0.5, 0.1
    quantizer = VectorQuantizer(K, D, decay, epsilon, revive_below, seed=1)
    quantizer.build((None, None, None, D))

    def step(queries):
        return quantizer(queries, training=True)

    if graph:
        step = tf.function(step, input_signature=[tf.TensorSpec((None, None, None, D))])

    queries = make_queries(0)
    outputs = step(queries)
    assert float(quantizer.initialized) == 1.0
    # No code can be dead after one step from uniform counts, so the picks can be solved for.
    uniform = queries.size / D / K
    batch_sums = np.eye(K)[np.reshape(outputs["codes"], -1)].T @ queries.reshape(-1, D)
    codebook = (state(quantizer)[2] - (1 - decay) * batch_sums) / (decay * uniform)
    assert is_one_of(codebook, queries).all()
    assert len(np.unique(codebook.round(3), axis=0)) == K
    counts, sums = np.full(K, uniform), codebook * uniform

    revived = 0
    for number in range(12):
        if number:
            # A far jump leaves codes behind.
            queries = make_queries(number, shift=20.0 if number > 2 else 0.0)
            outputs = step(queries)
        codes = nearest(queries, codebook)
        np.testing.assert_array_equal(outputs["codes"], codes)
        np.testing.assert_allclose(outputs["code_vectors"], codebook[codes], rtol=1e-4, atol=1e-4)
        commitment = np.mean((queries - codebook[codes]) ** 2)
        np.testing.assert_allclose(outputs["commitment"], commitment, rtol=1e-3)

        codebook, counts, sums = follow(queries, codes, counts, sums, decay, epsilon)
        mean, dead = counts.mean(), counts < revive_below * counts.mean()
        found, found_counts, found_sums = state(quantizer)
        assert is_one_of(found[dead], queries).all()
        revived += dead.sum()
        codebook[dead], counts[dead], sums[dead] = found[dead], mean, found[dead] * mean
        np.testing.assert_allclose(found, codebook, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(found_counts, counts, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(found_sums, sums, rtol=1e-4, atol=1e-4)
        codebook, counts, sums = found, found_counts, found_sums
    assert (revived > 0) == (revive_below > 0)


@pytest.mark.parametrize("graph", [False, True])
def test_distances_are_taken_twice_in_the_first_batch_only(graph, monkeypatch):
    quantizer = VectorQuantizer(K, D, seed=1)
    quantizer.build((None, None, None, D))
    passes = []

    def counted(flat, nearest=quantizer._nearest):
        tf.py_function(lambda: passes.append(1), [], [])
        return nearest(flat)

    monkeypatch.setattr(quantizer, "_nearest", counted)

    def step(queries):
        return quantizer(queries, training=True)["codes"]

    step = tf.function(step) if graph else step
    found = []
    for number in range(4):
        step(make_queries(number))
        found.append(len(passes))
    assert found == [2, 3, 4, 5]


def test_the_chance_of_a_pick_is_the_squared_distance_to_the_codebook():
    quantizer = VectorQuantizer(2, 1, seed=1)
    quantizer.build((None, None, None, 1))
    quantizer.codebook.assign([[0.0], [100.0]])
    queries, codes = tf.constant([[-1.0], [2.0], [3.0], [100.0]]), tf.constant([0, 0, 0, 1])
    pick = tf.function(lambda: quantizer._pick(queries, codes))
    picks = np.array([pick()[:, 0].numpy() for _ in range(2000)])
    shares = [np.mean(picks[:, 0] == query) for query in (-1.0, 2.0, 3.0, 100.0)]
    np.testing.assert_allclose(shares, np.array([1, 4, 9, 0]) / 14, atol=0.05)
    # The second is drawn from what is left.
    after = picks[picks[:, 0] == 3.0, 1]
    np.testing.assert_allclose([np.mean(after == -1.0), np.mean(after == 2.0)], [0.2, 0.8], atol=0.06)


def test_fewer_queries_than_codes_gives_distinct_codes_near_them():
    quantizer = VectorQuantizer(64, D, seed=1)
    queries = make_queries(0, batch=1)
    quantizer(queries, training=True)
    codebook = to_numpy(quantizer.codebook)
    assert len(np.unique(codebook, axis=0)) == 64
    distances = np.linalg.norm(codebook[:, None] - queries.reshape(1, -1, D), axis=-1)
    assert distances.min(1).max() < 0.2
    assert set(distances.argmin(1)) == set(range(9))


@pytest.mark.parametrize("revive_below", [0.0, 0.1])
def test_revival_brings_every_code_into_use(revive_below):
    quantizer = VectorQuantizer(K, D, decay=0.9, revive_below=revive_below, seed=0)
    step = tf.function(lambda queries: quantizer(queries, training=True))
    # Of the first codebook, drawn far away from all later queries, only few codes are the nearest to any.
    step(make_queries(0, shift=50.0))
    for seed in range(100):
        step(make_queries(seed))
    assert float(quantizer.initialized) == 1.0
    if revive_below:
        assert float(quantizer.active_fraction()) == 1.0
        assert float(quantizer.perplexity()) > 0.7 * K
    else:
        assert float(quantizer.active_fraction()) < 0.6
        assert float(quantizer.perplexity()) < 0.5 * K


@pytest.mark.parametrize("untrained", [True, False])
def test_inference_is_deterministic_and_moves_nothing(untrained):
    quantizer = VectorQuantizer(K, D, seed=1) if untrained else trained()
    first = quantizer(make_queries(9))
    before = [to_numpy(v) for v in quantizer.variables]
    second = quantizer(make_queries(9), training=False)
    np.testing.assert_array_equal(first["codes"], second["codes"])
    np.testing.assert_array_equal(first["codes"], nearest(make_queries(9), to_numpy(quantizer.codebook)))
    for old, new in zip(before, quantizer.variables, strict=True):
        np.testing.assert_array_equal(old, new)
    alone = quantizer(make_queries(9)[2:3])
    np.testing.assert_array_equal(alone["codes"][0], first["codes"][2])


def test_frozen_quantizer_moves_nothing_in_training():
    quantizer = trained()
    quantizer.trainable = False
    before = [to_numpy(v) for v in quantizer.variables]
    quantizer(make_queries(9), training=True)
    for old, new in zip(before, quantizer.variables, strict=True):
        np.testing.assert_array_equal(old, new)
    quantizer.trainable = True
    quantizer(make_queries(9), training=True)
    assert np.abs(to_numpy(quantizer.codebook) - before[0]).max() > 0


@pytest.mark.parametrize("training", [False, True])
def test_code_vectors_are_straight_through(training):
    quantizer = trained()
    queries = tf.constant(make_queries(9))
    weights = tf.constant(np.random.default_rng(3).normal(size=queries.shape), "float32")
    with tf.GradientTape() as tape:
        tape.watch(queries)
        outputs = quantizer(queries, training=training)
        loss = tf.reduce_sum(outputs["code_vectors"] * weights)
    np.testing.assert_array_equal(tape.gradient(loss, queries), weights)
    if not training:
        np.testing.assert_array_equal(outputs["code_vectors"], quantizer.lookup(outputs["codes"]))


def test_commitment_pulls_the_queries_only():
    quantizer = trained()
    assert quantizer.trainable_variables == []
    queries = tf.constant(make_queries(9))
    codebook = quantizer.codebook.value
    with tf.GradientTape() as tape:
        tape.watch([queries, codebook])
        outputs = quantizer(queries)
    to_queries, to_codebook = tape.gradient(outputs["commitment"], [queries, codebook])
    expected = 2 * (queries - quantizer.lookup(outputs["codes"])) / queries.numpy().size
    np.testing.assert_allclose(to_queries, expected, rtol=1e-5, atol=1e-8)
    assert to_codebook is None


def test_usage_metrics():
    quantizer = VectorQuantizer(4, D)
    quantizer.build((None, None, None, D))
    assert float(quantizer.perplexity()) == pytest.approx(1.0)
    assert float(quantizer.active_fraction()) == 0.0
    quantizer.counts.assign([5.0, 5.0, 5.0, 5.0])
    assert float(quantizer.perplexity()) == pytest.approx(4.0)
    assert float(quantizer.active_fraction()) == 1.0
    # A share of 0.0025 is 1 % of uniform.
    quantizer.counts.assign([500.0, 494.7, 3.0, 2.3])
    assert float(quantizer.active_fraction()) == 0.75
    shares = np.array([500.0, 494.7, 3.0, 2.3]) / 1000
    assert float(quantizer.perplexity()) == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-4)


def test_mixed_precision_changes_nothing():
    queries = make_queries(0, batch=8)
    plain = VectorQuantizer(K, D, seed=1)
    keras.config.set_dtype_policy("mixed_bfloat16")
    mixed = VectorQuantizer(K, D, seed=1)
    for training in (True, True, False):
        expected, found = plain(queries, training=training), mixed(queries, training=training)
        np.testing.assert_array_equal(found["codes"], expected["codes"])
        np.testing.assert_array_equal(found["code_vectors"], expected["code_vectors"])
        assert found["commitment"].dtype == "float32"
    assert {w.dtype for w in mixed.weights} == {"float32"}
    assert mixed(queries.astype("float16"))["code_vectors"].dtype == "float32"


def test_config_round_trip():
    quantizer = VectorQuantizer(K, D, decay=0.9, epsilon=1e-4, revive_below=0.2, seed=3)
    config = quantizer.get_config()
    assert VectorQuantizer.from_config(config).get_config() == config


def test_saving_keeps_codebook_averages_and_random_state(tmp_path):
    inputs = keras.Input((3, 3, D))
    quantizer = trained(decay=0.5)
    model = keras.Model(inputs, quantizer(inputs))
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    loaded = keras.saving.load_model(tmp_path / "model.keras").layers[-1]
    fresh = VectorQuantizer(K, D, decay=0.5, seed=77)
    keras.Model(inputs, fresh(inputs)).load_weights(tmp_path / "model.weights.h5")
    # Far queries make dead codes, whose picks show whether the random state came along.
    for shift in (0.0, 20.0, 20.0, 20.0, 20.0, 20.0):
        queries = make_queries(int(shift), shift)
        expected = quantizer(queries, training=True)
        for other in (loaded, fresh):
            np.testing.assert_array_equal(other(queries, training=True)["codes"], expected["codes"])
            for left, right in zip(state(other), state(quantizer), strict=True):
                np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize(
    "arguments",
    [
        {"codebook_size": 0},
        {"code_dim": 2.5},
        {"decay": 1.0},
        {"epsilon": 0.0},
        {"revive_below": 1.0},
        {"revive_below": -0.1},
        {"decay": "0.9"},
        {"decay": False},
        {"revive_below": float("nan")},
        {"revive_below": None},
        {"seed": 0.5},
    ],
)
def test_bad_arguments(arguments):
    name = next(iter(arguments))
    with pytest.raises(ValueError, match=f"{name} must be .*, got"):
        VectorQuantizer(**({"codebook_size": K, "code_dim": D} | arguments))


@pytest.mark.parametrize("shape", [(2, 3, 3, D + 1), (2, 3, D)])
def test_bad_queries(shape):
    quantizer = trained()
    with pytest.raises(ValueError, match="expected"):
        quantizer(np.zeros(shape, "float32"))
