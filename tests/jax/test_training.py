"""Training under JAX on two devices, and with several steps in one program: the same as with neither."""

import keras
import numpy as np
import pytest

import haim_tf
from haim_tf import training
from haim_tf.data import Batches, ImageData
from haim_tf.training import strategy as strategies

pytestmark = [pytest.mark.jax, pytest.mark.usefixtures("compiles_quickly")]


def trained(recipe, images, folder, monkeypatch, strategy="none", steps=1):
    monkeypatch.setattr(strategies, "steps_a_program", lambda interval: steps)
    recipe = training.read_recipe(recipe)
    model = training.train(recipe, images, folder, strategy=strategy, verbose=False)
    rows = np.genfromtxt(folder / "metrics.csv", delimiter=",", names=True)
    return model, rows


def test_two_devices_and_four_steps_a_program_change_nothing(
    small_recipe, small_images, tmp_path, monkeypatch
):
    """All metrics, held-out figures and weights, the codebook's moving averages among them."""
    given = small_recipe(4), small_images
    alone, rows = trained(*given, tmp_path / "alone", monkeypatch)
    other, other_rows = trained(*given, tmp_path / "other", monkeypatch, strategy="data_parallel", steps=4)
    assert rows.dtype.names == other_rows.dtype.names
    for name in set(rows.dtype.names) - {"seconds"}:
        np.testing.assert_allclose(other_rows[name], rows[name], rtol=1e-3, err_msg=name)
    for mine, theirs in zip(alone.weights, other.weights, strict=True):
        np.testing.assert_allclose(theirs, mine, rtol=1e-3, atol=2e-4, err_msg=mine.path)
    assert (tmp_path / "alone" / "samples.png").exists()


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_a_last_smaller_batch_is_a_step_too(small_recipe, precision):
    """Five batches, of which the last is smaller, three steps a program."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (18, 8, 8, 1)).astype("uint8"), np.arange(18) % 3
    found = []
    for steps in (1, 3):
        keras.utils.set_random_seed(0)
        model = haim_tf.HierarchicalModel(**{**small_recipe(4)["model"], "levels": []}, dtype=precision)
        model.compile(keras.optimizers.Adam(0.01), steps_per_execution=steps)
        history = model.fit(images, labels, batch_size=4, epochs=2, shuffle=False, verbose=0).history
        assert int(model.optimizer.iterations) == 10
        found.append(history["loss"])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5 if precision == "float32" else 1e-2)


def test_batches_of_any_sizes_share_a_program_s_steps(small_recipe):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (28, 8, 8, 1)).astype("uint8"), np.arange(28) % 3
    ends = np.cumsum([8, 4, 8, 8])
    found = []
    for steps in (1, 4):
        keras.utils.set_random_seed(0)
        model = haim_tf.HierarchicalModel(**{**small_recipe(4)["model"], "levels": []})
        model.compile(keras.optimizers.Adam(0.01), steps_per_execution=steps)
        batches = (
            (images[:end][-8:], labels[:end][-8:]) if end != 12 else (images[8:12], labels[8:12])
            for end in ends
        )
        model.fit(batches, steps_per_epoch=4, verbose=0)
        assert int(model.optimizer.iterations) == 4
        found.append([np.asarray(w) for w in model.get_weights()])
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_batches_are_for_the_number_of_devices():
    two = strategies.strategy_named("data_parallel")
    strategies.check_batch_sizes(two, [2, 8])
    with pytest.raises(ValueError, match="batch_size must be a multiple of 2, the number of replicas, got 3"):
        strategies.check_batch_sizes(two, [2, 3])


def test_strategies_of_tensorflow_are_refused():
    with pytest.raises(ValueError, match="'mirrored' must run under Keras' backend 'tensorflow', got 'jax'"):
        strategies.strategy_named("mirrored")


def test_codes_of_batches_stay_small_integers():
    data = ImageData(np.zeros((4, 8, 8, 1), "uint8"))
    batch = Batches(data, batch_size=2, codes=[np.ones((1, 4, 4, 4), "uint8")])[0]
    assert batch["codes"][0].dtype == "uint8"
