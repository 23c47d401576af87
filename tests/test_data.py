"""haim_tf.data: every kind of source, good and damaged; the order of batches through `fit` and resume."""

import contextlib
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import unicodedata
import zlib
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from haim_tf import data, files
from haim_tf.data import Batches, ImageData, in_order, load, read_image, save_grid
from haim_tf.data.batches import num_symmetries, transformed
from haim_tf.data.prefetched import prefetched
from haim_tf.data.rows import Rows


def random_images(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype="uint8")


def write(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def write_deep(path, array):
    """A PNG of 16 bits per channel, uint16 (H, W, 1 to 4), which Pillow does not write in colour."""
    height, width, channels = array.reshape(*array.shape[:2], -1).shape
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    content = b"\x89PNG\r\n\x1a\n"
    for kind, chunk in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        content += struct.pack(">I", len(chunk)) + kind + chunk + struct.pack(">I", zlib.crc32(kind + chunk))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def numbered(count):
    """Images that are their own index, with labels likewise."""
    images = np.broadcast_to(np.arange(count, dtype="uint8")[:, None, None, None], (count, 4, 4, 1))
    return ImageData(images.copy(), np.arange(count))


# ImageData


def test_image_data_keeps_uint8_and_gives_grey_images_a_channel():
    images = random_images(6, 5, 4)
    image_data = ImageData(images, labels=np.arange(6)[:, None], class_names=list("abcdef"), name="toy")
    assert (len(image_data), image_data.image_shape, image_data.name) == (6, (5, 4, 1), "toy")
    np.testing.assert_array_equal(image_data.images[np.array([4, 1])][..., 0], images[[4, 1]])
    assert image_data.labels.dtype == np.int32 and image_data.labels.shape == (6,)
    assert image_data.class_names == list("abcdef")


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint16"])
def test_whole_numbers_of_other_types_become_uint8(dtype):
    images = random_images(3, 4, 4, 3)
    converted = ImageData(images.astype(dtype)).images
    assert converted.dtype == np.uint8
    np.testing.assert_array_equal(converted, images)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((4, 4), "uint8"), r"got \(4, 4\)"),
        (np.zeros((8, 8, 3), "uint8"), "single image"),
        (np.zeros((2, 8, 8, 2), "uint8"), r"\(2, 8, 8, 2\)"),
        (np.zeros((2, 3, 8, 8), "uint8"), r"\(N, H, W, C\)"),
        (np.zeros((0, 8, 8, 1), "uint8"), "no images"),
        (np.full((2, 8, 8, 1), 0.5), "whole numbers"),
        (np.full((2, 8, 8, 1), np.nan), "nan"),
        (np.full((2, 8, 8, 1), np.inf), "inf"),
        (np.full((2, 8, 8, 1), -1), "-1"),
        (np.full((2, 8, 8, 1), 256), "256"),
        (np.zeros((2, 8, 8, 1), bool), "bool"),
        (np.zeros((2, 8, 8, 1), complex), "complex"),
        (np.full((2, 8, 8, 1), "a"), "<U1"),
    ],
)
def test_wrong_images_are_refused_by_name(images, message):
    with pytest.raises(ValueError, match=f"toy.*{message}"):
        ImageData(images, name="toy")


@pytest.mark.parametrize(
    ("labels", "class_names", "message"),
    [
        ([0, 1], None, r"labels must be of shape \(3,\), one per image, got \(2,\)"),
        ([0, 1, -1], None, "-1"),
        ([0, 1, 2**40], None, "1099511627776"),
        ([0.0, 1.0, 2.0], None, "float64"),
        ([0, 1, 2], ["a", "b"], r"labels must be in 0\.\.1, got 0\.\.2"),
        ([0, 1, 2], np.array(3), "class names must be a list of names, got 3"),
        ([0, 1, 2], "abc", "class names must be a list of names, got abc"),
        ([0, 1, 2], [["a"], ["b"], ["c"]], "class names must be a list of names, got"),
    ],
)
def test_wrong_labels_are_refused(labels, class_names, message):
    with pytest.raises(ValueError, match=message):
        ImageData(random_images(3, 4, 4), labels, class_names)


# npy, npz


def test_npy_is_mapped_and_finds_its_labels_and_class_names(tmp_path):
    images = random_images(10, 4, 4, 3)
    np.save(tmp_path / "toy_images.npy", images)
    np.save(tmp_path / "toy_labels.npy", np.arange(10) % 2)
    (tmp_path / "classes.json").write_text('["even", "odd"]')
    image_data = load(tmp_path / "toy_images.npy")
    assert isinstance(image_data.images, np.memmap)
    np.testing.assert_array_equal(image_data.images, images)
    np.testing.assert_array_equal(image_data.labels, np.arange(10) % 2)
    assert image_data.class_names == ["even", "odd"]


def test_npy_alone_has_no_labels_and_is_whole_for_any_split(tmp_path):
    np.save(tmp_path / "x.npy", random_images(3, 4, 4))
    for split in ("train", "test"):
        image_data = load(str(tmp_path / "x.npy"), split)
        assert (len(image_data), image_data.labels, image_data.class_names) == (3, None, None)


def test_npz_with_images_labels_and_class_names(tmp_path):
    images = random_images(3, 4, 4, 3)
    np.savez(tmp_path / "x.npz", images=images, labels=[0, 1, 0], class_names=["a", "b"])
    image_data = load(tmp_path / "x.npz", "test")
    np.testing.assert_array_equal(image_data.images, images)
    assert image_data.labels.tolist() == [0, 1, 0] and image_data.class_names == ["a", "b"]


def test_npz_with_the_names_of_keras(tmp_path):
    x_train, x_test = random_images(4, 5, 5), random_images(2, 5, 5, seed=1)
    arrays = {"x_train": x_train, "y_train": [[0], [1], [2], [3]], "x_test": x_test, "y_test": [1, 0]}
    np.savez_compressed(tmp_path / "x.npz", **arrays)
    assert load(tmp_path / "x.npz", "train").labels.tolist() == [0, 1, 2, 3]
    for split in ("test", "val", "validation"):
        np.testing.assert_array_equal(load(tmp_path / "x.npz", split).images[..., 0], x_test)
    with pytest.raises(ValueError, match="split must be one of test, train, got 'other'"):
        load(tmp_path / "x.npz", "other")


def test_folder_of_arrays_by_split(tmp_path):
    np.save(tmp_path / "train_images.npy", random_images(4, 5, 5))
    np.save(tmp_path / "test_images.npy", random_images(2, 5, 5))
    np.save(tmp_path / "test_labels.npy", [0, 1])
    (tmp_path / "classes.json").write_text('["a", "b"]')
    assert load(tmp_path).labels is None
    held_out = load(tmp_path, "val")
    assert held_out.labels.tolist() == [0, 1] and held_out.class_names == ["a", "b"]
    (tmp_path / "classes.json").write_text('{"a": 0}')
    with pytest.raises(ValueError, match="classes.json"):
        load(tmp_path, "test")
    np.save(tmp_path / "test_labels.npy", [0, 1, 1])
    (tmp_path / "classes.json").unlink()
    with pytest.raises(ValueError, match=r"test_images.npy.*\(3,\)"):
        load(tmp_path, "test")


