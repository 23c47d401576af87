"""DiscreteAutoencoder: codes, its one loss and what that trains, float32 under every policy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from haim_tf.models import DiscreteAutoencoder

RNG = np.random.default_rng(0)
PIXELS = RNG.uniform(-1, 1, (16, 6, 8, 3)).astype("float32")
LOWER_CODES = RNG.integers(5, size=(16, 6, 8)).astype("int32")
KINDS = {"pixels": ({"channels": 3}, PIXELS), "codes": ({"lower_codebook_size": 5}, LOWER_CODES)}


@pytest.fixture(params=list(KINDS))
def case(request):
    arguments, inputs = KINDS[request.param]
    return make(**arguments), inputs


def make(downsampling=2, codebook_size=7, code_dim=3, width=4, blocks=1, **arguments):
    return DiscreteAutoencoder(downsampling, codebook_size, code_dim, width, blocks, **arguments)


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("downsampling", [1, 2])
def test_shapes(kind, downsampling):
    arguments, inputs = KINDS[kind]
    autoencoder = make(downsampling, **arguments)
    outputs = autoencoder(inputs)
    assert outputs["codes"].shape == (16, 6 // downsampling, 8 // downsampling)
    assert outputs["codes"].dtype == "int32"
    assert outputs["outputs"].shape == (16, 6, 8, 3 if kind == "pixels" else 5)
    assert outputs["loss"].shape == ()
    reconstruction = autoencoder.reconstruct(outputs["codes"])
    assert reconstruction.shape == inputs.shape and reconstruction.dtype == inputs.dtype.name


def test_encode_and_reconstruct_agree_with_the_call(case):
    autoencoder, inputs = case
    autoencoder(inputs, training=True)
    outputs = autoencoder(inputs)
    codes = autoencoder.encode(inputs)
    np.testing.assert_array_equal(codes, outputs["codes"])
    assert 1 < len(np.unique(codes)) and np.max(codes) < 7
    np.testing.assert_allclose(
        autoencoder.reconstruct(codes), autoencoder.decoder.reconstruct(outputs["outputs"]), atol=1e-5
    )


def test_codebook_moves_in_training_only(case):
    autoencoder, inputs = case
    autoencoder(inputs)
    autoencoder.encode(inputs)
    codebook = autoencoder.quantizer.codebook.numpy()
    autoencoder(inputs)
    np.testing.assert_array_equal(autoencoder.quantizer.codebook, codebook)
    autoencoder(inputs, training=True)
    assert np.abs(autoencoder.quantizer.codebook - codebook).max() > 0


def test_loss_is_the_auxiliary_one_plus_commitment():
    autoencoder = make(channels=3, commitment=0.0)
    heavy = make(channels=3, commitment=10.0)
    autoencoder(PIXELS, training=True)
    heavy(PIXELS)
    heavy.set_weights(autoencoder.get_weights())
    outputs = autoencoder(PIXELS)
    np.testing.assert_allclose(outputs["loss"], np.mean((outputs["outputs"] - PIXELS) ** 2), rtol=1e-5)
    commitment = autoencoder.quantizer(autoencoder.encoder(PIXELS))["commitment"]
    np.testing.assert_allclose(heavy(PIXELS)["loss"], outputs["loss"] + 10 * commitment, rtol=1e-5)


def test_loss_trains_encoder_and_decoder_and_not_the_codebook(case):
    autoencoder, inputs = case
    autoencoder(inputs, training=True)
    codebook = autoencoder.quantizer.codebook.value
    with tf.GradientTape() as tape:
        tape.watch(codebook)
        loss = autoencoder(inputs, training=True)["loss"]
    variables = autoencoder.trainable_variables
    *gradients, by_codebook = tape.gradient(loss, [*[v.value for v in variables], codebook])
    assert by_codebook is None
    for variable, gradient in zip(variables, gradients, strict=True):
        assert np.abs(tf.convert_to_tensor(gradient)).max() > 0, variable.path
    assert len(variables) == len(
        autoencoder.encoder.trainable_variables + autoencoder.decoder.trainable_variables
    )


def test_trains_by_itself():
    autoencoder = make(channels=3)
    images = np.broadcast_to(PIXELS[:, :1, :1], PIXELS.shape)
    autoencoder.compile(keras.optimizers.Adam(0.01))
    losses = autoencoder.fit(images, epochs=20, verbose=0).history["loss"]
    assert losses[-1] < 0.8 * losses[0]
    evaluated = autoencoder.evaluate(images, verbose=0)
    np.testing.assert_allclose(evaluated, autoencoder(images)["loss"], rtol=1e-4)


def test_computes_in_float32_under_every_policy(case):
    autoencoder, inputs = case
    keras.config.set_dtype_policy("mixed_bfloat16")
    other = type(autoencoder).from_config(autoencoder.get_config() | {"dtype": "mixed_bfloat16"})
    autoencoder(inputs)
    other(inputs)
    other.set_weights(autoencoder.get_weights())
    assert {layer.compute_dtype for layer in other._flatten_layers()} == {"float32"}
    np.testing.assert_array_equal(other(inputs)["outputs"], autoencoder(inputs)["outputs"])
    np.testing.assert_array_equal(other.encode(inputs), autoencoder.encode(inputs))


@pytest.mark.parametrize(
    "arguments,named",
    [
        ({}, "exactly one of channels"),
        ({"channels": 1, "lower_codebook_size": 4}, "exactly one of channels"),
        ({"channels": 1, "downsampling": 0}, "downsampling must be an integer of at least 1, got 0"),
        ({"channels": 1, "codebook_size": 0}, "codebook_size"),
        ({"channels": 1, "code_dim": None}, "code_dim"),
    ],
)
def test_bad_arguments(arguments, named):
    with pytest.raises(ValueError, match=named):
        make(**arguments)


def test_size_that_the_downsampling_does_not_divide():
    with pytest.raises(ValueError, match="divisible by the downsampling 4, got 6 x 8"):
        make(4, channels=3).encode(PIXELS)


def test_gpus_compute_codes_in_float32(monkeypatch):
    setting = tf.config.experimental
    before = setting.tensor_float_32_execution_enabled()
    try:
        setting.enable_tensor_float_32_execution(True)
        DiscreteAutoencoder(2, 8, code_dim=4, width=4, blocks=1, channels=1)
        assert setting.tensor_float_32_execution_enabled()  # The processor knows no TF32.
        monkeypatch.setattr("haim_tf.backend.has_accelerator", lambda: True)
        DiscreteAutoencoder(2, 8, code_dim=4, width=4, blocks=1, channels=1)
        assert not setting.tensor_float_32_execution_enabled()
    finally:
        setting.enable_tensor_float_32_execution(before)
