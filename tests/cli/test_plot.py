"""`haim_tf plot`."""

import pytest
from PIL import Image


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
        (["nothing"], "there is no folder nothing to write training.png to"),
        (["nothing", "--output=a.png"], "nothing must be the folder of a training run"),
        (["nothing", "--output=a.svg"], "--output must be a file that ends in .png"),
    ],
)
def test_bad_input(run, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, output, errors = run("plot", *arguments)
    assert (code, output) == (2, "")
    assert errors.startswith(f"haim_tf plot: {message}") and errors.count("\n") == 1
