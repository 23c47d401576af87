"""The package under Keras' JAX backend, in an environment without tensorflow (`make test-jax`)."""

import importlib.util
import sys

import keras
import pytest

pytestmark = pytest.mark.jax


def test_environment_has_jax_and_no_tensorflow():
    assert keras.backend.backend() == "jax"
    assert importlib.util.find_spec("tensorflow") is None


def test_import_needs_no_tensorflow():
    import haim_tf

    assert haim_tf.__version__
    assert "tensorflow" not in sys.modules


@pytest.mark.usefixtures("compiles_quickly")
def test_a_model_encodes_scores_and_trains():
    import keras
    import numpy as np

    import haim_tf

    keras.utils.set_random_seed(0)
    network = {"width": 8, "blocks": 1}
    level = {
        "downsampling": 2,
        "codebook_size": 8,
        "code_dim": 4,
        "width": 8,
        "blocks": 1,
        "decoder": network,
    }
    model = haim_tf.HierarchicalModel((8, 8, 1), [level], {**network, "attention": [0]}, num_classes=3)
    images = np.random.default_rng(0).integers(0, 100, (16, 8, 8, 1)).astype("uint8")
    labels = np.arange(16) % 3
    before = model.bits_per_dim(images, labels, per_level=True)
    np.testing.assert_allclose(before["level_1"] + before["prior"], before["total"], rtol=1e-5)
    assert model.encode(images)[0].shape == (16, 4, 4)
    by_label = model._run("_log_probs_by_label", images)[:, -1]
    np.testing.assert_allclose(
        by_label[np.arange(16), labels], -before["prior"] * (64 * np.log(2)), rtol=1e-4
    )
    model.compile(keras.optimizers.Adam(0.01))
    model.fit(images, labels, batch_size=8, epochs=5, verbose=0)
    assert model.bits_per_dim(images, labels).mean() < before["total"].mean()


def test_codes_come_of_products_of_float32():
    """GPUs and TPUs would round their factors."""
    import jax
    import numpy as np

    from haim_tf.models import DiscreteAutoencoder

    autoencoder = DiscreteAutoencoder(2, 8, code_dim=4, width=4, blocks=1, channels=1)
    autoencoder.build((None, 8, 8, 1))
    program = str(jax.make_jaxpr(autoencoder.encode)(np.zeros((1, 8, 8, 1), "float32")))
    products = program.count("conv_general_dilated[") + program.count("dot_general[")
    assert products >= 5 and program.count("precision=(Precision.HIGHEST, Precision.HIGHEST)") == products


def test_optimizations_are_back_when_all_threads_have_loaded():
    import concurrent.futures
    import threading

    import jax

    from haim_tf.backend import unoptimized

    def setting():
        return jax.config.read("jax_disable_most_optimizations")

    before, entered, left = setting(), threading.Event(), threading.Event()

    def first():
        with unoptimized():
            entered.wait(60)
        left.set()

    def second():
        with unoptimized():
            entered.set()
            left.wait(60)
            return setting()

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        going = pool.submit(first)
        assert pool.submit(second).result() is True
        going.result()
    assert setting() == before


@pytest.mark.usefixtures("compiles_quickly")
@pytest.mark.parametrize("method", ["fit", "evaluate", "train_on_batch"])
def test_what_fails_leaves_the_weights(method, monkeypatch):
    """Keras' trainer has taken them away by then."""
    import numpy as np

    import haim_tf

    model = haim_tf.HierarchicalModel((4, 4, 1), [], {"width": 4, "blocks": 1}, mixtures=2)
    model.compile()
    images = np.zeros((4, 4, 4, 1), "uint8")
    before = model.log_prob(images)

    def fail(*arguments, **options):
        raise RuntimeError("on purpose")

    with monkeypatch.context() as patch:
        patch.setattr(model, "losses_and_statistics", fail)
        with pytest.raises(Exception, match="on purpose"):
            getattr(model, method)(images)
    np.testing.assert_array_equal(model.log_prob(images), before)
    model.fit(images, verbose=0)


@pytest.mark.usefixtures("compiles_quickly")
def test_averages_that_became_the_weights_train_on():
    import numpy as np

    import haim_tf

    model = haim_tf.HierarchicalModel((4, 4, 1), [], {"width": 4, "blocks": 1}, mixtures=2)
    model.compile(keras.optimizers.Adam(0.01, use_ema=True))
    images = np.zeros((4, 4, 4, 1), "uint8")
    losses = [model.fit(images, verbose=0).history["loss"][0] for _ in range(3)]
    assert losses == sorted(losses, reverse=True)


@pytest.mark.usefixtures("compiles_quickly")
def test_a_first_step_that_fails_says_why(monkeypatch):
    import numpy as np

    import haim_tf

    def fail(*arguments, **options):
        raise RuntimeError("on purpose")

    model = haim_tf.HierarchicalModel((4, 4, 1), [], {"width": 4, "blocks": 1}, mixtures=2)
    model.compile(keras.optimizers.Adam(0.01, use_ema=True))
    monkeypatch.setattr(model, "losses_and_statistics", fail)
    with pytest.raises(RuntimeError, match="on purpose"):
        model.fit(np.zeros((4, 4, 4, 1), "uint8"), verbose=0)


@pytest.mark.usefixtures("compiles_quickly")
@pytest.mark.parametrize("method", ["fit", "evaluate"])
def test_what_fails_later_leaves_the_weights_of_then(method):
    import numpy as np

    import haim_tf

    model = haim_tf.HierarchicalModel((4, 4, 1), [], {"width": 4, "blocks": 1}, mixtures=2)
    model.compile()
    images = np.zeros((4, 4, 4, 1), "uint8")
    before = model.log_prob(images)
    steps = {"steps_per_epoch": 3} if method == "fit" else {"steps": 3}
    with pytest.raises(ValueError, match="images must have shape"):
        getattr(model, method)((images[:, : 4 - (i == 2)] for i in range(3)), verbose=0, **steps)
    assert np.isfinite(model.log_prob(images)).all()
    if method == "evaluate":
        np.testing.assert_array_equal(model.log_prob(images), before)
    model.fit(images, verbose=0)


@pytest.mark.usefixtures("compiles_quickly")
def test_masked_self_prediction_trains():
    import keras
    import numpy as np

    import haim_tf

    keras.utils.set_random_seed(0)
    masked = {"kind": "masked_self_prediction", "window": 3, "bins": 8, "positions": 20}
    masked |= {"teacher_width": 4, "teacher_blocks": 1}
    autoencoder = haim_tf.DiscreteAutoencoder(2, 8, 4, 8, 1, channels=1, auxiliary=masked)
    images = np.random.default_rng(0).uniform(-1, 0, (16, 8, 8, 1)).astype("float32")
    autoencoder.compile(keras.optimizers.Adam(0.01))
    losses = autoencoder.fit(images, batch_size=8, epochs=5, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    codes = autoencoder.encode(images)
    assert autoencoder.reconstruct(codes).shape == autoencoder.sample(codes, seed=0).shape == images.shape


def test_shipped_weights_give_the_figures_of_tensorflow():
    import numpy as np

    import haim_tf

    images = np.random.default_rng(1).integers(0, 256, (2, 16, 16, 3)).astype("uint8")
    # Printed by the same call under TensorFlow.
    found = haim_tf.load("debug").bits_per_dim(images, [0, 9])
    np.testing.assert_allclose(found, [11.483456, 11.495848], rtol=1e-4)
