"""A compiled model in a `.keras` file: training goes on from it as if it had never been saved."""

import warnings
from pathlib import Path

import keras
import numpy as np
import pytest

import haim_tf


def test_compiled_model_trains_on_after_loading(eagerly, tmp_path):
    model = haim_tf.HierarchicalModel(
        image_shape=(8, 8, 1), levels=[], prior={"width": 4, "blocks": 1}, num_classes=8
    )
    model.compile(keras.optimizers.Adam(2e-3), clip_norm=0.5)
    images = np.random.default_rng(0).integers(0, 256, (8, *model.image_shape), "uint8")
    labels = np.arange(8)
    model.fit(images, labels, batch_size=4, verbose=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded._clip_norm == 0.5
    for ours, theirs in zip(model.optimizer.variables, loaded.optimizer.variables, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert int(loaded.optimizer.iterations) == 2
    for continued in (model, loaded):
        continued.fit(images, labels, batch_size=4, shuffle=False, verbose=0)
    for ours, theirs in zip(model.weights, loaded.weights, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_uncompiled_model_stays_uncompiled(tmp_path):
    model = haim_tf.load("debug")
    model.save(tmp_path / "model.keras")
    assert not keras.saving.load_model(tmp_path / "model.keras").compiled


def test_weights_that_cannot_be_written_leave_those_that_were_there(monkeypatch, tmp_path):
    path = tmp_path / "model.weights.h5"
    model = haim_tf.load("debug")
    model.save_weights(path)
    before = path.read_bytes()

    def half(self, path, *arguments, **options):
        Path(path).write_bytes(b"half")
        raise OSError("full")

    monkeypatch.setattr(keras.Model, "save_weights", half)
    with pytest.raises(ValueError, match="cannot write .*model.weights.h5: full"):
        model.save_weights(path)
    assert path.read_bytes() == before


def test_what_keras_would_write_and_nothing_could_read_is_refused(tmp_path):
    model = haim_tf.load("debug")
    with pytest.raises(ValueError, match="saved to a .keras file, or to a folder by save_to_preset, got"):
        model.save(tmp_path / "model.h5")
    with pytest.raises(ValueError, match="haim_tf.saved_model.export"):
        model.export(tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_a_preset_of_a_subclass_is_a_model_of_the_zoo_s_kind(tmp_path):
    class Mine(haim_tf.HierarchicalModel):
        pass

    class Larger(Mine):
        def build(self, input_shape=None):
            super().build(input_shape)
            self.more = self.add_weight(name="more", shape=(2,))

    debug = haim_tf.load("debug")
    mine = Mine.from_config(debug.get_config())
    mine.set_weights(debug.get_weights())
    mine.save_to_preset(tmp_path / "mine")
    images = np.zeros((1, 16, 16, 3), "uint8")
    loaded = haim_tf.load(tmp_path / "mine")
    np.testing.assert_array_equal(loaded.log_prob(images, 0), debug.log_prob(images, 0))
    with pytest.raises(ValueError, match="this Larger has further weights"):
        Larger.from_config(debug.get_config()).save_to_preset(tmp_path / "larger")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
