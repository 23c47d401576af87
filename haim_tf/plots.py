"""`plot_run`: a training as a picture."""

import csv
import json
import os

from haim_tf import files

WIDTH, HEIGHT = 8.0, 2.2  # Inches, of the picture and of a panel of it.
HELD_OUT, LOSS, ACTIVE, PERPLEXITY = "holdout_bits_per_dim_", "loss_", "active_fraction_", "perplexity_"


def plot_run(folder: str | os.PathLike, output: str | os.PathLike) -> int:
    """Plots the log of a training, finished or not, by matplotlib (`pip install "haim-tf[plot]"`).

    A panel for each part has its held-out bits/dim, or, of runs without held-out images, its training loss
    (of networks nats per element, of autoencoders their own); the last one, of runs that trained codes, the
    codes in use, and as a broken line their perplexity. Stages are parted by lines.

    Args:
        folder: of the run, with its `metrics.csv`.
        output: the `.png` file; one that is there is replaced.

    Returns:
        How many steps there are to see.

    Raises:
        FileNotFoundError: no run there, or one that has not written its log yet.
        ValueError: no matplotlib, a log or recipe that is damaged, or a picture that cannot be written.

    Example:
        >>> plot_run("runs/mine", "training.png")
        2000
    """
    log, recipe = files.expanded(folder) / "metrics.csv", files.expanded(folder) / "recipe.json"
    if not log.is_file() or not recipe.is_file():
        raise FileNotFoundError(f"{folder} must be the folder of a training run, got one without {log.name}")
    figure_class = _figure_class()
    sizes = _read(recipe, lambda file: [int(x["codebook_size"]) for x in json.load(file)["model"]["levels"]])
    rows = _read(log, _rows)
    names = list(dict.fromkeys(name for row in rows for name in row))
    steps, ends = _steps(rows)
    curves = [name for name in names if name.startswith(HELD_OUT)]
    unit = "bits/dim"
    if not curves:
        curves, unit = [name for name in names if name.startswith(LOSS)], "loss"
    codes = [i for i in range(1, len(sizes) + 1) if f"{ACTIVE}{i}" in names]
    count = max(len(curves) + bool(codes), 1)
    figure = figure_class(figsize=(WIDTH, HEIGHT * count), layout="constrained")
    panels = figure.subplots(count, sharex=True, squeeze=False)[:, 0]
    for name, panel in zip(curves, panels, strict=False):
        panel.plot(*_points(steps, rows, name), marker=".")
        part = name.removeprefix(HELD_OUT).removeprefix(LOSS).replace("_", " ")
        panel.set_ylabel(f"{part}\n{'held-out ' if unit == 'bits/dim' else ''}{unit}")
    for i in codes:
        (line,) = panels[-1].plot(
            *_points(steps, rows, f"{ACTIVE}{i}", sizes[i - 1]), marker=".", label=f"level {i}"
        )
        panels[-1].plot(*_points(steps, rows, f"{PERPLEXITY}{i}"), linestyle="--", color=line.get_color())
    if codes:
        panels[-1].set_ylabel("codes in use\n(broken: perplexity)")
        panels[-1].set_ylim(bottom=0)
        panels[-1].legend()
    for panel in panels:
        panel.grid(alpha=0.3)
        for end in ends[:-1]:
            panel.axvline(end, color="0.7", linewidth=1)
    panels[-1].set_xlabel("steps")
    files.write_file(output, lambda file: figure.savefig(file, format="png", dpi=120))
    return steps[-1] if steps else 0


def _read(path, content):
    """What `content` makes of an opened file; a ValueError where that cannot be done."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return content(file)
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise ValueError(f"{path} is damaged, or not of a training run: {error!r:.100}") from None


def _rows(file):
    """The rows of a log, each a dict of the numbers in it, with `stage` and `step`."""
    rows = [{name: float(text) for name, text in row.items() if text} for row in csv.DictReader(file)]
    return [{**row, "stage": int(row["stage"]), "step": int(row["step"])} for row in rows]


def _points(steps, rows, name, factor=1.0):
    """The steps at which a figure was logged, and its values."""
    found = [(step, factor * row[name]) for step, row in zip(steps, rows, strict=True) if name in row]
    return [step for step, _ in found], [value for _, value in found]


def _figure_class():
    """matplotlib's `Figure`, which, made by itself, needs no screen."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ValueError('plots need the package matplotlib: pip install "haim-tf[plot]"') from None
    return Figure


def _steps(rows):
    """Each row's step counted from the start of the training, and those at which stages ended."""
    steps, ends, before = [], [], 0
    for i, row in enumerate(rows):
        steps.append(before + row["step"])
        if i + 1 == len(rows) or rows[i + 1]["stage"] != row["stage"]:
            before = steps[-1]
            ends.append(before)
    return steps, ends
