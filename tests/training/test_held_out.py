"""What a stage is watched by: figures of held-out images, the model's own."""

import keras
import numpy as np
import pytest

import haim_tf
from haim_tf.data import ImageData
from haim_tf.training import held_out
from haim_tf.training.stage_parts import trained_parts


@pytest.fixture(scope="module")
def model():
    """A model that heeds codes and labels."""
    network = {"width": 4, "blocks": 1}
    level = {"downsampling": 2, "codebook_size": 4, "code_dim": 2, "width": 4, "blocks": 1}
    model = haim_tf.HierarchicalModel((4, 4, 1), [{**level, "decoder": network}], network, 3, mixtures=2)
    for number, weight in enumerate(model.weights):
        if weight.trainable:
            weight.assign(keras.random.normal(weight.shape, seed=number))
    return model


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return ImageData(rng.integers(0, 256, (9, 4, 4, 1)).astype("uint8"), rng.integers(0, 3, 9))


def test_bits_per_dim_are_the_model_s_of_the_last_images(model, images, monkeypatch):
    monkeypatch.setattr(held_out, "WATCHED", 6)
    found = held_out.HeldOut(model, images, {"decoder_1", "prior"}).figures(model)
    bits = model.bits_per_dim(images.images[3:], images.labels[3:], per_level=True)
    expected = {f"holdout_bits_per_dim_{name}": values.mean() for name, values in bits.items()}
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-5), name


def test_only_what_is_trained_is_measured(model, images):
    prior = held_out.HeldOut(model, images, {"prior"}).figures(model)
    assert set(prior) == {"holdout_bits_per_dim_prior"}
    codes = held_out.HeldOut(model, images, {"autoencoder_1"}).figures(model)
    loss = model.autoencoders[0](images.images.astype("float32") / 127.5 - 1.0)["loss"]
    assert codes == {"holdout_loss_autoencoder_1": pytest.approx(float(loss), rel=1e-5)}


def test_a_level_that_has_lost_its_teacher_is_left_out():
    network = {"width": 4, "blocks": 1}
    level = {
        "downsampling": 2,
        "codebook_size": 4,
        "code_dim": 2,
        "width": 4,
        "blocks": 1,
        "decoder": network,
    }
    lost = {**level, "auxiliary": {"kind": "masked_self_prediction", "window": 3, "teacher": False}}
    model = haim_tf.HierarchicalModel((8, 8, 1), [lost, level], network, mixtures=2)
    images = ImageData(np.random.default_rng(0).integers(0, 256, (4, 8, 8, 1)).astype("uint8"))
    trained = trained_parts(model, {"train": ["codes"]})
    found = held_out.HeldOut(model, images, trained).figures(model)
    assert list(found) == ["holdout_loss_autoencoder_2"] and np.isfinite(list(found.values())).all()
