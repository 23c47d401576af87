"""`haim_tf plot`."""

import pytest
from PIL import Image

LOG = b"stage,step,loss_prior\n0,2,0.5\n"
RECIPE = b'{"model": {"levels": []}}'


def test_plot(run, tmp_path):
    (tmp_path / "metrics.csv").write_text("stage,step,holdout_bits_per_dim_prior\n0,50,0.5\n0,100,0.4\n")
    (tmp_path / "recipe.json").write_text('{"model": {"levels": []}}')
    picture = tmp_path / "training.png"
    assert run("plot", tmp_path) == (0, f"100 steps of {tmp_path} in {picture}\n", "")
    assert Image.open(picture).width > 500


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name one run's folder"),
        (["nothing"], "nothing must be the folder of a training run"),
        (["nothing", "--output=a.png"], "nothing must be the folder of a training run"),
        (["nothing", "--output=a.svg"], "--output must be a file that ends in .png"),
    ],
)
def test_bad_input(run, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, output, errors = run("plot", *arguments)
    assert (code, output) == (2, "")
    assert errors.startswith(f"haim_tf plot: {message}") and errors.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metrics.csv", b"\xff\xfe\x00"),
        ("metrics.csv", b"stage,loss_prior\n0,0.5\n"),
        ("metrics.csv", LOG + b"0,four,0.5\n"),
        ("metrics.csv", LOG + b"0,4,0.5,0.5\n"),
        ("metrics.csv", LOG + b"0,4," + b"9" * 200_000 + b"\n"),
        ("recipe.json", b"{"),
        ("recipe.json", b"[]"),
        ("recipe.json", b'{"model": null}'),
        ("recipe.json", b'{"model": {"levels": [{}]}}'),
    ],
)
def test_a_damaged_run_is_named(run, tmp_path, name, content):
    for file, whole in (("metrics.csv", LOG), ("recipe.json", RECIPE)):
        (tmp_path / file).write_bytes(content if file == name else whole)
    code, output, errors = run("plot", tmp_path)
    assert (code, output) == (2, "")
    assert errors.startswith(f"haim_tf plot: {tmp_path / name} is damaged, or not of a training run: ")
    assert errors.count("\n") == 1 and len(errors) < len(str(tmp_path)) + 200
    assert not (tmp_path / "training.png").exists()