def test_arrays_take_the_shape_asked_for(tmp_path):
    np.save(tmp_path / "x.npy", random_images(3, 6, 8, 3))
    image_data = load(tmp_path / "x.npy", image_shape=[4, 4, 1])
    assert image_data.images.shape == (3, 4, 4, 1) and image_data.images.dtype == np.uint8
    assert isinstance(load(tmp_path / "x.npy", image_shape=(6, 8, 3)).images, np.memmap)


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ("", range(20)),
        ("[:]", range(20)),
        ("[:90%]", range(18)),
        ("[90%:]", range(18, 20)),
        ("[-3:]", range(17, 20)),
        ("[2:5]", range(2, 5)),
        ("[25%:-50%]", range(5, 10)),
        ("[-100%:20]", range(20)),
    ],
)
def test_slices(tmp_path, bounds, expected):
    np.savez(tmp_path / "x.npz", x_train=numbered(20).images, y_train=np.arange(20))
    image_data = load(tmp_path / "x.npz", f"train{bounds}")
    assert image_data.images[:, 0, 0, 0].tolist() == image_data.labels.tolist() == list(expected)


@pytest.mark.parametrize("kind", ["npz", "npy", "folder"])
def test_slices_of_a_source_without_splits_do_not_follow_its_order(tmp_path, kind):
    images, labels = numbered(40).images, np.repeat([0, 1], 20)  # Sorted by class.
    if kind == "npz":
        np.savez(source := tmp_path / "x.npz", images=images, labels=labels)
    elif kind == "npy":
        np.save(source := tmp_path / "x_images.npy", images)
        np.save(tmp_path / "x_labels.npy", labels)
    else:
        source = tmp_path / "pictures"
        for i, image in enumerate(images):
            write(source / f"{i:02}.png", image[..., 0])
    first, rest = load(source, "all[:75%]"), load(source, "all[75%:]")
    found = [part.images[:][:, 0, 0, 0].tolist() for part in (first, rest)]
    assert [len(part) for part in found] == [30, 10] and sorted(sum(found, [])) == list(range(40))
    for part, values in zip((first, rest), found, strict=True):
        assert values == sorted(values)  # In the source's own order.
        assert {value // 20 for value in values} == {0, 1}
        if kind != "folder":
            assert part.labels.tolist() == [value // 20 for value in values]
        np.testing.assert_array_equal(part.images[np.array([3, 1])][:, 0, 0, 0], [values[3], values[1]])
    assert load(source, "train[:75%]").images[:].tolist() == first.images[:].tolist()
    kept, held = first.split_off(4)
    assert held.images[:][:, 0, 0, 0].tolist() == found[0][-4:] and len(kept) == 26
    assert load(source).images[:][:, 0, 0, 0].tolist() == list(range(40))


@pytest.mark.parametrize("split", ["train[:21]", "train[5:5]", "train[:110%]", "train[", "a b", "", None, 3])
def test_wrong_slices(tmp_path, split):
    np.savez(tmp_path / "x.npz", images=numbered(20).images)
    with pytest.raises(ValueError, match=f"split must .*got .*{re.escape(str(split).removeprefix('train'))}"):
        load(tmp_path / "x.npz", split)


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
def test_damaged_arrays_name_the_file(tmp_path, name):
    path = tmp_path / name
    save = np.save if name == "x.npy" else np.savez
    save(path, **{"arr" if name == "x.npy" else "images": random_images(9, 8, 8, 3)})
    raw = path.read_bytes()
    for damaged in (b"", b"not an array", raw[:20], raw[:-50], raw[: len(raw) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=name):
            load(path)


def test_arrays_of_objects_and_foreign_keys_are_refused(tmp_path):
    np.save(tmp_path / "x.npy", np.array([{}, None]), allow_pickle=True)
    with pytest.raises(ValueError, match="x.npy"):
        load(tmp_path / "x.npy")
    np.savez(tmp_path / "x.npz", pictures=random_images(2, 4, 4))
    with pytest.raises(ValueError, match=r"x.npz.*must be images, or x_train and x_test, got \['pictures'\]"):
        load(tmp_path / "x.npz")


# Folders


@pytest.fixture
def class_folder(tmp_path):
    """40 images of each of two classes; the pixels of class 1 are brighter."""
    for label, name in enumerate(["cat", "dog"]):
        for i in range(40):
            write(tmp_path / "root" / name / f"{i:02}.png", random_images(6, 6, 3, seed=i) // 2 + 128 * label)
    return tmp_path / "root"


def test_class_folders_give_labels_and_class_names(class_folder):
    image_data = load(class_folder)
    assert (len(image_data), image_data.image_shape) == (80, (6, 6, 3))
    assert image_data.class_names == ["cat", "dog"]
    images = image_data.images[np.arange(80)]
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images.min(axis=(1, 2, 3)) >= 128, image_data.labels)
    np.testing.assert_array_equal(image_data.images[7], images[7])
    np.testing.assert_array_equal(image_data.images[70:], images[70:])


def test_slices_of_class_folders_are_disjoint_and_mix_the_classes(class_folder):
    first, rest = load(class_folder, "train[:25%]"), load(class_folder, "train[25%:]")
    assert not set(first.images.paths) & set(rest.images.paths)
    assert (len(first), len(rest)) == (20, 60)
    assert set(first.labels) == set(rest.labels) == {0, 1}


def test_split_folders_share_one_list_of_classes(tmp_path):
    for name in ("train/ant", "train/bee", "train/cow", "test/ant", "test/cow", "extra/yak"):
        write(tmp_path / name / "a.png", random_images(4, 4))
    assert load(tmp_path).class_names == ["ant", "bee", "cow"]
    held_out = load(tmp_path, "val")
    assert held_out.class_names == ["ant", "bee", "cow"] and sorted(held_out.labels) == [0, 2]
    with pytest.raises(ValueError, match="split must be one of test, train, got 'other'"):
        load(tmp_path, "other")


def test_a_class_may_be_named_like_a_split(tmp_path):
    for name in ("bus", "train", "val"):
        for i in range(3):
            write(tmp_path / name / f"{i}.png", random_images(4, 4))
    image_data = load(tmp_path)
    assert (len(image_data), image_data.class_names) == (9, ["bus", "train", "val"])
    (tmp_path / "bus").rename(tmp_path / "valid")
    assert len(load(tmp_path)) == 3 and load(tmp_path, "valid").split == "valid"
    for name in ("valid", "val"):
        (tmp_path / name).rename(tmp_path / name.title())
    with pytest.raises(ValueError, match="folders of splits must be in lower case, got Val, Valid, train"):
        load(tmp_path)
    for name in ("Valid", "Val"):
        (tmp_path / name).rename(tmp_path / name.lower())
    (tmp_path / "valid").rename(tmp_path / "bus")
    image_data = load(tmp_path)
    assert sorted(image_data.labels) == [0, 0, 0, 1, 1, 1, 2, 2, 2] and image_data.split == "all"


@pytest.mark.parametrize(
    "names",
    [
        ("train/ant/a.png", "val/ant/a.png", "bus/a.png"),
        ("train/a.png", "val/a.png", "notes/a.txt"),
        ("train/a.png", "bus/red/a.png"),
    ],
)
def test_neither_splits_nor_classes(tmp_path, names):
    for name in names:
        path = tmp_path / name
        if path.suffix == ".png":
            write(path, random_images(4, 4))
        else:
            path.parent.mkdir(parents=True)
            path.touch()
    with pytest.raises(
        ValueError, match="its folders must all be splits or all be classes, got .'train'.*bes"
    ):
        load(tmp_path)


def test_the_split_that_was_read_is_told(class_folder, tmp_path, capsys, tiny_tfds):
    for source, split, expected in (
        (class_folder, "train", "all"),
        (class_folder, "val[90%:]", "all[90%:]"),
        ("haim_tiny", "val[:50%]", "test[:50%]"),
    ):
        image_data = load(source, split, image_shape=(4, 4, 3))
        assert image_data.split == expected
        relabelled = image_data.with_labels(image_data.labels, None)
        assert image_data.split_off(1)[0].split == relabelled.split == expected
    for name in ("train", "validation"):
        (tmp_path / "splits" / name).mkdir(parents=True)
        write(tmp_path / "splits" / name / "a.png", random_images(4, 4))
        np.save(tmp_path / f"{name}_images.npy", random_images(2, 4, 4))
    np.savez(tmp_path / "x.npz", x_train=random_images(2, 4, 4), x_test=random_images(2, 4, 4))
    assert load(tmp_path / "splits", "test[:1]").split == load(tmp_path, "test[:1]").split == "validation[:1]"
    assert load(tmp_path / "x.npz", "val").split == "test"
    assert "\n" not in capsys.readouterr().err.replace("Reading", "")
    np.savez(tmp_path / "whole.npz", images=random_images(2, 4, 4))
    for source in (class_folder, tmp_path / "whole.npz", tmp_path / "train_images.npy"):
        assert load(source, "val").split == "all"
        said = capsys.readouterr().err.splitlines()[-1]
        assert f"{source} has no splits: 'val' is all of its" in said and "all[90%:]" in said


def test_all_of_a_class_folder_is_parted_the_same_way_each_time(class_folder):
    parts = [load(class_folder, split) for split in ("all[:90%]", "all[90%:]", "train[90%:]")]
    assert [len(part) for part in parts] == [72, 8, 8]
    assert parts[1].paths.tolist() == parts[2].paths.tolist()
    assert not {*parts[0].paths} & {*parts[1].paths}


def test_files_left_out_are_counted(class_folder, capsys):
    for name in ("a.gif", "b.tif", "c.TIF", "notes", ".hidden"):
        (class_folder / "cat" / name).touch()
    load(class_folder)
    said = capsys.readouterr().err
    assert said.count("80 images") == 1
    assert "and 4 other files that are left out: .TIF, .gif, .tif, notes" in said
    (class_folder / "only").mkdir()
    (class_folder / "only" / "a.gif").touch()
    with pytest.raises(ValueError, match="got none, and 1 other file that are left out: .gif"):
        load(class_folder / "only")


def test_every_image_of_a_class_lies_in_its_folder_and_no_class_is_empty(class_folder, capsys):
    (class_folder / "__MACOSX/cat").mkdir(parents=True)
    (class_folder / "__MACOSX/cat/._0.png").touch()
    assert load(class_folder).class_names == ["cat", "dog"]
    assert "folders without images are no classes: '__MACOSX'" in capsys.readouterr().err
    picture = next((class_folder / "cat").glob("*.png"))
    for folder in ("cat/more", "bird/first"):
        (class_folder / folder).mkdir(parents=True)
        shutil.copy(picture, class_folder / folder)
        with pytest.raises(ValueError, match=f"{folder[:3]}.*must lie in its folder itself, got images in"):
            load(class_folder)
        shutil.rmtree(class_folder / folder)


def test_an_accent_is_one_class_however_it_is_written(class_folder, tmp_path):
    picture = next((class_folder / "cat").glob("*.png"))
    for split, form in (("train", "NFC"), ("val", "NFD")):
        folder = tmp_path / "splits" / split / unicodedata.normalize(form, "café")
        folder.mkdir(parents=True)
        shutil.copy(picture, folder)
    names = [load(tmp_path / "splits", split).class_names for split in ("train", "val")]
    assert names == [["caf\xe9"]] * 2


def test_images_mapped_from_a_file_stay_there_when_mixed(tmp_path):
    np.save(tmp_path / "images.npy", np.arange(6, dtype="uint8").repeat(4).reshape(6, 2, 2, 1))
    mixed = load(tmp_path / "images.npy", "all").mixed()
    assert isinstance(mixed.images, Rows)
    assert sorted(mixed.images[np.arange(6)][:, 0, 0, 0]) == list(range(6))


def test_paths_say_which_image_is_which(class_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(class_folder)
    image_data = load(Path("."), "all[:5]")
    monkeypatch.chdir(tmp_path)
    assert image_data.images[np.arange(5)].shape == (5, 6, 6, 3)
    for path, image, label in zip(image_data.paths, image_data.images[:], image_data.labels, strict=True):
        assert Path(path).is_absolute() and Path(path).parent.name == image_data.class_names[label]
        np.testing.assert_array_equal(np.asarray(Image.open(path)), image)
    assert [len(part.paths) for part in image_data.split_off(2)] == [3, 2]
    assert ImageData(random_images(2, 4, 4)).paths is None


def test_class_names_that_are_no_utf_8_are_refused_at_load(tmp_path):
    write(tmp_path / "root" / "caf" / "a.png", random_images(4, 4))
    os.rename(tmp_path / "root" / "caf", os.fsencode(tmp_path / "root" / "caf") + b"\xe9")
    with pytest.raises(ValueError, match=r"root: class names must be UTF-8, got 'caf\\+udce9'"):
        load(tmp_path / "root")
    arrays = {"images": random_images(1, 4, 4), "labels": [0]}
    for wrong in ("caf\udce9", b"caf\xe9"):
        np.savez(tmp_path / "x.npz", **arrays, class_names=[wrong])
        with pytest.raises(ValueError, match="x.npz: class names must be UTF-8, got"):
            load(tmp_path / "x.npz")
    np.savez(tmp_path / "x.npz", **arrays, class_names=["café".encode()])
    assert load(tmp_path / "x.npz").class_names == ["café"]
    np.save(tmp_path / "a_images.npy", arrays["images"])
    np.save(tmp_path / "a_labels.npy", [0])
    (tmp_path / "classes.json").write_text('["caf\\udce9"]')
    with pytest.raises(ValueError, match="class names must be UTF-8, got"):
        load(tmp_path / "a_images.npy")


def test_a_folder_whose_name_is_no_utf_8_can_be_spoken_of(tmp_path):
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    write(folder / "a.png", random_images(4, 4))
    image_data = load(folder)
    assert image_data.images[0].shape == (4, 4, 1)
    image_data.name.encode()


def test_a_home_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "pictures" / "a.png", random_images(4, 4))
    assert len(load("~/pictures")) == 1
    with pytest.raises(ValueError, match="must be a path without ~, for there is no such home"):
        load("~nobody-is-called-so/pictures")


def test_flat_folder_reads_what_is_an_image_in_the_order_of_names(tmp_path):
    for i, suffix in enumerate(["png", "bmp", "PNG", "jpg", "jpeg", "webp"]):
        write(tmp_path / f"{i}.{suffix}", np.full((8, 8), 40 * i, "uint8"))
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / ".hidden.png").write_text("no image")
    image_data = load(tmp_path, "test")
    assert image_data.labels is None and image_data.class_names is None
    grey = image_data.images[np.arange(6)].mean(axis=(1, 2, 3))
    np.testing.assert_allclose(grey, 40 * np.arange(6), atol=2)


def test_channels_of_a_folder(tmp_path):
    write(tmp_path / "a.png", random_images(4, 4))
    assert load(tmp_path).image_shape == (4, 4, 1)
    rgba = random_images(4, 4, 4)
    write(tmp_path / "b.png", rgba)
    mixed = load(tmp_path)
    assert mixed.image_shape == (4, 4, 3)
    np.testing.assert_array_equal(mixed.images[1], rgba[..., :3])
    np.testing.assert_array_equal(np.ptp(mixed.images[0], axis=-1), 0)
    grey = load(tmp_path, image_shape=(4, 4, 1)).images[1][..., 0]
    np.testing.assert_array_equal(grey, np.asarray(Image.fromarray(rgba[..., :3]).convert("L")))


def test_images_are_cropped_around_the_centre_and_then_shrunk(tmp_path):
    image = np.zeros((8, 24, 3), "uint8")
    image[:, :8], image[:, 8:16], image[:, 16:] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    write(tmp_path / "wide.png", image)
    write(tmp_path / "tall.png", image.transpose(1, 0, 2))
    shrunk = load(tmp_path, image_shape=(4, 4, 3)).images[np.arange(2)]
    # The filter also sees a little of what lies beside the crop.
    np.testing.assert_allclose(shrunk, np.broadcast_to([0, 255, 0], (2, 4, 4, 3)), atol=20)


def test_shrinking_averages_fine_detail(tmp_path):
    checks = np.indices((32, 32)).sum(0) % 2 * 255
    write(tmp_path / "a.png", checks.astype("uint8"))
    inner = load(tmp_path, image_shape=(8, 8, 1)).images[0][2:-2, 2:-2]
    np.testing.assert_allclose(inner, 127.5, atol=8)


def test_sizes_that_differ_name_two_files(tmp_path):
    write(tmp_path / "a.png", random_images(4, 6))
    write(tmp_path / "b.png", random_images(4, 6))
    write(tmp_path / "c.png", random_images(6, 4))
    with pytest.raises(ValueError, match=r"image_shape.*got .*\(6, 4\) of .*a.png and \(4, 6\) of .*c.png"):
        load(tmp_path)
    assert load(tmp_path, image_shape=(4, 4, 1)).images[np.arange(3)].shape == (3, 4, 4, 1)


def test_files_that_are_no_images_are_found_at_once(tmp_path):
    write(tmp_path / "a.png", random_images(4, 4))
    (tmp_path / "b.png").write_text("no image")
    with pytest.raises(ValueError, match="b.png"):
        load(tmp_path)
    write(tmp_path / "b.png", random_images(4, 4).astype("uint16") * 200)
    with pytest.raises(ValueError, match="b.png.*8-bit"):
        load(tmp_path)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_more_than_8_bits_are_refused_though_pillow_reads_them_as_8(tmp_path, channels):
    array = np.random.default_rng(0).integers(0, 1 << 16, (4, 4, channels)).astype("uint16")
    path = write_deep(tmp_path / "b.png", array)
    with pytest.raises(ValueError, match="b.png must be an 8-bit image, got 16 bits per channel"):
        load(tmp_path, image_shape=(4, 4, 3))
    with pytest.raises(ValueError, match="b.png must be an image of .*, got 16 bits per channel"):
        read_image(path, 3 if channels > 2 else 1)


def save_exact(path):
    """Files of 4 x 4 pixels, of every kind that comes back exactly."""
    image = random_images(4, 4, 3)
    palette = Image.fromarray(image).quantize(8)
    for name, picture in {"rgb": Image.fromarray(image), "palette": palette}.items():
        for suffix in ("png", "bmp", "tif"):
            picture.save(path / f"{name}.{suffix}")
            yield path / f"{name}.{suffix}", np.asarray(picture.convert("RGB"))
    for suffix in ("ppm", "tga"):
        Image.fromarray(image).save(path / f"rgb.{suffix}")
        yield path / f"rgb.{suffix}", image
    Image.fromarray(image).save(path / "rgb.webp", lossless=True)
    yield path / "rgb.webp", image
    Image.fromarray(image[..., 0]).save(path / "grey.png")
    yield path / "grey.png", image[..., :1]


def test_what_comes_back_exactly_is_read(tmp_path):
    for path, expected in save_exact(tmp_path):
        np.testing.assert_array_equal(read_image(path, expected.shape[-1]), expected)


def save_inexact(path):
    """Files that a uint8 array of 1 or 3 channels would not give back, with what is said of them."""
    image = Image.fromarray(random_images(4, 4, 3))
    palette, grey = image.quantize(8), image.convert("L")
    palette.save(path / "palette.png", transparency=0)
    grey.save(path / "grey.png", transparency=7)
    image.save(path / "rgb.png", transparency=(1, 2, 3))
    for name in ("palette", "grey", "rgb"):
        yield path / f"{name}.png", "transparency"
    others = [Image.fromarray(random_images(4, 4, 3, seed=i)) for i in (1, 2)]
    for suffix in ("gif", "png", "webp", "tif"):
        image.save(path / f"moves.{suffix}", save_all=True, append_images=others)
        yield path / f"moves.{suffix}", "3 pictures in one file"
    image.convert("RGBA").save(path / "alpha.png")
    yield path / "alpha.png", "mode RGBA"
    image.convert("CMYK").save(path / "cmyk.jpg")
    yield path / "cmyk.jpg", "mode CMYK"
    grey.convert("1").save(path / "bits.png")
    yield path / "bits.png", "mode 1"
    image.save(path / "rgb.avif")
    yield path / "rgb.avif", "the format AVIF"
    image.save(path / "rgb.jp2")
    yield path / "rgb.jp2", "the format JPEG2000"
    for name, mode in (("f.tif", "F"), ("i.tif", "I;16")):
        Image.new(mode, (4, 4)).save(path / name)
        yield path / name, "32 bits" if mode == "F" else "16 bits"
    (path / "deep.ppm").write_bytes(b"P6\n4 4\n65535\n" + bytes(96))
    yield path / "deep.ppm", "16 bits"


def test_what_would_not_come_back_exactly_is_refused(tmp_path):
    for path, message in save_inexact(tmp_path):
        for channels in (1, 3):
            with pytest.raises(ValueError, match=f"{path.name} must be an image of .*, got .*{message}"):
                read_image(path, channels)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp"])
@pytest.mark.parametrize("kept", [0.3, 0.66, 0.98])
def test_files_that_are_cut_off_are_found_at_once(tmp_path, suffix, kept):
    write(tmp_path / "a.png", random_images(64, 64, 3))
    path = write(tmp_path / f"b.{suffix}", random_images(64, 64, 3))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    with pytest.raises(ValueError, match=f"cannot read .*b.{suffix} as an image: "):
        load(tmp_path)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_what_follows_a_whole_picture_does_no_harm(tmp_path, suffix):
    path = write(tmp_path / f"a.{suffix}", random_images(8, 8, 3))
    expected = load(tmp_path).images[:]
    path.write_bytes(path.read_bytes() + b"and a film")
    np.testing.assert_array_equal(load(tmp_path).images[:], expected)


def test_what_can_be_read_from_its_end_on_but_not_decoded_is_found_on_access(tmp_path):
    path = write(tmp_path / "a.png", random_images(64, 64, 3))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    found = load(tmp_path)
    with pytest.raises(ValueError, match="cannot read .*a.png as an image: "):
        found.images[:]


def test_pipes_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    for read in (lambda: load(tmp_path), lambda: read_image(tmp_path / "a.png", 3)):
        with pytest.raises(ValueError, match="cannot read .*a.png as an image: it is no regular file"):
            read()
    os.mkfifo(tmp_path / "x_images.npy")
    with pytest.raises(ValueError, match="cannot read .*x_images.npy as an .npy file: it is no regular file"):
        load(tmp_path / "x_images.npy")


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_a_picture_that_is_shown_turned_is_not_read_as_it_lies(tmp_path, suffix):
    image = random_images(4, 6, 3)
    for orientation in (*range(10), None):
        exif = Image.Exif()
        if orientation is not None:
            exif[0x0112] = orientation
        path = write(tmp_path / f"a.{suffix}", image, exif=exif, lossless=True)
        if orientation in range(2, 9):
            with pytest.raises(ValueError, match=f"must be an image .*, got EXIF orientation {orientation}"):
                read_image(path, 3)
        elif suffix == "jpg":
            assert read_image(path, 3).shape == (4, 6, 3)
        else:
            np.testing.assert_array_equal(read_image(path, 3), image)


def test_tiff_files_are_read_as_they_are_shown(tmp_path):
    image = random_images(4, 6, 3)
    path = write(tmp_path / "a.tif", image, tiffinfo={274: 6})  # Shown turned clockwise by a quarter.
    np.testing.assert_array_equal(read_image(path, 3), np.rot90(image, -1))


def test_folders_without_images(tmp_path):
    with pytest.raises(ValueError, match="must hold images .*png.*got none"):
        load(tmp_path)
    (tmp_path / "cat").mkdir()
    with pytest.raises(ValueError, match="must hold images .*got none"):
        load(tmp_path)
    write(tmp_path / "a.png", random_images(4, 4))
    assert load(tmp_path).class_names is None
    write(tmp_path / "cat/a.png", random_images(4, 4))
    with pytest.raises(ValueError, match="must hold images or folders of them, got both"):
        load(tmp_path)


@contextlib.contextmanager
def without_rights():
    """As another user, where root runs the tests: root may read everything."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_what_may_not_be_read_or_written():
    # tmp_path lies in a folder that only its owner enters.
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        folder.chmod(0o755)
        write(folder / "open" / "a.png", random_images(4, 4))
        write(folder / "closed" / "a.png", random_images(4, 4))
        np.savez(folder / "x.npz", images=random_images(2, 4, 4))
        (folder / "open" / "a.png").chmod(0)
        (folder / "x.npz").chmod(0)
        (folder / "closed").chmod(0)
        try:
            with without_rights():
                for source in ("open", "closed", "x.npz"):
                    with pytest.raises(ValueError, match=f"{source}.*[Pp]ermission denied"):
                        load(folder / source)
                if os.getuid() == 0:
                    for sheet in ("sheet.png", "closed/sheet.png"):
                        with pytest.raises(ValueError, match=f"{sheet}.*[Pp]ermission"):
                            save_grid(random_images(2, 4, 4, 1), folder / sheet)
                    with pytest.raises(ValueError, match="sheet.png.*Permission denied"):
                        files.check_new_file(folder / "closed" / "sheet.png")
        finally:
            (folder / "closed").chmod(0o755)


# TFDS


@pytest.mark.parametrize(
    ("name", "shape", "classes"),
    [
        ("fashion_mnist", (28, 28, 1), 10),
        ("cifar10", (32, 32, 3), 10),
        ("imagenet_resized/64x64", (64, 64, 3), 1000),
    ],
)
def test_tfds_names(name, shape, classes):
    tfds = pytest.importorskip("tensorflow_datasets")
    with tfds.testing.mock_data(num_examples=5):
        image_data = load(name, "train[:90%]")
        small = load(name, "val", image_shape=(16, 16, 1))
    assert (len(image_data), image_data.image_shape, image_data.name) == (5, shape, name)
    assert image_data.images.dtype == np.uint8 and image_data.labels.dtype == np.int32
    assert len(image_data.class_names) == classes
    assert small.images.shape == (5, 16, 16, 1)


@pytest.fixture(scope="module")
def tiny_tfds(tmp_path_factory):
    """A real TFDS data set on disk: 10 images for training, 4 for testing, in two classes."""
    tf, tfds = pytest.importorskip("tensorflow"), pytest.importorskip("tensorflow_datasets")
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(4, None, 3)),
            "label": tfds.features.ClassLabel(names=["a", "b"]),
        }
    )

    def examples(count, width):
        images = [np.full((4, width(i), 3), i, "uint8") for i in range(count)]
        return tf.data.Dataset.from_generator(
            lambda: ({"image": image, "label": i % 2} for i, image in enumerate(images)),
            output_signature={
                "image": tf.TensorSpec((4, None, 3), tf.uint8),
                "label": tf.TensorSpec((), tf.int64),
            },
        )

    folder = tmp_path_factory.mktemp("tfds")
    tfds.dataset_builders.store_as_tfds_dataset(
        name="haim_tiny",
        version="1.0.0",
        features=features,
        split_datasets={"train": examples(10, lambda i: 4), "test": examples(4, lambda i: 4 + i)},
        data_dir=folder,
        disable_shuffling=True,
    )
    tfds.core.add_data_dir(folder)
    return folder / "haim_tiny" / "1.0.0"


def test_tfds_splits(tiny_tfds):
    for split, expected in {
        "train": range(10),
        "train[:90%]": range(9),
        "train[-3:]": range(7, 10),
        "train[:1]+train[9:]": (0, 9),
    }.items():
        image_data = load("haim_tiny", split)
        assert image_data.images[:, 0, 0, 0].tolist() == list(expected)
        assert image_data.labels.tolist() == [i % 2 for i in expected]
    assert image_data.class_names == ["a", "b"]
    assert len(load("haim_tiny", "val[:50%]", image_shape=(4, 4, 3))) == 2
    for split in ("other", "train[5:50]", "train["):
        with pytest.raises(ValueError, match="haim_tiny: split must be one of test, train.*, got") as caught:
            load("haim_tiny", split)
        assert repr(split) in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="split must be a name.*, got None"):
        load("haim_tiny", None)
    with pytest.raises(ValueError, match="haim_tiny: images must be of one size.*image_shape"):
        load("haim_tiny", "test")


def test_damaged_tfds_files(tiny_tfds):
    (records,) = tiny_tfds.glob("*-train.tfrecord*")
    raw = records.read_bytes()
    try:
        for damaged in (raw[: len(raw) // 2], bytes(len(raw))):
            records.write_bytes(damaged)
            with pytest.raises(ValueError, match="haim_tiny.*damaged"):
                load("haim_tiny")
    finally:
        records.write_bytes(raw)


def test_a_failing_download_is_a_missing_file(monkeypatch, tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")

    def fail(self):
        raise ConnectionError("no network\nat all")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", fail)
    with pytest.raises(FileNotFoundError, match="fashion_mnist.*no network at all"):
        load("fashion_mnist")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fashion_mnst", "did you mean 'fashion_mnist'"),
        ("imagenet_resized/63x63", "64x64"),
        ("two words", "source must be a folder of images.*, got 'two words'"),
        ("glue", "'image'"),
    ],
)
def test_unknown_tfds_names(name, message):
    pytest.importorskip("tensorflow_datasets")
    with pytest.raises(ValueError, match=message) as caught:
        load(name)
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_missing_and_foreign_sources(tmp_path):
    for source in (
        tmp_path / "none",
        str(tmp_path / "none"),
        "./none",
        "none.npy",
        "a/none.npz",
        "~/none-such",
    ):
        with pytest.raises(
            FileNotFoundError, match="there is no file or folder .*none.*: source must be a folder"
        ):
            load(source)
    (tmp_path / "x.txt").write_text("text")
    with pytest.raises(ValueError, match="source must be a folder.*, got the file .*x.txt"):
        load(tmp_path / "x.txt")
    with pytest.raises(ValueError, match="source must be a folder.*, got ndarray"):
        load(np.zeros((2, 4, 4)))


@pytest.mark.parametrize("shape", [(8, 8), 8, (8, 8, 2), (0, 8, 1), (8.0, 8, 1), (8, 8, True), "8x8"])
def test_wrong_image_shapes(tmp_path, shape):
    np.save(tmp_path / "x.npy", random_images(2, 4, 4))
    with pytest.raises(ValueError, match="image_shape must be .*, got"):
        load(tmp_path / "x.npy", image_shape=shape)


# Batches


def labels_of(batches, count):
    return np.concatenate([batches[i][1] for i in range(count)])


def test_each_image_once_an_epoch_in_full_batches_and_a_new_order():
    order = labels_of(Batches(numbered(23), 5, seed=3), 23).reshape(5, 23)  # 23 batches of 5: 5 epochs.
    np.testing.assert_array_equal(np.sort(order), np.broadcast_to(np.arange(23), (5, 23)))
    assert len({tuple(epoch) for epoch in order}) == 5
    images, labels = Batches(numbered(23), 5, seed=3)[4]
    assert images.shape == (5, 4, 4, 1) and images.dtype == np.uint8 and labels.dtype == np.int32
    np.testing.assert_array_equal(images[:, 0, 0, 0], labels)


def test_batches_larger_than_the_data():
    order = labels_of(Batches(numbered(3), 7, seed=1), 3).reshape(7, 3)
    np.testing.assert_array_equal(np.sort(order), np.broadcast_to(np.arange(3), (7, 3)))


def test_seeds_differ_and_batches_do_not_depend_on_what_was_read_before():
    batches = Batches(numbered(23), 5, seed=3, flip=True)
    backwards = [batches[i] for i in reversed(range(20))][::-1]
    for i, (images, labels) in enumerate(backwards):
        again = Batches(numbered(23), 5, seed=3, flip=True)[i]
        np.testing.assert_array_equal(images, again[0])
        np.testing.assert_array_equal(labels, again[1])
    assert not np.array_equal(labels_of(batches, 4), labels_of(Batches(numbered(23), 5, seed=4), 4))


@pytest.mark.parametrize("start", [1, 7, 50])
def test_a_resumed_run_sees_what_an_uninterrupted_one_sees(start):
    image_data = ImageData(random_images(23, 4, 6, 3), np.arange(23))
    whole = Batches(image_data, 5, seed=3, flip=True)
    resumed = Batches(image_data, 5, seed=3, flip=True, start_step=start)
    for i in range(10):
        for expected, actual in zip(whole[start + i], resumed[i], strict=True):
            np.testing.assert_array_equal(expected, actual)


def test_flips_mirror_about_half_of_the_images_and_leave_the_data_alone():
    image_data = ImageData(random_images(20, 4, 6, 3), np.arange(20))
    before = image_data.images.copy()
    flipped = 0
    for i in range(20):
        images, labels = Batches(image_data, 10, flip=True)[i]
        for image, label in zip(images, labels, strict=True):
            mirrored = np.array_equal(image, before[label][:, ::-1])
            assert mirrored or np.array_equal(image, before[label])
            flipped += mirrored
    assert 70 < flipped < 130
    np.testing.assert_array_equal(image_data.images, before)


@pytest.mark.parametrize("flip", [False, True])
def test_turns_give_all_symmetries_alike_with_their_own_codes(flip):
    images = random_images(7, 8, 8, 3)
    count = num_symmetries(flip, True)
    ways = np.stack([transformed(images, number, flip) for number in range(count)])
    assert len({way.tobytes() for way in ways}) == count == (8 if flip else 4)
    np.testing.assert_array_equal(ways[0], images)
    batches = Batches(ImageData(images.copy()), 10, flip=flip, turns=True, codes=[ways[:, :, ::4, ::4, 0]])
    seen = np.zeros(count, int)
    for i in range(80):
        for image, codes in zip(batches[i]["images"], batches[i]["codes"][0], strict=True):
            ((number, _),) = np.argwhere((ways == image).all(axis=(2, 3, 4)))
            np.testing.assert_array_equal(codes, image[::4, ::4, 0])
            seen[number] += 1
    assert seen.sum() == 800 and np.abs(seen - 800 / count).max() < 4 * np.sqrt(800 / count)
    np.testing.assert_array_equal(batches.data.images, images)


def test_flips_alone_are_drawn_as_ever():
    image_data = ImageData(random_images(20, 4, 6, 1))
    images = Batches(image_data, 16, flip=True, seed=3, shuffle=False)[2]
    mirrored = np.random.default_rng((3, 1, 2)).random(16) < 0.5
    chosen = image_data.images[np.arange(32, 48) % 20]
    np.testing.assert_array_equal(images, np.where(mirrored[:, None, None, None], chosen[:, :, ::-1], chosen))


def test_turns_are_for_square_images():
    with pytest.raises(ValueError, match="turns must be false unless images are square, got 4x6"):
        Batches(ImageData(random_images(5, 4, 6, 1)), 2, turns=True)


def unbalanced():
    """100 images of three classes, 80, 16 and 4, that are their own index."""
    images = np.broadcast_to(np.arange(100, dtype="uint8")[:, None, None, None], (100, 4, 4, 1))
    return ImageData(images.copy(), np.repeat([0, 1, 2], [80, 16, 4]))


@pytest.mark.parametrize("balance", [0.5, 1.0])
def test_balance_draws_classes_by_a_power_of_their_size(balance):
    batches = Batches(unbalanced(), 100, seed=5, balance=balance)
    expected = np.array([80, 16, 4]) ** (1 - balance)
    expected *= 100 / expected.sum()
    drawn = np.zeros(100)
    for i in range(30):  # A batch an epoch.
        images, labels = batches[i]
        found = np.bincount(labels, minlength=3)
        assert np.abs(found - expected).max() < 1
        times = np.bincount(images[:, 0, 0, 0], minlength=100)
        each = (expected / [80, 16, 4])[np.repeat([0, 1, 2], [80, 16, 4])]
        assert (times >= np.floor(each)).all() and (times <= np.ceil(each)).all()
        drawn += times
    assert np.abs(drawn[80:96] - drawn[80:96].mean()).max() < 15 and (drawn > 0).all()


def test_no_balance_is_each_image_once_an_epoch():
    labels = labels_of(Batches(unbalanced(), 25, seed=5, balance=0), 4)
    np.testing.assert_array_equal(np.bincount(labels), [80, 16, 4])


def test_balanced_batches_resume_and_are_shared_among_replicas():
    whole = Batches(unbalanced(), 12, seed=5, balance=0.7, flip=True, turns=True)
    resumed = Batches(unbalanced(), 12, seed=5, balance=0.7, flip=True, turns=True, start_step=9)
    parts = [whole.part(i, 3) for i in range(3)]
    for i in range(12):
        for number in range(2):
            np.testing.assert_array_equal(whole[9 + i][number], resumed[i][number])
            shared = np.concatenate([part[i][number] for part in parts])
            np.testing.assert_array_equal(whole[i][number], shared)
    assert not np.array_equal(whole[0][0], Batches(unbalanced(), 12, seed=6, balance=0.7)[0][0])


@pytest.mark.parametrize(
    "data, options, message",
    [
        (numbered(4), {"balance": 1.5}, "balance must be a number of at least 0 and at most 1, got 1.5"),
        (numbered(4), {"balance": 1, "shuffle": False}, "shuffle must be True where there is balance"),
        (ImageData(random_images(4, 4, 4)), {"balance": 1}, "balance must be 0 unless images have labels"),
    ],
)
def test_wrong_balance(data, options, message):
    with pytest.raises(ValueError, match=message):
        Batches(data, 2, **options)


@pytest.mark.parametrize("steps, cardinality", [(3, 3), (None, -1)])
def test_batches_read_ahead_are_the_same_in_their_order(steps, cardinality):
    images = random_images(9, 8, 8, 1)
    codes = [np.stack([images, images[:, :, ::-1]])[:, :, ::2, ::2, 0]]
    batches = Batches(ImageData(images, np.arange(9)), 4, flip=True, codes=codes, crop=4, steps=steps)
    ahead = prefetched(batches)
    assert ahead.cardinality().numpy() == cardinality and not ahead.options().autotune.enabled
    for i, batch in enumerate(ahead.take(3)):
        keras.tree.map_structure(np.testing.assert_array_equal, batch, batches[i])
    assert i == 2 and ahead.element_spec[1].shape == (None,)


def test_crops_come_with_whole_codes_and_their_place():
    images = random_images(9, 8, 12, 1)
    # Codes that say what they stand for: a cell's upper left pixel, of the image and of its mirror image.
    sides = np.stack([images, images[:, :, ::-1]])[..., 0]
    codes = [sides[:, :, ::2, ::2], sides[:, :, ::4, ::4]]
    batches = Batches(ImageData(images), 6, flip=True, codes=codes, crop=4)
    corners = set()
    for i in range(12):
        batch = batches[i]
        assert batch["images"].shape == (6, 4, 4, 1) and batch["images"].dtype == np.uint8
        assert [c.shape for c in batch["codes"]] == [(6, 4, 6), (6, 2, 3)]
        assert batch["corner"].shape == (6, 2) and batch["corner"].dtype == np.int32
        crops = zip(batch["images"][..., 0], batch["corner"], *batch["codes"], strict=True)
        for crop, (y, x), fine, coarse in crops:
            np.testing.assert_array_equal(fine[y // 2 : y // 2 + 2, x // 2 : x // 2 + 2], crop[::2, ::2])
            np.testing.assert_array_equal(coarse[y // 4 : y // 4 + 1, x // 4 : x // 4 + 1], crop[::4, ::4])
            corners.add((int(y), int(x)))
    assert corners == {(y, x) for y in range(0, 8, 4) for x in range(0, 12, 4)}
    whole = Batches(ImageData(images), 6, flip=True, codes=codes)[0]
    np.testing.assert_array_equal(whole["codes"][1], whole["images"][:, ::4, ::4, 0])


@pytest.mark.parametrize("crop", [0, 2, 6, 12, 4.0])
def test_bad_crops(crop):
    codes = [np.zeros((1, 5, 2, 3), "uint8")]
    with pytest.raises(ValueError, match="crop must be"):
        Batches(ImageData(random_images(5, 8, 12)), 2, codes=codes, crop=crop)


def test_batches_without_shuffling_with_an_end_and_without_labels():
    batches = list(Batches(numbered(10), 4, shuffle=False, steps=3, labels=False))
    assert [b[:, 0, 0, 0].tolist() for b in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 0, 1]]
    assert Batches(numbered(10), 4, steps=3).num_batches == 3
    assert Batches(numbered(10), 4).num_batches is None
    assert Batches(ImageData(random_images(5, 4, 4)), 2)[0].shape == (2, 4, 4, 1)
    for index in (-1, 3):
        with pytest.raises(IndexError):
            Batches(numbered(10), 4, steps=3)[index]


def test_batches_of_files_and_of_mapped_arrays(class_folder, tmp_path):
    images, labels = Batches(load(class_folder, image_shape=(4, 4, 1)), 8, flip=True)[0]
    assert images.shape == (8, 4, 4, 1) and labels.shape == (8,)
    np.save(tmp_path / "x.npy", numbered(9).images)
    batch = Batches(load(tmp_path / "x.npy"), 9, flip=True)[0]
    assert type(batch) is np.ndarray and sorted(batch[:, 0, 0, 0]) == list(range(9))


@pytest.mark.parametrize(
    "wrong",
    [
        {"data": random_images(4, 4, 4)},
        {"batch_size": 0},
        {"batch_size": 2.0},
        {"seed": -1},
        {"start_step": -1},
        {"steps": 0},
    ],
)
def test_wrong_arguments_of_batches(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be .*, got"):
        Batches(**{"data": numbered(4), "batch_size": 2, **wrong})


def test_numpy_integers_are_accepted_everywhere(tmp_path):
    two, four = np.int64(2), np.int32(4)
    np.save(tmp_path / "x.npy", numbered(8).images)
    image_data = load(tmp_path / "x.npy", image_shape=np.array([4, 4, 1]))
    assert (
        image_data.image_shape == load(tmp_path / "x.npy", image_shape=(four, four, np.uint8(1))).image_shape
    )
    batches = Batches(image_data, two, seed=two, start_step=two, steps=two, crop=two)
    np.testing.assert_array_equal(
        batches[0]["images"], Batches(image_data, 2, seed=2, start_step=2, steps=2, crop=2)[0]["images"]
    )
    assert {type(n) for n in (batches.batch_size, batches.seed, batches.steps, batches.crop)} == {int}
    assert [len(images) for images, _ in in_order(image_data, four)] == [4, 4]
    assert [len(part) for part in image_data.split_off(two)] == [6, 2]
    save_grid(image_data.images, tmp_path / "sheet.png", columns=two)
    assert Image.open(tmp_path / "sheet.png").size == (10, 22)


@pytest.mark.parametrize("count", [0, 4, -1, 2.0])
def test_wrong_counts_to_split_off(count):
    with pytest.raises(ValueError, match=r"count to split off must be an integer in 1\.\.3, got"):
        numbered(4).split_off(count)


@keras.saving.register_keras_serializable("haim_tf_tests")
class Recorder(keras.Model):
    """Writes down the labels that each training step sees."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seen = []

    def train_step(self, batch):
        images, labels = batch
        self.seen.append(keras.ops.convert_to_numpy(labels))
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(images)[:, 0, 0, 0], self.seen[-1])
        return {"loss": 0.0}


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="overrides TensorFlow's train_step")
def test_fit_takes_the_batches_in_order_across_epochs_and_after_a_restart():
    batches = Batches(numbered(23), 5, seed=3)
    assert batches.workers == 1
    expected = [batches[i][1].tolist() for i in range(12)]
    runs = []
    for start, epochs in ((0, 4), (6, 2)):
        model = Recorder()
        model.compile(run_eagerly=True)
        model.fit(
            Batches(numbered(23), 5, seed=3, start_step=start),
            steps_per_epoch=3,
            epochs=epochs,
            shuffle=False,
            verbose=0,
        )
        runs.append([labels.tolist() for labels in model.seen])
    assert runs == [expected, expected[6:]]


