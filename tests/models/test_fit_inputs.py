"""What Keras offers around `fit` is checked as `fit(x, y)` is, and says little while it trains."""

import io
import sys
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from haim_tf.data import Batches, ImageData
from haim_tf.models import HierarchicalModel

SHAPE = (4, 6, 1)
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(256, size=(6, *SHAPE)).astype("uint8")
LABELS = np.arange(6, dtype="int32") % 3
NAMES = ["lion, king of beasts", "goldfish, Carassius auratus", "sea lion"]
BAD = {
    "0..1": (IMAGES / 255, LABELS, "multiply images in 0..1 by 255"),
    "NaN": (IMAGES + np.nan, LABELS, "must be finite"),
    "shape": (IMAGES[:, :2], LABELS, r"\(B, 4, 6, 1\)"),
    "labels": (IMAGES, LABELS + 1, "labels must lie in 0..2"),
    "no labels": (IMAGES, None, r"got None|\(images, labels\)"),
}


@pytest.fixture(scope="module")
def model():
    level = {"downsampling": 2, "codebook_size": 5, "code_dim": 2, "width": 4, "blocks": 1}
    decoder = {"width": 4, "blocks": 1, "condition_width": 4, "condition_blocks": 1}
    model = HierarchicalModel(
        SHAPE, [{**level, "decoder": decoder}], {"width": 4, "blocks": 1}, num_classes=3, mixtures=2
    )
    # Adam's many small operations would take longer than all else.
    model.compile(keras.optimizers.SGD(1e-3), run_eagerly=True)
    return model


class Pairs(keras.utils.PyDataset):
    """A good batch, then another one."""

    def __init__(self, images, labels):
        super().__init__()
        self.batches = [(IMAGES[:3], LABELS[:3]), (images, labels) if labels is not None else images]

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        return self.batches[index]


def generator(images, labels):
    for i in range(len(Pairs(images, labels))):
        yield Pairs(images, labels)[i]


def data_set(images, labels):
    return tf.data.Dataset.from_tensor_slices((images, labels) if labels is not None else images).batch(3)


