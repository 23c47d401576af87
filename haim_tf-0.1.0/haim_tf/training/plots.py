"""`plot_run`: a training as a picture."""

import csv
import os

from haim_tf import files

WIDTH, HEIGHT = 8.0, 3.2  # Inches, of the picture and of a panel of it.


def plot_run(folder: str | os.PathLike, output: str | os.PathLike) -> int:
    """Plots the log of a training, finished or not, by matplotlib (`pip install "haim-tf[plot]"`).

    One panel has the held-out bits/dim of each part, of runs without held-out images the training losses in
    nats per element; another one, of runs that trained codes, the codes in use, and as a broken line their
    perplexity. Stages are parted by lines.

    Args:
        folder: of the run, with its `metrics.csv`.
        output: the `.png` file; one that is there is replaced.

    Returns:
        How many steps there are to see.

    Raises:
        FileNotFoundError: no run there, or one that has not written its log yet.
        ValueError: no matplotlib, or a picture that cannot be written.

    Example:
        >>> plot_run("runs/mine", "training.png")
        2000
    """
    log, recipe = files.expanded(folder) / "metrics.csv", files.expanded(folder) / "recipe.json"
    if not log.is_file() or not recipe.is_file():
        raise FileNotFoundError(f"{folder} must be the folder of a training run, got one without {log.name}")
    figure_class = _figure_class()
    levels = files.read_json(recipe)["model"].get("levels", [])
    with open(log, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    steps, ends = _steps(rows)
    names = list(rows[0]) if rows else []
    panels = []
    held = [name for name in names if name.startswith("holdout_bits_per_dim_")]
    watched = held or [name for name in names if name.startswith("loss_")]
    panels.append(("held-out bits/dim" if held else "loss, nats per element", watched, {}))
    sizes = {f"active_fraction_{i}": level["codebook_size"] for i, level in enumerate(levels, start=1)}
    codes = [name for name in names if name in sizes or name.startswith("perplexity_")]
    if codes:
        panels.append(("codes in use (broken: perplexity)", codes, sizes))
    figure = figure_class(figsize=(WIDTH, HEIGHT * len(panels)), layout="constrained")
    for panel, (title, shown, factors) in zip(
        figure.subplots(len(panels), squeeze=False)[:, 0], panels, strict=True
    ):
        for name in shown:
            points = [(x, float(row[name])) for x, row in zip(steps, rows, strict=True) if row[name]]
            style = {"linestyle": "--"} if name.startswith("perplexity_") else {"marker": "."}
            values = [y * factors.get(name, 1) for _, y in points]
            panel.plot([x for x, _ in points], values, label=_label(name), **style)
        for end in ends[:-1]:
            panel.axvline(end, color="0.8", linewidth=1)
        panel.set_ylabel(title)
        panel.grid(alpha=0.3)
        if shown:
            panel.legend()
        # Parts may be a hundred times apart; what is logged is above 0 but for the log-densities of pixels.
        if shown and min(float(row[name]) for row in rows for name in shown if row[name]) > 0:
            panel.set_yscale("log")
    panel.set_xlabel("steps")
    files.write_file(output, lambda file: figure.savefig(file, format="png", dpi=120))
    return steps[-1] if steps else 0


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
        steps.append(before + int(row["step"]))
        if i + 1 == len(rows) or rows[i + 1]["stage"] != row["stage"]:
            before = steps[-1]
            ends.append(before)
    return steps, ends


def _label(name):
    for prefix in ("holdout_bits_per_dim_", "loss_", "active_fraction_", "perplexity_"):
        if name.startswith(prefix):
            rest = name.removeprefix(prefix).replace("_", " ")
            return f"level {rest}" if rest.isdecimal() else rest
    return name
