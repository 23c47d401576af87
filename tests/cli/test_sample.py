"""`haim_tf sample`."""

import sys

import numpy as np
import pytest
from PIL import Image

import haim_tf

LINE = 15  # Of captions.


def sheet_size(columns, rows, side=80, gap=2):
    return columns * (side + gap) - gap, rows * (side + gap) - gap


def test_sheet_and_arrays(run, tmp_path):
    code, output, errors = run(
        "sample",
        "--model=debug",
        "--num=6",
        "--labels=two,7",
        "--seed=5",
        "--temperature=1,0.5,0.9",
        f"--output={tmp_path / 'sheet.png'}",
        f"--npz={tmp_path / 'samples.npz'}",
    )
    assert (code, errors) == (0, "")
    assert output.splitlines()[-1] == (
        f"6 images in {tmp_path / 'sheet.png'}, and as arrays in {tmp_path / 'samples.npz'}"
    )
    with np.load(tmp_path / "samples.npz") as arrays:
        assert arrays["labels"].tolist() == [2, 7, 2, 7, 2, 7]
        expected = haim_tf.load("debug").sample(6, arrays["labels"], seed=5, temperature=[1, 0.5, 0.9])
        np.testing.assert_array_equal(arrays["images"], expected)
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    width, height = sheet_size(2, 3)  # A column a label, its name above.
    assert sheet.shape == (LINE + height, width, 3)
    np.testing.assert_array_equal(sheet[LINE : LINE + 80 : 5, 82::5], expected[1])
    assert [(part < 128).any() for part in np.split(sheet[:LINE, :160], 2, axis=1)] == [True, True]
    data = haim_tf.data.load(tmp_path / "samples.npz")
    assert data.class_names[7] == "seven" and len(data) == 6


def test_more_classes_than_images_are_drawn_at_random(run, tmp_path):
    flags = [
        "--num=3",
        "--seed=4",
        "--columns=2",
        "--scale=1",
        "--nocaptions",
        f"--output={tmp_path / 'sheet.png'}",
    ]
    assert run("sample", "--model=debug", f"--npz={tmp_path / 'a.npz'}", *flags)[0] == 0
    model = haim_tf.load("debug")
    with np.load(tmp_path / "a.npz") as arrays:
        assert arrays["labels"].tolist() == model.draw_labels(3, seed=4).tolist() != [0, 1, 2]
        np.testing.assert_array_equal(arrays["images"], model.sample(3, seed=4))
        sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
        np.testing.assert_array_equal(sheet[18:, :16], arrays["images"][2])


def test_a_sheet_is_opened_where_there_is_a_screen(monkeypatch, tmp_path, capsys):
    from haim_tf.cli import _pictures

    opened = []
    monkeypatch.setattr("webbrowser.open", lambda url: opened.append(url) or True)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.delenv("DISPLAY", raising=False)
    _pictures.open_picture(tmp_path / "a b.png")
    assert not opened and "there is no screen" in capsys.readouterr().err
    monkeypatch.setenv("DISPLAY", ":0")
    _pictures.open_picture(tmp_path / "a b.png")
    assert opened == [(tmp_path / "a b.png").as_uri()] and capsys.readouterr().err == ""


@pytest.fixture(scope="module")
def guided(tmp_path_factory):
    """A preset with sampling values of its own, whose prior heeds the label and was told of none."""
    level = {"downsampling": 2, "codebook_size": 8, "code_dim": 2, "width": 4, "blocks": 1}
    model = haim_tf.HierarchicalModel(
        image_shape=(8, 8, 1),
        levels=[{**level, "decoder": {"width": 8, "blocks": 1}}],
        prior={"width": 8, "blocks": 1, "label_dropout": 0.1},
        num_classes=3,
        mixtures=2,
    )
    rng = np.random.default_rng(0)
    for weight in (model.prior.embed_label.embeddings, *(n.last.kernel for n in model.networks)):
        weight.assign(rng.normal(0, 1, weight.shape))
    model.sampling_defaults = {"temperature": [0.5, 0.8], "guidance": 3.0}
    folder = tmp_path_factory.mktemp("presets") / "guided"
    model.save_to_preset(folder)
    return folder


