"""Codes on disk: those of `encode`, mirrored images too, and never those of other encoders or images."""

import numpy as np
import pytest

import haim_tf
from haim_tf.data import ImageData
from haim_tf.training import code_cache


@pytest.fixture(scope="module")
def model():
    return haim_tf.load("debug")


@pytest.fixture(scope="module")
def images():
    return ImageData(np.random.default_rng(0).integers(256, size=(11, 16, 16, 3)).astype("uint8"))


def cached(model, images, path, **options):
    return code_cache.cached_codes(model, images, path, verbose=False, **options)


def test_holds_what_encode_gives(model, images, tmp_path, monkeypatch):
    monkeypatch.setattr(code_cache, "BATCH_SIZE", 4)
    codes = cached(model, images, tmp_path / "codes.npz", flip=True)
    for side, pixels in enumerate((images.images, images.images[:, :, ::-1])):
        for kept, expected in zip(codes, model.encode(pixels), strict=True):
            np.testing.assert_array_equal(kept[side], expected)
    assert [c.shape[0] for c in cached(model, images, tmp_path / "other.npz")] == [1] * model.num_levels


def test_holds_the_codes_of_turned_and_mirrored_images(model, images, tmp_path):
    turned = [np.rot90(images.images, quarters, axes=(1, 2)) for quarters in range(4)]
    both = [np.rot90(images.images[:, :, ::-1], quarters, axes=(1, 2)) for quarters in range(4)]
    pairs = [one for pair in zip(turned, both, strict=True) for one in pair]
    for flip, expected in ((False, turned), (True, pairs)):
        codes = cached(model, images, tmp_path / "codes.npz", flip=flip, turns=True)
        assert [c.shape[0] for c in codes] == [len(expected)] * model.num_levels
        for number, pixels in enumerate(expected):
            for kept, found in zip(codes, model.encode(pixels), strict=True):
                np.testing.assert_array_equal(kept[number], found)


@pytest.mark.parametrize("size, dtype", [(256, "uint8"), (257, "uint16"), (65537, "uint32")])
def test_codes_take_the_smallest_type_that_holds_them(model, images, tmp_path, monkeypatch, size, dtype):
    monkeypatch.setattr(model, "codebook_sizes", [size] * model.num_levels)
    assert {c.dtype.name for c in cached(model, images, tmp_path / "codes.npz")} == {dtype}


def test_is_read_again_only_where_it_fits(model, images, tmp_path, monkeypatch):
    path, runs = tmp_path / "codes.npz", []
    encode_all = code_cache._encode_all
    monkeypatch.setattr(code_cache, "_encode_all", lambda *args: runs.append(1) or encode_all(*args))
    first = cached(model, images, path)
    again = cached(model, images, path)
    assert len(runs) == 1
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    cached(model, ImageData(images.images[::-1]), path)
    cached(model, images, path, turns=True)
    cached(model, images, path, flip=True)
    assert len(runs) == 4
    codebook = model.autoencoders[0].quantizer.weights[0]
    before = codebook.numpy()
    codebook.assign(before + 1)
    cached(model, images, path, flip=True)
    codebook.assign(before)
    assert len(runs) == 5
    path.write_bytes(path.read_bytes()[:100])
    np.testing.assert_array_equal(cached(model, images, path)[0], first[0])
    assert len(runs) == 6
