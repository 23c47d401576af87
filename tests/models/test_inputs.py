"""Checks of inputs: what is accepted, how it is converted, and one clear error for each wrong input."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from haim_tf.models import HierarchicalModel, inputs

SHAPE = (4, 6, 3)
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(256, size=(3, *SHAPE)).astype("uint8")


@pytest.fixture(scope="module")
def model():
    """Class-conditional, one level; never run, for every error comes before any computation."""
    level = {"downsampling": 2, "codebook_size": 5, "code_dim": 2, "width": 4, "blocks": 1}
    decoder = {"width": 4, "blocks": 1, "condition_width": 4, "condition_blocks": 1}
    return HierarchicalModel(SHAPE, [{**level, "decoder": decoder}], {"width": 4, "blocks": 1}, num_classes=3)


@pytest.fixture(scope="module")
def flat():
    return HierarchicalModel(SHAPE, [], {"width": 4, "blocks": 1})


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64", "uint16", "float16", "float32", "float64"])
def test_images_of_any_number_type_become_uint8(dtype):
    checked = inputs.check_images(IMAGES.astype(dtype), SHAPE)
    assert checked.dtype == "uint8"
    np.testing.assert_array_equal(checked, IMAGES)


def test_images_may_be_rounded_lists_tensors_or_none_at_all():
    np.testing.assert_array_equal(inputs.check_images(IMAGES * 0.999 + 0.1, SHAPE), IMAGES)
    np.testing.assert_array_equal(inputs.check_images(IMAGES.tolist(), SHAPE), IMAGES)
    np.testing.assert_array_equal(inputs.check_images(tf.constant(IMAGES), SHAPE), IMAGES)
    assert inputs.check_images(IMAGES[:0], SHAPE).shape == (0, *SHAPE)
    black = np.zeros((1, *SHAPE), "float32")
    np.testing.assert_array_equal(inputs.check_images(black, SHAPE), black)


def with_value(value):
    images = IMAGES.astype("float32")
    images[1, 2, 3, 1] = value
    return images


BAD_IMAGES = {
    "rank 3": (IMAGES[0], r"shape \(B, 4, 6, 3\), got \(4, 6, 3\) .*images\[None\]"),
    "rank 5": (IMAGES[None], r"got \(1, 3, 4, 6, 3\)"),
    "size": (IMAGES[:, :, :5], r"got \(3, 4, 5, 3\)"),
    "transposed": (IMAGES.swapaxes(1, 2), r"got \(3, 6, 4, 3\)"),
    "channels": (IMAGES[..., :1], r"got \(3, 4, 6, 1\)"),
    "bool": (IMAGES > 100, "got dtype bool"),
    "complex": (IMAGES.astype("complex64"), "got dtype complex64"),
    "strings": (IMAGES.astype(str), "uint8, or int or float in 0..255, got dtype"),
    "objects": (IMAGES.astype(object), "got dtype object"),
    "negative": (with_value(-1), r"0\.\.255, got values -1\.0 to"),
    "too large": (IMAGES.astype("int32") + 1, "0..255, got values 1 to 256"),
    "-1..1": (IMAGES / 127.5 - 1, "0..255, got values -"),
    "0..1": (IMAGES / 255, "multiply images in 0..1 by 255"),
    "NaN": (with_value(np.nan), "must be finite"),
    "infinite": (with_value(np.inf), "must be finite"),
}


@pytest.mark.parametrize("images,named", BAD_IMAGES.values(), ids=BAD_IMAGES)
def test_bad_images(images, named, model, flat):
    labels = np.zeros(len(images), "int32")
    for call in (
        lambda: inputs.check_images(images, SHAPE),
        lambda: model.encode(images),
        lambda: model.log_prob(images, labels),
        lambda: model.bits_per_dim(images, labels),
        lambda: model.reconstruct(images),
        lambda: model.fit(images, labels),
        lambda: model.evaluate(images, labels),
        lambda: flat.fit(images),
        lambda: flat.fit(OneBatch(images)),
    ):
        with pytest.raises(ValueError, match=named):
            call()


class OneBatch(keras.utils.PyDataset):
    """One batch of what it is given."""

    def __init__(self, *batch):
        super().__init__()
        self.batch = batch

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return self.batch if len(self.batch) > 1 else self.batch[0]


def test_labels():
    for labels in ([0, 2, 1], np.array([0, 2, 1], "uint8"), [[0], [2], [1]], tf.constant([0, 2, 1])):
        checked = inputs.check_labels(labels, 3, 3)
        assert checked.dtype == "int32"
        np.testing.assert_array_equal(checked, [0, 2, 1])
    np.testing.assert_array_equal(inputs.check_labels(2, 3, 4), [2, 2, 2, 2])
    assert inputs.check_labels(None, None, 3) is None


BAD_LABELS = {
    "missing": (None, r"class-conditional: labels must be ints in 0\.\.2, got None"),
    "too large": ([0, 1, 3], r"0\.\.2, got values 0 to 3"),
    "negative": ([0, -1, 2], r"0\.\.2, got values -1 to 2"),
    "float": ([0.0, 1.0, 2.0], "integers, got dtype float64"),
    "bool": ([True, False, True], "integers, got dtype bool"),
    "strings": (["a", "b", "c"], "have no names|the classes"),
    "too few": ([0, 1], r"shape \(3,\), got \(2,\)"),
    "one-hot": (np.eye(3, dtype="int32"), r"shape \(3,\), got \(3, 3\)"),
}


@pytest.mark.parametrize("labels,named", BAD_LABELS.values(), ids=BAD_LABELS)
def test_bad_labels(labels, named, model):
    calls = [
        lambda: inputs.check_labels(labels, 3, 3),
        lambda: model.log_prob(IMAGES, labels),
        lambda: model.bits_per_dim(IMAGES, labels),
        lambda: model.fit(IMAGES, labels),
        lambda: model.fit((IMAGES, labels)),
        lambda: model.evaluate(IMAGES, labels),
        lambda: model.fit(OneBatch(IMAGES, labels)),
    ]
    if labels is not None:  # To `sample`, None means labels drawn at random.
        calls.append(lambda: model.sample(3, labels=labels))
    for call in calls:
        with pytest.raises(ValueError, match=named):
            call()


def test_labels_not_wanted(flat):
    labels = np.zeros(3, "int32")
    for call in (
        lambda: flat.log_prob(IMAGES, labels),
        lambda: flat.sample(3, labels=labels),
        lambda: flat.fit(IMAGES, labels),
        lambda: flat.fit((IMAGES, labels)),
        lambda: flat.fit(OneBatch(IMAGES, labels)),
    ):
        with pytest.raises(ValueError, match="not class-conditional: labels must be None"):
            call()


def data_set(*parts):
    return tf.data.Dataset.from_tensor_slices(parts if len(parts) > 1 else parts[0]).batch(3)


LABELS = np.zeros(3, "int32")


@pytest.mark.parametrize(
    "data,named",
    [
        (data_set(IMAGES[:, :, :5], LABELS), r"batches \(B, 4, 6, 3\), got .*shape=\(None, 4, 5, 3\)"),
        (data_set(IMAGES, LABELS).unbatch(), r"batches \(B, 4, 6, 3\), got .*shape=\(4, 6, 3\)"),
        (data_set(IMAGES > 3, LABELS), "0..255, got .*bool"),
        (data_set(IMAGES.astype(str), LABELS), "0..255, got .*string"),
        (data_set(IMAGES), r"batches must be \(images, labels\) for .*, got labels=None"),
        (data_set(IMAGES, LABELS.astype("float32")), r"integers of shape \(B,\) or \(B, 1\), got .*float32"),
        (data_set(IMAGES, np.zeros((3, 2), "int32")), r"of shape \(B,\) or \(B, 1\), got .*\(None, 2\)"),
        (data_set({"image": IMAGES, "label": LABELS}), r"batches \(B, 4, 6, 3\), got \{'image'"),
        (data_set(IMAGES, LABELS, LABELS), "sample weights are not supported"),
    ],
)
def test_bad_data_sets(data, named, model):
    for call in (model.fit, model.evaluate):
        with pytest.raises(ValueError, match=named):
            call(data)


def test_data_sets_with_values_out_of_range(model):
    model.compile()
    before = [w.numpy() for w in model.trainable_variables]
    for data, named in (
        (data_set(IMAGES + 300.0, LABELS), "images must lie in 0..255, got values"),
        (data_set(IMAGES * np.float64("nan"), LABELS), "images must be finite"),
        (data_set(np.full(IMAGES.shape, 0.5), LABELS), "images must lie in 0..255, got fractions of at most"),
        (data_set(IMAGES, LABELS + 3), "labels must lie in 0..2, got values 3 to 3"),
    ):
        for call in (model.fit, model.evaluate):
            with pytest.raises(ValueError, match=f"^{named}"):
                call(data, verbose=0)
    assert all((a == w.numpy()).all() for a, w in zip(before, model.trainable_variables, strict=True))


def test_data_set_with_labels_not_wanted(flat):
    with pytest.raises(ValueError, match="batches must be images without labels"):
        flat.fit(data_set(IMAGES, LABELS))


BAD_CODES = {
    "rank": (np.zeros((2, 3), int), r"shape \(B, 2, 3\), got \(2, 3\)"),
    "size": (np.zeros((1, 3, 2), int), r"shape \(B, 2, 3\), got \(1, 3, 2\)"),
    "float": (np.zeros((1, 2, 3)), "integers, got dtype float64"),
    "too large": (np.full((1, 2, 3), 5), r"0\.\.4, got values 5 to 5"),
    "negative": (np.full((1, 2, 3), -1), r"0\.\.4, got values -1 to -1"),
}


@pytest.mark.parametrize("codes,named", BAD_CODES.values(), ids=BAD_CODES)
def test_bad_codes(codes, named, model):
    with pytest.raises(ValueError, match=named):
        model.decode(codes)


@pytest.mark.parametrize("level", [0, 2, -1, 1.0, "1", True])
def test_bad_levels(level, model):
    for call in (
        lambda: model.decode(np.zeros((1, 2, 3), int), level=level),
        lambda: model.reconstruct(IMAGES, level=level),
    ):
        with pytest.raises(ValueError, match=rf"level must be an int in 1\.\.1, got {level!r}"):
            call()


def test_a_flat_model_has_no_levels(flat):
    for call in (lambda: flat.decode(np.zeros((1, 2, 3), int)), lambda: flat.reconstruct(IMAGES)):
        with pytest.raises(ValueError, match="flat: it has no levels"):
            call()


@pytest.mark.parametrize(
    "arguments,named",
    [
        ({"num": 0}, r"num must be an integer in 1\.\.\d+, got 0"),
        ({"num": 2.0}, r"num must be an integer in 1\.\.\d+, got 2.0"),
        ({"num": True}, "num must be an integer in 1"),
        ({"temperature": -0.1}, r"temperature must lie in 0\.0\.\.100\.0, got -0.1"),
        ({"temperature": np.nan}, "temperature must lie in"),
        ({"temperature": [1.0, 1.0, 1.0]}, "one number or 2 .*finest first, then the prior"),
        ({"temperature": "hot"}, "temperature must be one number"),
        ({"temperature": {}}, "temperature must be one number"),
        ({"top_p": 0.0}, "top_p must lie in"),
        ({"top_p": 1.1}, "top_p must lie in"),
        ({"batch_size": 0}, "batch_size must be an integer of at least 1, got 0"),
        ({"batch_size": -1}, "batch_size"),
        ({"seed": 0.5}, "seed must be an int"),
        ({"seed": [[0, 1]]}, r"integer array of shape \(2, 2\)"),
        ({"labels": 3}, r"labels must lie in 0\.\.2"),
    ],
)
def test_bad_sampling_arguments(arguments, named, model):
    with pytest.raises(ValueError, match=named):
        model.sample(**({"num": 2} | arguments))


def test_bad_decoder(model):
    with pytest.raises(ValueError, match='"main" or "auxiliary", got \'both\''):
        model.reconstruct(IMAGES, decoder="both")