def test_in_order():
    parts = list(in_order(numbered(10), 4))
    assert [labels.tolist() for _, labels in parts] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert all(np.array_equal(images[:, 0, 0, 0], labels) for images, labels in parts)
    assert [labels for _, labels in in_order(ImageData(random_images(3, 4, 4)), 2)] == [None, None]
    with pytest.raises(ValueError, match="batch_size"):
        in_order(numbered(3), 0)


# save_grid


@pytest.mark.parametrize("channels", [1, 3])
def test_grid_places_images_row_by_row(tmp_path, channels):
    images = random_images(5, 4, 6, channels)
    save_grid(images, tmp_path / "sheet.png", columns=3)
    sheet = np.asarray(Image.open(tmp_path / "sheet.png")).reshape(10, 22, channels)
    np.testing.assert_array_equal(sheet[:4, 8:14], images[1])
    np.testing.assert_array_equal(sheet[6:, :6], images[3])
    assert (sheet[4:6] == 255).all() and (sheet[6:, 14:] == 255).all()
    assert os.listdir(tmp_path) == ["sheet.png"]


def test_grid_is_about_square_and_replaces_a_file(tmp_path):
    for count in (2, 9):
        save_grid(random_images(count, 4, 4, 1), tmp_path / "sheet.png")
    assert Image.open(tmp_path / "sheet.png").size == (16, 16)


