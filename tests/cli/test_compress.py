"""`haim_tf compress`, `decompress` and `complete`."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import haim_tf


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The preset of a model that compiles fast."""
    level = {"downsampling": 2, "codebook_size": 4, "code_dim": 2, "width": 4, "blocks": 1}
    model = haim_tf.HierarchicalModel(
        (4, 8, 1),
        [{**level, "decoder": {"width": 4, "blocks": 1}}],
        {"width": 4, "blocks": 1},
        num_classes=2,
        mixtures=2,
    )
    folder = tmp_path_factory.mktemp("presets") / "tiny"
    model.save_to_preset(folder)
    return folder


@pytest.fixture
def folder(tiny, tmp_path, monkeypatch):
    """Two pictures, and the preset."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny, "tiny")
    rng = np.random.default_rng(0)
    for name, size in (("a", (4, 8)), ("b", (5, 20))):
        Image.fromarray(rng.integers(0, 256, size, "uint8")).save(f"{name}.png")
    Image.fromarray(rng.integers(0, 256, (4, 8, 3), "uint8")).save("colour.png")
    np.savez("data.npz", x_test=rng.integers(0, 256, (3, 4, 8, 1), "uint8"), y_test=[0, 1, 0])
    return tmp_path


def pixels(path):
    return np.asarray(Image.open(path))


def test_there_and_back(run, folder):
    code, output, errors = run("compress", "a.png", "b.png", "--model=tiny", "--output=small", "--labels=1")
    assert (code, errors) == (0, "")
    sizes = [Path(f"small/{name}.haim").stat().st_size for name in "ab"]
    assert output.splitlines()[-1].startswith(f"2 images in small: {sum(sizes):,} bytes, ")
    code, output, errors = run("decompress", "small/b.haim", "small/a.haim", "--model=tiny", "--output=back")
    assert (code, errors) == (0, "") and output.splitlines()[-1] == "2 images in back"
    for name in "ab":
        np.testing.assert_array_equal(pixels(f"back/{name}.png"), pixels(f"{name}.png"))

    Path("small/a.haim").write_bytes(Path("small/a.haim").read_bytes()[:-1])
    for arguments, message in (
        (["small/b.haim", "--output=x"], "the files were written by 'tiny': name one model by --model"),
        (["small/b.haim", "--output=x", "--model=debug"], "small/b.haim was written by the model 'tiny'"),
        (["small/a.haim", "--output=x", "--model=tiny"], "small/a.haim is damaged or truncated"),
        (["a.png", "--output=x", "--model=tiny"], "a.png is no compressed image of haim_tf"),
        (["small/b.haim", "--output=back", "--model=tiny"], "back/b.png exists"),
    ):
        code, _, errors = run("decompress", *arguments)
        assert code == 2 and errors.startswith(f"haim_tf decompress: {message}") and errors.count("\n") == 1
    assert not Path("x").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name at least one file"),
        (["nothing.png"], "there is no file nothing.png"),
        (["colour.png"], "colour.png must be an image of 1 channel of 8 bits (mode L), for converting it"),
        (["data.npz"], "cannot read data.npz as an image"),
        (["a.png", "./a.png"], "a.png and a.png would both become small/a.haim"),
        (["a.png", "--output=x/y"], "--output must be a folder"),
        (["a.png", "--labels=2"], "--labels must be among 0..1, got '2'"),
    ],
)
def test_bad_input_leaves_nothing_behind(run, folder, arguments, message):
    before = sorted(folder.iterdir())
    code, _, errors = run("compress", "--model=tiny", "--output=small", *arguments)
    assert code == 2 and errors.startswith(f"haim_tf compress: {message}") and errors.count("\n") == 1
    assert sorted(folder.iterdir()) == before


def test_complete(run, folder):
    flags = ["--data=data.npz", "--num=2", "--completions=2", "--candidates=2", "--npz=out.npz"]
    code, output, errors = run("complete", "--model=tiny", "--scale=1", "--nocaptions", *flags)
    assert (code, errors) == (0, "")
    assert output.splitlines()[-1] == (
        "2 images in completions.png, and as arrays in out.npz; columns: original, known, 2 completions"
    )
    with np.load("out.npz") as arrays:
        images, mask, completions = arrays["images"], arrays["mask"], arrays["completions"]
    assert mask.sum() == 16 and mask[:2].all() and completions.shape == (2, 2, 4, 8, 1)
    np.testing.assert_array_equal(completions[:, 1, :2], images[:, :2])
    sheet = pixels("completions.png")
    assert sheet.shape == (10, 38)
    np.testing.assert_array_equal(sheet[6:10, 10:18], [*images[1, :2, :, 0], *np.full((2, 8), 128)])

    Image.fromarray(np.eye(4, 8, dtype="uint8") * 255).save("mask.png")
    code, _, _ = run("complete", "--model=tiny", "--mask=mask.png", *flags[:-1], "--npz=diagonal.npz")
    assert code == 0
    with np.load("diagonal.npz") as arrays:
        np.testing.assert_array_equal(arrays["mask"], np.eye(4, 8, dtype=bool))
    # As paint programs save it.
    mask = Image.open("mask.png")
    mask.convert("RGB").save("coloured.png")
    clear = Image.new("RGBA", mask.size, (255, 255, 255, 0))
    clear.paste((0, 0, 255, 255), mask=mask)
    clear.save("clear.png")
    Image.fromarray(np.eye(4, 8, dtype="float32") / 2).save("small.tiff")
    for name in ("coloured.png", "clear.png", "small.tiff"):
        code, _, errors = run("complete", "--model=tiny", f"--mask={name}", *flags[:-1], f"--npz={name}.npz")
        assert code == 0, errors
        with np.load(f"{name}.npz") as arrays:
            np.testing.assert_array_equal(arrays["mask"], np.eye(4, 8, dtype=bool))
    code, _, errors = run("complete", "--model=tiny", "--mask=mask.png", "--rows=1", *flags[:-1])
    assert code == 2 and "exclude each other" in errors
