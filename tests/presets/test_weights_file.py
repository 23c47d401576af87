"""The weights file: names by variables, exact codes in half precision, and the same bytes each time."""

import gc
import time

import h5py
import keras
import numpy as np
import pytest

import haim_tf
from haim_tf.presets import weights_file


@pytest.fixture(scope="module")
def debug():
    return haim_tf.load("debug", weights=True)


def test_names_of_variables(debug, tmp_path):
    """As Keras itself gives them, of a compiled model too; and nothing is left on the layers."""
    model = haim_tf.load("debug")
    model.compile()
    model.optimizer.build(model.trainable_variables)
    values = weights_file.saved_values(model)
    # Beside weights, quantizers save the state of what they revive codes by.
    assert {id(v) for v in model.weights} <= {id(value) for value in values.values()}
    assert len(values) == len(model.weights) + model.num_levels
    debug.save_weights(tmp_path / "keras.weights.h5")
    with h5py.File(tmp_path / "keras.weights.h5") as file:
        for name, value in values.items():
            np.testing.assert_array_equal(file[name][()], value)
    assert not any("save_own_variables" in vars(layer) for layer in model._flatten_layers())


def test_the_same_weights_give_the_same_bytes(debug, tmp_path):
    weights_file.write(debug, tmp_path / "first", "float32")
    time.sleep(1.1)  # HDF5 notes seconds.
    # Another model, whose layers Keras gives other names.
    weights_file.write(haim_tf.load("debug"), tmp_path / "second", "float32")
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_a_file_is_smaller_than_its_numbers(tmp_path):
    """Exponents of weights are alike."""
    level = {"downsampling": 2, "codebook_size": 64, "code_dim": 8, "width": 32, "blocks": 1}
    network = {"width": 48, "blocks": 2}
    model = haim_tf.HierarchicalModel((8, 8, 3), [{**level, "decoder": network}], network)
    weights_file.write(model, path := tmp_path / "model.weights.h5", "float32")
    assert path.stat().st_size < 0.95 * 4 * model.count_params()


@pytest.mark.parametrize("name", ["debug", *haim_tf.list_models(pretrained=True)])
def test_float16_gives_the_same_codes_and_auxiliary_reconstructions(name, tmp_path):
    model = haim_tf.load(name, weights=True)
    for precision in ("float32", "float16"):
        weights_file.write(model, tmp_path / f"{precision}.weights.h5", precision)
    names = {id(value): name for name, value in weights_file.saved_values(model).items()}
    halved = [v for network in model.networks for v in network.variables if v.dtype == "float32"]
    with h5py.File(tmp_path / "float16.weights.h5") as file:
        assert {file[names[id(v)]].dtype for v in halved} == {np.dtype("float16")}
    loaded = haim_tf.load(name, weights=False)
    weights_file.restore(loaded, tmp_path / "float16.weights.h5")
    for ours, theirs in zip(model.weights, loaded.weights, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-6)
    for ours, theirs in zip(model.autoencoders, loaded.autoencoders, strict=True):
        for mine, yours in zip(ours.weights, theirs.weights, strict=True):
            np.testing.assert_array_equal(mine, yours)
    images = np.random.default_rng(0).integers(0, 256, (4, *model.image_shape), "uint8")
    for ours, theirs in zip(model.encode(images), loaded.encode(images), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for level in range(1, model.num_levels + 1):
        pictures = [m.reconstruct(images, level, "auxiliary") for m in (model, loaded)]
        np.testing.assert_array_equal(*pictures)


def test_what_is_rounded_goes_by_variables(tmp_path):
    """Whatever layers are called: an encoder named as a network's layers are stays exact, and vice versa."""
    level = {"downsampling": 2, "codebook_size": 4, "code_dim": 2, "width": 4, "blocks": 1}
    network = {"width": 4, "blocks": 1}
    model = haim_tf.HierarchicalModel((4, 4, 1), [{**level, "decoder": network}], network)
    model.autoencoders[0].encoder.to_queries.name = "prior"
    model.prior.hidden.name = "vector_quantizer"
    weights_file.write(model, tmp_path / "half.weights.h5", "float16")
    names = {id(value): name for name, value in weights_file.saved_values(model).items()}
    with h5py.File(tmp_path / "half.weights.h5") as file:
        kept = file[names[id(model.autoencoders[0].encoder.to_queries.kernel)]]
        rounded = file[names[id(model.prior.hidden.kernel)]]
        assert (kept.dtype, rounded.dtype) == ("float32", "float16")


def test_fresh_layers_go_by_variables(debug, tmp_path):
    """A layer that is no fresh one is not spared because it is called as one is."""
    weights_file.write(debug, tmp_path / "m.weights.h5", "float32")
    with h5py.File(tmp_path / "m.weights.h5", "a") as file:
        del file["decoders/pixel_cnn/hidden/vars/1"]
    debug.decoders[0].hidden.name = "embed_label"
    debug.prior.embed_label.name = "hidden"
    with pytest.raises(ValueError, match="decoders/pixel_cnn/hidden/vars/1 is missing in the file"):
        weights_file.restore(debug, tmp_path / "m.weights.h5", fresh=[debug.prior.embed_label])


@pytest.mark.parametrize("writer", ["save_to_preset", "save", "save_weights"])
def test_a_full_disk_is_an_error(tmp_path, full_disk, writer, capfd):
    """One that HDF5 is not let near, which would take the process along."""
    model = haim_tf.HierarchicalModel((4, 4, 1), [], {"width": 4, "blocks": 1})
    name = {"save_to_preset": "new", "save": "new.keras", "save_weights": "new.weights.h5"}[writer]
    with full_disk(1000), pytest.raises(ValueError, match="cannot write .*new.*: File too large$") as caught:
        getattr(model, writer)(tmp_path / name)
    del caught
    gc.collect()
    assert not list(tmp_path.iterdir()) and capfd.readouterr().err == ""


def test_files_of_keras_replace_whole_ones_only(tmp_path, full_disk):
    model = haim_tf.HierarchicalModel((4, 4, 1), [], {"width": 4, "blocks": 1})
    model.save(tmp_path / "a.keras")
    before = (tmp_path / "a.keras").read_bytes()
    with full_disk(1000), pytest.raises(ValueError, match="cannot write"):
        model.save(tmp_path / "a.keras")
    assert (tmp_path / "a.keras").read_bytes() == before
    model.save_weights(tmp_path / "a.weights.h5")
    model.load_weights(tmp_path / "a.weights.h5")
    with pytest.raises(FileNotFoundError, match="there is no folder .*none"):
        model.save(tmp_path / "none" / "a.keras")


def test_keras_reads_the_file(debug, tmp_path):
    weights_file.write(debug, tmp_path / "m.weights.h5", "float32")
    other = haim_tf.load("debug", weights=False)
    keras.saving.load_weights(other, tmp_path / "m.weights.h5")
    for ours, theirs in zip(debug.weights, other.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
