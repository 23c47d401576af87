"""`plot_run` and `haim_tf plot`: the log of a training as a picture."""

import csv
import json
import sys

import matplotlib.figure
import numpy as np
import pytest
from PIL import Image

from haim_tf import plots

LEVEL = {"codebook_size": 8}


@pytest.fixture
def run_folder(tmp_path):
    """A run of two stages, each with figures that the other lacks."""
    rows = [
        {"stage": 0, "step": 10, "active_fraction_1": 0.5, "perplexity_1": 3.0, "loss_autoencoder_1": 2.0},
        {"stage": 0, "step": 20, "active_fraction_1": 1.0, "perplexity_1": 6.0, "loss_autoencoder_1": 1.0},
        {"stage": 1, "step": 10, "holdout_bits_per_dim_prior": 0.5},
        {"stage": 1, "step": 30, "holdout_bits_per_dim_prior": 0.25},
    ]
    folder = tmp_path / "run"
    folder.mkdir()
    with open(folder / "metrics.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(rows)
    (folder / "recipe.json").write_text(json.dumps({"model": {"levels": [LEVEL]}}))
    return folder


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are saved."""
    figures, save = [], matplotlib.figure.Figure.savefig
    monkeypatch.setattr(
        matplotlib.figure.Figure, "savefig", lambda self, *a, **k: (figures.append(self), save(self, *a, **k))
    )
    return figures


def test_what_is_drawn(run_folder, drawn, tmp_path):
    assert plots.plot_run(run_folder, tmp_path / "plot.png") == 50
    held, codes = drawn[0].axes
    assert held.get_ylabel() == "prior\nheld-out bits/dim"
    curve, end = held.lines
    assert curve.get_xydata().tolist() == [[30, 0.5], [50, 0.25]] and end.get_xdata()[0] == 20
    used, perplexity, _ = codes.lines
    assert used.get_xydata().tolist() == [[10, 4], [20, 8]] and used.get_label() == "level 1"
    assert perplexity.get_xydata().tolist() == [[10, 3], [20, 6]]
    assert np.asarray(Image.open(tmp_path / "plot.png")).std() > 5


def test_without_held_out_images_losses_are_drawn(run_folder, drawn, tmp_path):
    text = (run_folder / "metrics.csv").read_text()
    (run_folder / "metrics.csv").write_text("\n".join(text.splitlines()[:3]).replace("holdout_", "other_"))
    assert plots.plot_run(run_folder, tmp_path / "plot.png") == 20
    assert drawn[0].axes[0].get_ylabel() == "autoencoder 1\nloss"
    assert drawn[0].axes[0].lines[0].get_ydata().tolist() == [2.0, 1.0]


def test_no_run_and_no_library(run_folder, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="must be the folder of a training run"):
        plots.plot_run(tmp_path, tmp_path / "plot.png")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ValueError, match=r'pip install "haim-tf\[plot\]"'):
        plots.plot_run(run_folder, tmp_path / "plot.png")
    assert not (tmp_path / "plot.png").exists()
