"""`haim_tf encode` and `haim_tf reconstruct`."""

import numpy as np
import pytest
from PIL import Image

import haim_tf


@pytest.fixture
def images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (7, 16, 16, 3), "uint8")
    np.savez("data.npz", x_train=images, y_train=np.arange(7), x_test=images[::-1])
    return images


def test_encode(run, images):
    code, output, errors = run("encode", "--model=debug", "--data=data.npz", "--num=5", "--batch_size=3")
    said = "data.npz has no class names: labels stand for each other by their numbers\n"
    assert (code, errors) == (0, said)
    assert "codes of 5 images in codes.npz: codes_1 (5, 8, 8), codes_2 (5, 4, 4)" in output
    with np.load("codes.npz") as arrays:
        assert set(arrays) == {"codes_1", "codes_2", "labels", "class_names"}
        assert arrays["labels"].tolist() == [0, 1, 2, 3, 4]
        for found, expected in zip(
            (arrays["codes_1"], arrays["codes_2"]), haim_tf.load("debug").encode(images[:5]), strict=True
        ):
            assert found.dtype == np.int32
            np.testing.assert_array_equal(found, expected)
    code, _, errors = run("encode", "--model=debug", "--data=data.npz")
    assert code == 2 and "codes.npz exists" in errors
    code, output, _ = run("encode", "--model=debug", "--data=data.npz", "--split=test", "--output=test.npz")
    assert code == 0
    with np.load("test.npz") as arrays:
        assert set(arrays) == {"codes_1", "codes_2"} and len(arrays["codes_1"]) == 7


def test_encode_tells_which_file_has_which_codes(run, images, tmp_path):
    for i, image in enumerate(images):
        path = tmp_path / "pictures" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    code, _, errors = run("encode", "--model=debug", "--data=pictures", "--num=5")
    assert code == 0 and "labels stay those of the data" in errors
    with np.load("codes.npz") as arrays:
        # The five that `load` gives first, as they lie in their folders.
        assert arrays["paths"].tolist() == sorted(haim_tf.data.load("pictures").paths[:5])
        read = np.stack([np.asarray(Image.open(path)) for path in arrays["paths"]])
        assert ["ab"[label] for label in arrays["labels"]] == [
            path.split("/")[-2] for path in arrays["paths"]
        ]
        np.testing.assert_array_equal(arrays["codes_1"], haim_tf.load("debug").encode(read)[0])


def test_reconstruct(run, images):
    code, output, errors = run("reconstruct", "--model=debug", "--data=data.npz", "--split=train", "--num=2")
    assert (code, errors) == (0, "")
    assert output.splitlines()[-1] == (
        "2 images in reconstructions.png; columns: original, level 1 main, level 1 auxiliary, level 2 main, "
        "level 2 auxiliary"
    )
    sheet = np.asarray(Image.open("reconstructions.png"))
    # A pixel is 5 wide and high, and a line of captions is above.
    assert sheet.shape == (15 + 162, 408, 3) and (sheet[:15] < 128).any()
    tiles = [[sheet[15 + r * 82 :: 5, c * 82 :: 5][:16, :16] for c in range(5)] for r in range(2)]
    model = haim_tf.load("debug")
    np.testing.assert_array_equal([row[0] for row in tiles], images[:2])
    for column, level in ((2, 1), (4, 2)):
        np.testing.assert_array_equal(
            [row[column] for row in tiles], model.reconstruct(images[:2], level, "auxiliary")
        )
    np.testing.assert_array_equal([row[1] for row in tiles], model.reconstruct(images[:2], 1, "main"))


def test_reconstruct_one_level_by_one_decoder(run, images):
    flags = ["--level=2", "--decoder=auxiliary", "--output=one.png", "--scale=1", "--nocaptions"]
    code, output, _ = run("reconstruct", "--model=debug", "--data=data.npz", "--num=99", *flags)
    assert code == 0 and "7 images in one.png; columns: original, level 2 auxiliary" in output
    assert Image.open("one.png").size == (34, 7 * 18 - 2)


def test_reconstruct_at_given_temperatures_or_the_presets_own(run, images, tmp_path):
    model = haim_tf.load("debug")
    model.sampling_defaults = {"temperature": [0.3, 0.6, 1.0]}
    model.save_to_preset("own")
    flags = ["--data=data.npz", "--num=2", "--level=2", "--decoder=main", "--output=one.png"]
    flags += ["--scale=1", "--nocaptions"]
    drawn = []
    for more, sampling in (
        ([], {"temperature": [0.3, 0.6, 1.0], "top_p": 1.0}),
        (["--temperature=1"], {"temperature": 1.0, "top_p": 1.0}),
        (["--temperature=1,0.5,1", "--top_p=0.5"], {"temperature": [1.0, 0.5, 1.0], "top_p": 0.5}),
    ):
        code, _, errors = run("reconstruct", f"--model={tmp_path / 'own'}", *flags, *more)
        assert (code, errors) == (0, "")
        sheet = np.asarray(Image.open("one.png"))
        drawn.append([sheet[18 * i : 18 * i + 16, 18:34] for i in range(2)])
        # The split val of these files is their test part.
        np.testing.assert_array_equal(drawn[-1], model.reconstruct(images[::-1][:2], 2, **sampling))
    assert (drawn[0][0] != drawn[1][0]).any() and (drawn[1][0] != drawn[2][0]).any()