WAYS = {
    "validation arrays": lambda m, x, y: m.fit(IMAGES, LABELS, validation_data=(x, y), verbose=0),
    "validation data set": lambda m, x, y: m.fit(IMAGES, LABELS, validation_data=data_set(x, y), verbose=0),
    "validation PyDataset": lambda m, x, y: m.fit(IMAGES, LABELS, validation_data=Pairs(x, y), verbose=0),
    "second batch of a PyDataset": lambda m, x, y: m.fit(Pairs(x, y), shuffle=False, verbose=0),
    "generator": lambda m, x, y: m.fit(generator(x, y), steps_per_epoch=2, verbose=0),
    "train_on_batch": lambda m, x, y: m.train_on_batch(x, y),
    "test_on_batch": lambda m, x, y: m.test_on_batch(x, y),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("bad", BAD)
def test_bad_batches_are_refused_by_every_way_in(model, way, bad):
    images, labels, message = BAD[bad]
    with pytest.raises(ValueError, match=message):
        WAYS[way](model, images, labels)


@pytest.mark.parametrize("way", WAYS)
def test_good_batches_are_taken_by_every_way_in(model, way):
    WAYS[way](model, IMAGES, LABELS)
    WAYS[way](model, IMAGES.astype("float64"), LABELS[:, None].astype("int64"))


def test_labels_may_be_a_list_or_a_column_everywhere(model):
    expected = model.log_prob(IMAGES, LABELS)
    forms = (LABELS.tolist(), LABELS[:, None], LABELS.astype("uint8"))
    for labels in forms:
        np.testing.assert_allclose(model.log_prob(IMAGES, labels), expected, rtol=1e-6)
    for labels in forms:
        model.fit(IMAGES, labels, validation_data=(IMAGES, labels), verbose=0)


def test_a_dark_batch_among_others_is_no_mistake(model):
    dark = np.concatenate([IMAGES[:3], np.full((3, *SHAPE), 0.4)]).astype("float32")
    model.fit(data_set(dark, LABELS), verbose=0)
    model.fit(dark, LABELS, batch_size=3, verbose=0)
    speck = np.zeros((2, *SHAPE), "float32")
    speck[0, 1, 1] = 1.0
    assert np.isfinite(model.log_prob(speck, 0)).all()
    with pytest.raises(ValueError, match="multiply images"):
        model.log_prob(speck * 0.5, 0)


class WithData(Pairs):
    """A data set of a user's own that keeps what it reads from as `data`, as `Batches` does."""

    def __init__(self, images, labels, data):
        super().__init__(images, labels)
        self.data = data


@pytest.mark.parametrize("name", [np.array(["a", "b"]), "mine"], ids=["array", "text"])
def test_what_a_data_set_of_one_s_own_holds_is_its_own(model, name):
    held = types.SimpleNamespace(name=name, class_names=np.array(["x", "y", "z"]))
    trained = HierarchicalModel.from_config(model.get_config())
    trained.compile(run_eagerly=True)
    trained.fit(WithData(IMAGES, LABELS, held), verbose=0)
    assert trained.fitted and trained.fitted_on is None and trained.class_names is None


def test_a_generator_trains_a_model_without_labels():
    plain = HierarchicalModel(SHAPE, [], {"width": 4, "blocks": 1}, mixtures=2)
    plain.compile(keras.optimizers.SGD(1e-3), run_eagerly=True)
    for batch in (IMAGES, (IMAGES,), (IMAGES, None)):
        history = plain.fit((batch for _ in range(2)), verbose=0).history
        assert np.isfinite(history["loss"]).all()


def test_crops_are_for_parts_that_can_learn_on_them(model):
    def fit(images, crop):
        model.fit(Batches(ImageData(images, LABELS), 3, crop=crop, steps=2), shuffle=False, verbose=0)

    with pytest.raises(ValueError, match="crop is for training main decoders"):
        fit(IMAGES, 2)
    model.freeze("codes", "prior")
    try:
        with pytest.raises(ValueError, match=r"images must have the shape \(4, 6, 1\), got \(8, 12, 1\)"):
            fit(np.zeros((6, 8, 12, 1), "uint8"), 4)
        with pytest.raises(ValueError, match="crop must be a multiple of 2"):
            fit(IMAGES, 3)
        fit(IMAGES, 2)
    finally:
        model.unfreeze()


def test_what_is_measured_has_an_end_and_names_nothing(model):
    data = ImageData(IMAGES, LABELS, class_names=["x", "y", "z"])
    with pytest.raises(ValueError, match="what is evaluated must have an end"):
        model.evaluate(Batches(data, 3), verbose=0)
    with pytest.raises(ValueError, match="validation_data must have an end"):
        model.fit(IMAGES, LABELS, validation_data=Batches(data, 3), verbose=0)
    model.evaluate(Batches(data, 3), steps=2, verbose=0)
    model.fit(IMAGES, LABELS, validation_data=Batches(data, 3), validation_steps=1, verbose=0)
    assert model.class_names is None


def test_what_is_monitored_needs_no_mode(model):
    stop = keras.callbacks.EarlyStopping(monitor="val_bits_per_dim", patience=50)
    history = model.fit(
        IMAGES, LABELS, validation_data=(IMAGES, LABELS), callbacks=[stop], epochs=3, verbose=0
    ).history
    assert stop.monitor_op(0.0, 1.0) and not stop.monitor_op(1.0, 0.0)
    assert {"loss_prior", "gradient_norm_decoder_1", "val_loss_prior"} <= set(history)


def test_the_bar_shows_few_figures(model, capsys, monkeypatch):
    monkeypatch.setattr("haim_tf.progress.LINE_SECONDS", 1e9)
    validation = {"validation_data": (IMAGES, LABELS), "validation_batch_size": 6}
    for verbose, epochs in ((1, 2), (2, 1), ("auto", 1)):
        model.fit(IMAGES, LABELS, batch_size=3, epochs=epochs, verbose=verbose, **validation)
        shown = capsys.readouterr()
        # Under pytest nothing is a terminal: lines, and no bar.
        lines = shown.err.splitlines()
        assert shown.out == "" and not {"\r", "\b", "\x1b"} & set(shown.err)
        told = [[f"epoch {i}/{epochs}", "2 steps"] for i in range(1, epochs + 1)]
        assert [line.split("  ")[:2] for line in lines] == told
        for name in (" loss ", " bits_per_dim ", " val_loss ", " val_bits_per_dim "):
            assert name in lines[0]
        assert not any(name in shown.err for name in ("gradient_norm", "loss_prior", "perplexity"))
    model.evaluate(IMAGES, LABELS, batch_size=3)
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.startswith("evaluated  2 steps  ") and "bits_per_dim" in shown.err
    model.fit(IMAGES, LABELS, verbose=0)
    assert capsys.readouterr() == ("", "")


def test_the_bar_of_fit_is_on_standard_error(model, capsys, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr("sys.stderr", Terminal())
    batches = ((IMAGES[:2], LABELS[:2]) for _ in range(2))  # Of an unknown number.
    model.fit(batches)
    text = sys.stderr.getvalue()
    assert "steps" in text.split("\r")[1] and text.split("\r")[-1].startswith("epoch 1/1  2 steps  ")
    assert capsys.readouterr().out == ""


def test_validation_goes_by_the_names_that_training_gives(model):
    nameless = HierarchicalModel.from_config(model.get_config())
    nameless.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
    labels = np.array([0, 1, 2] * 2)

    def batches(names):
        data = ImageData(IMAGES, [names.index(NAMES[label]) for label in labels], class_names=names)
        return Batches(data, 6, shuffle=False, steps=1)

    seen = []
    losses = nameless.losses_and_statistics

    def spy(images, labels=None, **options):
        seen.append(np.asarray(labels).tolist())
        return losses(images, labels, **options)

    nameless.losses_and_statistics = spy
    nameless.fit(batches(NAMES), validation_data=batches(NAMES[::-1]), shuffle=False, verbose=0)
    assert seen == [labels.tolist()] * 2


def test_data_that_is_refused_names_no_classes(model):
    nameless = HierarchicalModel.from_config(model.get_config())
    nameless.compile(run_eagerly=True)
    data = ImageData(IMAGES[:, 1:], [0, 1] * 3, class_names=NAMES)
    with pytest.raises(ValueError, match="images must have shape"):
        nameless.fit(Batches(data, 6, steps=1), shuffle=False, verbose=0)
    assert nameless.class_names is None


def test_classes_of_data_go_by_their_names(model):
    named = HierarchicalModel.from_config(model.get_config())
    named.set_weights(model.get_weights())
    named.class_names = NAMES
    np.testing.assert_allclose(named.log_prob(IMAGES, ["goldfish"] * 6), named.log_prob(IMAGES, 1), rtol=1e-6)
    np.testing.assert_array_equal(named.sample(2, "Carassius auratus"), named.sample(2, 1))
    np.testing.assert_array_equal(named.sample(2, ["sea lion", "lion"]), named.sample(2, [2, 0]))
    with pytest.raises(ValueError, match="did you mean 'goldfish, Carassius auratus'"):
        named.sample(2, "goldfsh")
    with pytest.raises(ValueError, match="have no names: labels must be integers, got 'lion'"):
        model.sample(2, "lion")

    seen = []
    named.compile(run_eagerly=True)
    losses = named.losses_and_statistics

    def spy(images, labels=None, **options):
        seen.extend(np.asarray(labels).tolist())
        return losses(images, labels, **options)

    named.losses_and_statistics = spy
    data = ImageData(IMAGES, [0, 1] * 3, class_names=["Sea lion", "goldfish"])
    named.fit(Batches(data, 6, shuffle=False, steps=1), shuffle=False, verbose=0)
    assert seen == [2, 1] * 3
    other = ImageData(IMAGES, [0, 1] * 3, class_names=["goldfish", "trumpet"])
    with pytest.raises(ValueError, match="does not fit the model: there is no class 'trumpet'"):
        named.fit(Batches(other, 6, steps=1), shuffle=False, verbose=0)


@pytest.mark.parametrize(
    "x", [None, "mnist", {"images": IMAGES, "labels": LABELS}, ImageData(IMAGES, LABELS)], ids=str
)
def test_what_is_no_images_is_refused_by_every_way_in(model, x):
    calls = [model.fit, model.evaluate, model.train_on_batch, model.test_on_batch]
    for call in calls:
        with pytest.raises(ValueError, match="images must be an array, or, in fit and evaluate, a tf.data"):
            call(x)
    with pytest.raises(ValueError, match="images must be an array"):
        model.fit(IMAGES, LABELS, validation_data=x or 5, verbose=0)
    with pytest.raises(ValueError, match="images must be an array"):
        model.train_on_batch(data_set(IMAGES, LABELS))


def test_no_images_train_nothing(model):
    for call in (model.fit, model.evaluate, model.train_on_batch):
        with pytest.raises(ValueError, match=r"images must be at least one, got the shape \(0, 4, 6, 1\)"):
            call(IMAGES[:0], LABELS[:0])


@pytest.mark.parametrize("clip_norm", [0, -1.0, float("nan"), "1", True])
def test_gradients_are_clipped_to_a_number_above_0(model, clip_norm):
    with pytest.raises(ValueError, match="clip_norm must be a number above 0, got"):
        model.compile(clip_norm=clip_norm)


@pytest.mark.parametrize(
    "steps, shuffle, ahead", [(2, False, True), (None, True, True), (2, True, False)], ids=str
)
def test_batches_whose_order_stays_are_read_ahead(model, monkeypatch, steps, shuffle, ahead):
    """Not by Keras, whose data set's autotuning would have `fit` wait at its end."""
    given = []
    fit, evaluate = keras.Model.fit, keras.Model.evaluate
    monkeypatch.setattr(keras.Model, "fit", lambda self, x, *args, **options: given.append(x))
    monkeypatch.setattr(keras.Model, "evaluate", lambda self, x, *args, **options: given.append(x))
    batches = Batches(ImageData(IMAGES, LABELS), 3, steps=steps)
    model.fit(batches, shuffle=shuffle, verbose=0)
    model.evaluate(batches, verbose=0, steps=2)
    assert [isinstance(x, tf.data.Dataset) for x in given] == [ahead, True]
    assert not given[1].options().autotune.enabled
    monkeypatch.setattr(keras.Model, "fit", fit)
    monkeypatch.setattr(keras.Model, "evaluate", evaluate)
    held = Batches(ImageData(IMAGES, LABELS), 3, steps=2)
    history = model.fit(batches, shuffle=shuffle, verbose=0, steps_per_epoch=2, validation_data=held)
    assert {"loss", "val_loss"} <= set(history.history)
