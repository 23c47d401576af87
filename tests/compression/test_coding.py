"""Compression is lossless, as short as the bound says, and never gives a wrong picture."""

import dataclasses
import math

import numpy as np
import pytest

import haim_tf
from haim_tf.compression import coding, compress, container, decompress, fingerprint, pack, unpack


def tiny(channels=1, num_classes=None, levels=1, **changes):
    level = {"downsampling": 2, "codebook_size": 4, "code_dim": 2, "width": 4, "blocks": 1}
    network = {"width": 8, "blocks": 1, "kernel_size": [2, 3], "attention": [0]}
    arguments = {
        "image_shape": (4, 8, channels),
        "levels": [{**level, "decoder": network}] * levels,
        "prior": network,
        "num_classes": num_classes,
        "mixtures": 2,
    }
    model = haim_tf.HierarchicalModel(**{**arguments, **changes}, name="tiny")
    # Far from what a fresh network says, which is nearly nothing.
    rng = np.random.default_rng(0)
    for network in model.networks:
        network.last.kernel.assign(rng.normal(0, 0.1, network.last.kernel.shape))
    return model


@pytest.fixture(scope="module")
def colour():
    return tiny(channels=3, num_classes=3)


def noise(*shape):
    return np.random.default_rng(1).integers(0, 256, shape, "uint8")


@pytest.mark.parametrize(
    "arguments",
    [
        {"levels": 2, "image_shape": (4, 8, 1), "pixel_likelihood": "categorical"},
        {"levels": 0, "num_classes": 1},
    ],
)
def test_kinds_of_models(arguments):
    model = tiny(**arguments)
    images = noise(3, 4, 8, 1)
    np.testing.assert_array_equal(decompress(model, compress(model, images)), images)


def test_sizes_of_images_and_files_together_or_alone(colour, monkeypatch):
    monkeypatch.setattr(container, "MAX_BATCH_BITS", 3)
    # More tiles than a batch holds, remainders, one tile, less than one tile.
    images = [noise(5, 2, 3), noise(18, 32, 3), noise(4, 8, 3), noise(7, 9, 3)]
    files = compress(colour, images, labels=[0, 2, 1, 0])
    for found, image in zip(decompress(colour, files), images, strict=True):
        np.testing.assert_array_equal(found, image)
    for i in (3, 0):
        np.testing.assert_array_equal(decompress(colour, [files[i]])[0], images[i])
    for found, i in zip(decompress(colour, [files[2], files[0]]), (2, 0), strict=True):
        np.testing.assert_array_equal(found, images[i])
    assert [unpack(f).model for f in files] == ["tiny"] * 4
    assert unpack(compress(colour, [images[1]], labels=2, name="other")[0]).model == "other"


def test_the_size_is_the_bounds(colour):
    images = colour.sample(8, labels=1, seed=3)
    for labels in (1, None):
        files = compress(colour, images, labels)
        each = np.stack([colour.bits_per_dim(images, y) for y in ([1] if labels else range(3))])
        bits = each.min(axis=0) * math.prod(colour.image_shape) + math.log2(3)
        words = np.array([32 * len(unpack(file).words) for file in files])
        # A range coder ends on a whole word, and may need one more.
        assert (words >= bits - 1).all() and (words <= 1.001 * bits + 64).all()
        sizes = np.array([len(file) for file in files])
        assert (sizes <= 1.01 * bits / 8 + 64).all()


def test_no_images(colour):
    assert compress(colour, []) == decompress(colour, []) == []


def test_a_thousand_damaged_files(colour):
    """Cut off, bytes changed, put in or taken out; and with the checksum made right again."""
    files = [compress(colour, noise(1, 4, 8, 3), labels=label)[0] for label in range(3)]
    rng = np.random.default_rng(0)
    for i in range(1000):
        data = bytearray(files[i % 3])
        place = int(rng.integers(len(data)))
        kind = i % 5
        if kind == 0:
            data = data[:place]
        elif kind == 1:
            data[place] ^= int(rng.integers(1, 256))
        elif kind == 2:
            data[place:place] = rng.bytes(int(rng.integers(1, 9)))
        elif kind == 3:
            del data[place : place + int(rng.integers(1, 9))]
        else:
            stop = place + int(rng.integers(2, 40))
            data[place:stop] = bytes(b ^ 0x55 for b in data[place:stop])
        with pytest.raises(ValueError, match="x is (damaged or truncated|no compressed image)"):
            decompress(colour, [bytes(data)], ["x"])