def test_reconstruct_with_labels_or_without(run, images, tmp_path):
    model = haim_tf.load("debug").with_labels(2)
    table = model.decoders[1].embed_label.embeddings
    table.assign(9 * np.random.default_rng(0).normal(size=table.shape))
    model.save_to_preset("told")
    flags = ["--data=data.npz", "--split=train", "--num=7", "--level=2", "--decoder=main", "--output=one.png"]
    drawn = []
    for more, labels in ((["--nouse_labels"], None), ([], np.arange(7))):
        code, *_ = run(
            "reconstruct", f"--model={tmp_path / 'told'}", *flags, "--scale=1", "--nocaptions", *more
        )
        assert code == 0
        sheet = np.asarray(Image.open("one.png"))
        drawn.append([sheet[18 * i : 18 * i + 16, 18:34] for i in range(7)])
        np.testing.assert_array_equal(drawn[-1], model.reconstruct(images, 2, labels=labels))
    assert (np.array(drawn[0]) != drawn[1]).any()


@pytest.mark.parametrize(
    ("command", "flag", "message"),
    [
        ("encode", "--data=nothing.npz", "there is no file or folder 'nothing.npz'"),
        ("encode", "--split=val[", "split must be name or name[a:b], a and b images or percent, got 'val['"),
        ("encode", "--output=missing/codes.npz", "there is no folder missing to write codes.npz to"),
        ("reconstruct", "--level=3", "level must be an int in 1..2, got 3"),
        ("reconstruct", "--level=-1", "flag --level=-1"),
        ("reconstruct", "--temperature=warm", "--temperature must be numbers, got 'warm'"),
        ("reconstruct", "--top_p=0,1", "top_p must be one number or 3"),
        ("reconstruct", "--output=missing/sheet.png", "there is no folder missing to write sheet.png to"),
    ],
)
def test_bad_flags_leave_nothing_behind(run, images, tmp_path, command, flag, message):
    code, _, errors = run(command, "--model=debug", "--data=data.npz", flag)
    assert code == 2
    assert errors.startswith(f"haim_tf {command}: {message}") and errors.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["data.npz"]


@pytest.fixture
def named(tmp_path, monkeypatch):
    """Images in the folders Bag/ and Sneaker/, and a preset whose classes 2 and 0 they are."""
    monkeypatch.chdir(tmp_path)
    model = haim_tf.load("debug")
    model.class_names = ["sneaker", "coat", "bag", *"defghij"]
    model.save_to_preset("mine")
    pictures = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), "uint8")
    for name, picture in zip(("Bag", "Sneaker"), pictures, strict=True):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        Image.fromarray(picture).save(tmp_path / "pictures" / name / "a.png")
    return haim_tf.load("mine"), pictures


def test_encode_writes_labels_of_the_same_names(run, named, tmp_path):
    assert run("encode", "--model=mine", "--data=pictures")[0] == 0
    with np.load("codes.npz") as arrays:
        assert sorted(arrays["labels"]) == [0, 2] and arrays["class_names"][2] == "bag"
    # Classes of their own keep their names.
    (tmp_path / "pictures" / "Bag").rename(tmp_path / "pictures" / "bags")
    code, _, errors = run("encode", "--model=mine", "--data=pictures", "--output=own.npz")
    assert code == 0 and "labels stay those of the data" in errors and "did you mean 'bag'" in errors
    with np.load("own.npz") as arrays:
        assert sorted(arrays["labels"]) == [0, 1] and arrays["class_names"].tolist() == ["Sneaker", "bags"]


def test_complete_takes_labels_by_name(run, named, tmp_path):
    model, pictures = named
    flags = ["--data=pictures", "--split=train", "--completions=1", "--candidates=1"]
    assert run("complete", "--model=mine", *flags, "--npz=out.npz")[0] == 0
    with np.load("out.npz") as arrays:
        names = {
            image.tobytes(): label for image, label in zip(arrays["images"], arrays["labels"], strict=True)
        }
    assert [names[picture.tobytes()] for picture in pictures] == [2, 0]
    (tmp_path / "pictures" / "Bag").rename(tmp_path / "pictures" / "bags")
    code, _, errors = run("complete", "--model=mine", *flags)
    assert code == 2 and "there is no class 'bags'; did you mean 'bag'" in errors and errors.count("\n") == 1
    code, _, errors = run("evaluate", "--model=mine", "--data=pictures", "--split=train", "--output=no.json")
    assert code == 2 and "there is no class 'bags'; did you mean 'bag'" in errors and errors.count("\n") == 1