def test_grid_has_full_rows_where_it_may(tmp_path):
    for count, size in ((10, (28, 10)), (7, (16, 16)), (32, (46, 22))):
        save_grid(random_images(count, 4, 4, 1), tmp_path / "sheet.png")
        assert Image.open(tmp_path / "sheet.png").size == size


@pytest.mark.parametrize("channels", [1, 3])
def test_grid_with_captions_and_larger_pixels(tmp_path, channels):
    images = random_images(6, 8, 10, channels)
    for captions, lines in ((["one", "two", "three"], [True, False]), (list("abcdef"), [True, True])):
        save_grid(images, tmp_path / "sheet.png", columns=3, captions=captions, scale=4)
        sheet = np.asarray(Image.open(tmp_path / "sheet.png")).reshape(-1, 124, channels)
        top = 0
        for row, line in enumerate(lines):
            if line:
                written = [(sheet[top : top + 15, 42 * i : 42 * i + 40] < 128).any() for i in range(3)]
                assert written == [True] * 3
                top += 15
            for column in range(3):
                tile = sheet[top : top + 32, 42 * column : 42 * column + 40]
                np.testing.assert_array_equal(tile[::4, ::4], images[3 * row + column])
                np.testing.assert_array_equal(tile[3::4, 3::4], images[3 * row + column])
            top += 34
        assert len(sheet) == top - 2


