"""Where weights came from: what a preset says when nobody tells it, and what survives copies and files."""

import copy

import keras
import numpy as np
import pytest

import haim_tf
from haim_tf.models import WarmUp

IMAGES = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3)).astype("uint8")


def metadata_of(model, tmp_path, name="saved"):
    model.save_to_preset(tmp_path / name)
    return haim_tf.presets.read(tmp_path / name)[1]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A preset that is pretrained."""
    folder = tmp_path_factory.mktemp("presets") / "base"
    about = {"pretrained": True, "dataset": {"name": "Noise", "terms": "free"}}
    haim_tf.load("debug").save_to_preset(folder, metadata=about)
    return folder


@pytest.fixture
def pretrained(base):
    return haim_tf.load(base)


def test_a_fresh_model_is_not_pretrained_a_fitted_one_is(tmp_path):
    model = haim_tf.HierarchicalModel((4, 4, 1), [], {"width": 4, "blocks": 1}, mixtures=2)
    assert metadata_of(model, tmp_path)["pretrained"] is False
    model.compile(run_eagerly=True)
    model.fit(IMAGES[:, :4, :4, :1], verbose=0)
    assert metadata_of(model, tmp_path, "fitted")["pretrained"] is True


def test_what_is_trained_in_part_is_trained(tmp_path):
    model = haim_tf.HierarchicalModel((4, 4, 1), [], {"width": 4, "blocks": 1}, mixtures=2)
    model.compile(run_eagerly=True)
    images = IMAGES[:, :4, :4, :1]
    model.fit(images, epochs=0, verbose=0)
    with pytest.raises(ValueError, match="must be finite"):
        model.fit((images + np.nan for _ in range(2)), verbose=0)
    assert model.fitted is False
    model.train_on_batch(images)
    assert model.fitted is True
    model.fitted = False

    def interrupt(batch, logs):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        callback = keras.callbacks.LambdaCallback(on_train_batch_end=interrupt)
        model.fit(images, callbacks=[callback], verbose=0)
    assert metadata_of(model, tmp_path)["pretrained"] is True


def test_a_fine_tuned_preset_says_what_from(base, tmp_path):
    names = [f"kind {i}" for i in range(3)]
    model = haim_tf.load(base, num_classes=3)
    model.compile(run_eagerly=True)
    data = haim_tf.data.ImageData(IMAGES, np.arange(8) % 3, class_names=names, name="my pictures")
    model.fit(haim_tf.data.Batches(data, 8, steps=1), shuffle=False, verbose=0)
    metadata = metadata_of(model, tmp_path)
    assert metadata["pretrained"] is True and metadata["class_names"] == names
    assert metadata["training"]["fine-tuned from"].startswith("base (sha256 ")
    assert "Noise; terms: free" in metadata["training"]["fine-tuned from"]
    assert metadata["dataset"] == {"name": "my pictures"}
    card = (tmp_path / "saved" / "README.md").read_text()
    assert "fine-tuned from: base" in card and "mean nothing" not in card


def test_a_copy_says_what_of(pretrained, tmp_path):
    metadata = metadata_of(pretrained, tmp_path)
    assert metadata["pretrained"] is True and metadata["dataset"]["terms"] == "free"
    assert metadata["training"]["copied from"].startswith("base (sha256 ")


def test_it_survives_copies_and_files(pretrained, tmp_path):
    pretrained.compile(run_eagerly=True)
    pretrained.fit(IMAGES, np.zeros(8, "int32"), verbose=0)
    pretrained.save(tmp_path / "m.keras")
    for other in (copy.deepcopy(pretrained), keras.saving.load_model(tmp_path / "m.keras")):
        assert other.fitted is True and other.origin["name"] == "base"
    labelled = pretrained.with_labels(2)
    assert labelled.fitted is True and labelled.without_teachers().origin["name"] == "base"


def test_weights_made_anew_do_not_say_where_others_came_from(pretrained):
    pretrained.freeze("codes")
    clone = keras.models.clone_model(pretrained)
    assert clone.origin is None and clone.fitted is False
    assert [name for name, part in clone.parts.items() if not part.trainable] == [
        "autoencoder_1",
        "autoencoder_2",
    ]


def test_a_keras_file_that_has_it_in_its_configuration_is_read(pretrained):
    config = {**pretrained.get_config(), **pretrained.weights_history}
    assert haim_tf.HierarchicalModel.from_config(config).origin["name"] == "base"


def test_the_default_optimizer_warms_up():
    model = haim_tf.load("debug")
    model.freeze("codes")
    model.compile()
    schedule = model.optimizer.get_config()["learning_rate"]
    rates = [float(WarmUp(5e-4, 100)(step)) for step in (0, 49, 99, 500)]
    np.testing.assert_allclose(rates, [5e-6, 2.5e-4, 5e-4, 5e-4], rtol=1e-6)
    assert schedule["config"] == {"learning_rate": 5e-4, "steps": 100}
    before = model.evaluate(IMAGES, np.zeros(8, "int32"), verbose=0, return_dict=True)["loss"]
    for _ in range(10):
        model.train_on_batch(IMAGES, np.zeros(8, "int32"))
    after = model.evaluate(IMAGES, np.zeros(8, "int32"), verbose=0, return_dict=True)["loss"]
    assert after < before


@pytest.mark.parametrize(
    "name, value, usual",
    [("image_data_format", "channels_first", "channels_last"), ("floatx", "float64", "float32")],
)
def test_foreign_settings_of_keras_are_named(name, value, usual):
    getattr(keras.config, f"set_{name}")(value)
    try:
        with pytest.raises(ValueError, match=f"keras.config.{name}.. must be '{usual}'.*got '{value}'"):
            haim_tf.load("debug")
    finally:
        getattr(keras.config, f"set_{name}")(usual)


def test_codes_that_leave_their_decoders_behind_are_warned_of(pretrained):
    images = haim_tf.data.Batches(haim_tf.data.ImageData(IMAGES, np.zeros(8, int)), 8, steps=1)
    pretrained.freeze("decoders")
    pretrained.compile(run_eagerly=True)
    with pytest.warns(
        UserWarning, match="codes of level 1 are trained, and decoder_1 and decoder_2, made for"
    ):
        pretrained.fit(images, shuffle=False, verbose=0)
    assert not list(pretrained.left_behind(["decoder_1", "decoder_2", "prior"]))
    assert not list(pretrained.left_behind(pretrained.parts))


def test_what_is_saved_meanwhile_and_read_from_files_says_so(base, tmp_path):
    model = haim_tf.load(base)
    model.compile(run_eagerly=True)
    data = haim_tf.data.ImageData(IMAGES, np.zeros(8, "int32"), name="my pictures")
    best = [
        keras.callbacks.ModelCheckpoint(tmp_path / "best.keras"),
        keras.callbacks.ModelCheckpoint(tmp_path / "best.weights.h5", save_weights_only=True),
    ]
    model.fit(haim_tf.data.Batches(data, 8, steps=1), shuffle=False, callbacks=best, verbose=0)
    kept = keras.saving.load_model(tmp_path / "best.keras")
    assert metadata_of(kept, tmp_path)["training"]["fine-tuned from"].startswith("base (sha256 ")
    assert kept.fitted_on == model.fitted_on == "my pictures"
    read = haim_tf.load(base)
    assert read.fitted is False
    read.load_weights(tmp_path / "best.weights.h5")
    assert "fine-tuned from" in metadata_of(read, tmp_path, "read")["training"]