def test_altered_words_with_a_right_checksum(colour):
    file = unpack(compress(colour, noise(1, 4, 8, 3), labels=1)[0])
    rng = np.random.default_rng(0)
    altered = []
    for i in range(12):
        words = file.words.copy()
        words[int(rng.integers(len(words)))] ^= np.uint32(1 << int(rng.integers(32)))
        altered.append(words if i % 3 else file.words[: i + 1])
    altered += [np.full(9, 2**32 - 1, "uint32"), np.zeros(0, "uint32")]
    for words in altered:
        data = pack(dataclasses.replace(file, words=words))
        with pytest.raises(ValueError, match="x cannot be decoded here"):
            decompress(colour, [data], ["x"])
    for changes in ({"height": 3}, {"width": 9}, {"pixels": b"01234567"}):
        with pytest.raises(ValueError, match="x cannot be decoded here"):
            decompress(colour, [dataclasses.replace(file, **changes)], ["x"])


def test_a_size_that_the_words_do_not_reach_for_ends_soon(colour, monkeypatch):
    """A file of a few hundred bytes that claims to hold 5,000 tiles."""
    file = unpack(compress(colour, noise(1, 4, 8, 3), labels=1)[0])
    batches, code = [], coding._code
    monkeypatch.setattr(coding, "_code", lambda *arguments: batches.append(1) or code(*arguments))
    with pytest.raises(ValueError, match="x cannot be decoded here"):
        decompress(colour, [dataclasses.replace(file, height=20_000)], ["x"])
    assert len(batches) < 50


def test_other_floats_end_in_an_error(colour, monkeypatch):
    file = compress(colour, noise(1, 4, 8, 3), labels=1)[0]
    original = coding._code_values

    def nudged(groups, size, known, probabilities):
        return original(groups, size, known, probabilities * (1 + 1e-3 * np.arange(probabilities.shape[1])))

    monkeypatch.setattr(coding, "_code_values", nudged)
    with pytest.raises(ValueError, match="arithmetic"):
        decompress(colour, [file])


def test_other_weights_are_an_error(colour):
    file = compress(colour, noise(1, 4, 8, 3), labels=1)[0]
    other = tiny(channels=3, num_classes=3)
    other.set_weights(colour.get_weights())
    assert fingerprint(other) == fingerprint(colour)
    other.prior.last.bias.assign(other.prior.last.bias + 1e-6)
    with pytest.raises(ValueError, match="x was written by the model 'tiny' with the weights"):
        decompress(other, [file], ["x"])


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((1, 4, 8, 1), "uint8"), 0, r"uint8 images of shape \(H, W, 3\)"),
        (np.zeros((1, 4, 8, 3)), 0, "got float64"),
        (np.zeros((1, 0, 8, 3), "uint8"), 0, "uint8 images"),
        (np.zeros((1, 4, 8, 3), "uint8"), 3, r"labels must lie in 0\.\.2"),
    ],
)
def test_bad_input(colour, images, labels, message):
    with pytest.raises(ValueError, match=message):
        compress(colour, images, labels)


@pytest.mark.parametrize("name", ["caf\udce9", 5, "é" * 200])
def test_what_no_file_can_hold_is_known_before_the_work(colour, monkeypatch, name):
    monkeypatch.setattr(coding, "_in_batches", None)
    model, image = colour, np.zeros((1, 1, 3), "uint8")
    with pytest.raises(ValueError, match="a model's name must"):
        compress(model, [image], name=name)
    with pytest.raises(ValueError, match="sides of 1 to 65535 pixels, got 65536x1"):
        compress(model, [image.repeat(65536, axis=0)])
    with pytest.raises(ValueError, match="file 0 must be bytes, got str"):
        decompress(model, ["a"])