def test_long_captions_are_cut(tmp_path):
    image = random_images(2, 40, 40, 1)
    sheets = []
    for caption in ("a name that is much too long", "a name that is much too long as well"):
        save_grid(image, tmp_path / "sheet.png", columns=2, captions=[caption, ""])
        sheets.append(np.asarray(Image.open(tmp_path / "sheet.png")))
    assert (sheets[0] == sheets[1]).all() and (sheets[0][:15, 40:] == 255).all()


def test_wrong_grids_leave_nothing_behind(tmp_path, monkeypatch):
    images = random_images(2, 4, 4, 1)
    for wrong in (images.astype("float32"), images[0], images[:0], random_images(2, 4, 4, 2)):
        with pytest.raises(ValueError, match="uint8"):
            save_grid(wrong, tmp_path / "sheet.png")
    with pytest.raises(ValueError, match="columns"):
        save_grid(images, tmp_path / "sheet.png", columns=0)
    with pytest.raises(ValueError, match="captions must be 1, one a column, or 2, one an image, got 3"):
        save_grid(images, tmp_path / "sheet.png", columns=1, captions=["a", "b", "c"])
    with pytest.raises(ValueError, match="scale"):
        save_grid(images, tmp_path / "sheet.png", scale=0)
    with pytest.raises(ValueError, match=".png"):
        save_grid(images, tmp_path / "sheet.jpg")
    with pytest.raises(FileNotFoundError, match="none"):
        save_grid(images, tmp_path / "none" / "sheet.png")
    save_grid(images, tmp_path / "sheet.png")
    before = (tmp_path / "sheet.png").read_bytes()

    def fail(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(data.grid.os, "replace", fail)
    with pytest.raises(ValueError, match="sheet.png: No space left"):
        save_grid(images, tmp_path / "sheet.png")
    assert os.listdir(tmp_path) == ["sheet.png"] and (tmp_path / "sheet.png").read_bytes() == before


def test_a_sheet_larger_than_memory_is_one_error(tmp_path):
    with pytest.raises(ValueError, match="the sheet must fit in memory: scale must be smaller, got 1000000"):
        save_grid(random_images(2, 4, 4, 1), tmp_path / "sheet.png", scale=10**6)
    assert os.listdir(tmp_path) == []


# Without TensorFlow


def test_arrays_folders_and_batches_work_without_tensorflow(tmp_path):
    np.savez(tmp_path / "x.npz", images=random_images(6, 4, 4), labels=range(6))
    write(tmp_path / "folder" / "a.png", random_images(4, 4))
    script = """
import sys
import keras
sys.modules["tensorflow"] = sys.modules["tensorflow_datasets"] = None
from haim_tf import data, files
assert data.Batches(data.load("x.npz"), 4)[0][0].shape == (4, 4, 4, 1)
assert data.Batches(data.load("folder"), 4)[0].shape == (4, 4, 4, 1)
try:
    data.load("cifar10")
except ValueError as error:
    print(error)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "cifar10" in done.stdout and "needs tensorflow" in done.stdout