def test_the_presets_own_values_unless_others_are_given(run, guided, tmp_path):
    model, drawn = haim_tf.load(guided), []
    for number, (flags, sampling) in enumerate(
        [
            ([], {"temperature": [0.5, 0.8], "top_p": 1.0, "guidance": 3.0}),
            (["--guidance=1"], {"temperature": [0.5, 0.8], "top_p": 1.0, "guidance": 1.0}),
            (
                ["--temperature=1", "--top_p=1,0.6"],
                {"temperature": 1.0, "top_p": [1.0, 0.6], "guidance": 3.0},
            ),
        ]
    ):
        npz = tmp_path / f"{number}.npz"
        output = f"--output={tmp_path / 'sheet.png'}"
        code, _, errors = run("sample", f"--model={guided}", "--num=6", output, f"--npz={npz}", *flags)
        assert (code, errors) == (0, "")
        with np.load(npz) as arrays:
            drawn.append(arrays["images"])
        np.testing.assert_array_equal(drawn[-1], model.sample(6, [0, 1, 2] * 2, seed=0, **sampling))
    assert (drawn[0] != drawn[1]).any() and (drawn[0] != drawn[2]).any()


def test_choice_of_labels(run):
    from haim_tf.cli.sample import choose_labels

    names = ["Shirt", "Ankle boot"]
    assert choose_labels(None, 3, None) == choose_labels(["all"], 3, None) == [0, 1, 2]
    assert choose_labels([], 3, None) == [0, 1, 2]
    assert choose_labels(["1", " ankle Boot", "shirt"], 2, names) == [1, 1, 0]
    several = ["lion, king of beasts", "bag"]  # Flags are split at commas.
    assert choose_labels(["lion", " king of beasts", "lion", "lion", "bag"], 2, several) == [0, 0, 1]
    wagons = ["wagon, cart", "beach wagon, station wagon, wagon", "crane", "maillot", "crane, bird"]
    assert choose_labels("beach wagon, station wagon, wagon".split(","), 5, wagons) == [1]
    assert choose_labels("crane, bird,crane,wagon, cart".split(","), 5, wagons) == [4, 2, 0]
    assert choose_labels(["7"], 10, [str(9 - i) for i in range(10)]) == [2]  # Names go first.
    assert choose_labels(None, None, None) is None
    for labels, num_classes in ((["3"], 3), (["-1"], 3), (["1.5"], 3), (["hat"], 2)):
        with pytest.raises(ValueError, match="--labels"):
            choose_labels(labels, num_classes, names)
    with pytest.raises(ValueError, match="not class-conditional"):
        choose_labels(["1"], None, None)


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--output=missing/sheet.png", "there is no folder missing to write sheet.png to"),
        ("--output=sheet.jpg", "--output must be a file that ends in .png, got sheet.jpg"),
        ("--npz=samples.txt", "arrays must go to a file that ends in .npz, got samples.txt"),
        ("--npz=there.npz", "there.npz exists: name another file, or remove it"),
        ("--temperature=hot", "--temperature must be numbers, got 'hot'"),
        ("--temperature=1,1", "temperature must be one number or 3"),
        ("--top_p=1.5", "top_p must lie in"),
        ("--guidance=2", "guidance must be 1 for this model"),
        ("--guidance=101", "guidance must lie in"),
        ("--labels=10", "--labels must be among 0..9"),
        ("--seed=99999999999", "seed must fit in 32 bits"),
    ],
)
def test_bad_flags_leave_nothing_behind(run, tmp_path, monkeypatch, flag, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.npz").touch()
    code, _, errors = run("sample", "--model=debug", flag)
    assert code == 2
    assert errors.startswith(f"haim_tf sample: {message}") and errors.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["there.npz"]
