"""The command line under JAX, without tensorflow."""

import json

import numpy as np
import pytest

pytestmark = [pytest.mark.jax, pytest.mark.usefixtures("compiles_quickly")]


@pytest.fixture
def pictures(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (8, 16, 16, 3)).astype("uint8")
    np.savez(tmp_path / "pictures.npz", images=images, labels=np.arange(8))
    return tmp_path / "pictures.npz"


def test_commands(run, pictures, tmp_path):
    """Each of them with the same small model and pictures."""
    data = ("--model=debug", f"--data={pictures}", "--split=all")
    commands = {
        "list": (),
        "info": ("debug",),
        "sample": ("--model=debug", "--num=2", f"--output={tmp_path / 'sample.png'}"),
        "encode": (*data, f"--output={tmp_path / 'codes.npz'}"),
        "reconstruct": (*data, "--num=2", "--level=1", f"--output={tmp_path / 'reconstruct.png'}"),
        "complete": (*data, "--num=1", "--completions=2", "--candidates=1"),
        "evaluate": (*data, "--num=4", "--reconstructions=2", f"--output={tmp_path / 'report.json'}"),
    }
    commands["complete"] += (f"--output={tmp_path / 'complete.png'}",)
    for name, arguments in commands.items():
        code, output, errors = run(name, *arguments)
        assert code == 0, (name, errors)
        assert "debug" in output or "images" in output, (name, output)
    for name in ("sample", "reconstruct", "complete"):
        assert (tmp_path / f"{name}.png").stat().st_size
    with np.load(tmp_path / "codes.npz") as codes:
        assert codes["codes_2"].shape == (8, 4, 4)
    assert json.loads((tmp_path / "report.json").read_text())["levels"]["level_1"]["error_main"] > 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("export", "--model=debug", "--output=nowhere"),
        ("compress", "picture.png", "--model=debug", "--output=nowhere"),
        ("decompress", "picture.haim", "--output=nowhere"),
        ("train", "--config=debug.json", "--data=x.npz", "--output=nowhere", "--strategy=mirrored"),
        ("evaluate", "--model=debug", "--data=fashion_mnist"),
    ],
)
def test_what_cannot_be_done_is_one_line(run, arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = {"image_shape": [8, 8, 1], "levels": [], "prior": {"width": 4, "blocks": 1}}
    recipe = {"model": model, "interval": 1, "stages": [{"steps": 1, "learning_rate": 0.1}]}
    (tmp_path / "debug.json").write_text(json.dumps(recipe))
    code, output, errors = run(*arguments)
    assert code == 2 and not output and errors.count("\n") == 1, errors
    assert "got 'jax'" in errors or "needs tensorflow" in errors
