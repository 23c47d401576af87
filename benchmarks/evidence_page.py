"""Writes the page of the evidence: figures, pictures and which claims held, as `evidence.py` measured."""

import shutil
from pathlib import Path

import numpy as np

BEGIN, END = (
    "<!-- written by benchmarks/evidence.py: begin -->",
    "<!-- written by benchmarks/evidence.py: end -->",
)
TEXT = f"""# Evidence

{BEGIN}
{END}
"""
# Heading, where the figure is, format.
COLUMNS = [
    ("pixels given codes", ("model", "bits_per_dim", "level_1"), ".3f"),
    ("codes", ("model", "bits_per_dim", "prior"), ".3f"),
    ("whole bound", ("model", "bits_per_dim", "total"), ".3f"),
    ("pixels, codes shuffled", ("model", "levels", "level_1", "bits_per_dim_shuffled_codes"), ".3f"),
    ("perplexity", ("model", "levels", "level_1", "perplexity"), ".0f"),
]
CODES = [
    ("error, auxiliary", ("model", "levels", "level_1", "error_auxiliary"), ".4f"),
    ("error, best decoder", ("codes", "error_best"), ".4f"),
    ("error, main decoder", ("model", "levels", "level_1", "error_main"), ".4f"),
    ("linear probe", ("codes", "linear_probe"), ".1%"),
    ("convolutional probe", ("codes", "convolutional_probe"), ".1%"),
]
SAMPLES = [
    ("accuracy score", ("samples", "classification_accuracy_score"), ".1%"),
    ("standard error", ("samples", "standard_error"), ".1%"),
    ("Frechet distance", ("samples", "frechet_distance"), ".3f"),
    ("precision", ("samples", "precision"), ".3f"),
    ("recall", ("samples", "recall"), ".3f"),
    ("parameters, teacher apart", ("model", "parameters_in_use"), ",.0f"),
    ("training, hours", ("model", "training_hours"), ".2f"),
]


def write(page, output, settings):
    """Fills the part of the page between its marks (a new page where there is none), pictures beside it."""
    from haim_tf.files import read_json, write_file

    runs = {
        arm: {s: read_json(path) for s in settings["seeds"] if (path := output / f"{arm}-{s}.json").exists()}
        for arm in settings["arms"]
    }
    judge = read_json(output / "judge.json")
    pictures = copy_pictures(page, output, settings)
    lines = [*scale(settings, judge), *tables(runs, judge), *claims(runs, settings), *pictures]
    text = page.read_text() if page.exists() else TEXT
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"{page} must have each of these lines once: {BEGIN} {END}")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    text = "\n".join([before + BEGIN, "", *lines, "", END]) + after
    write_file(page, lambda file: file.write(text.encode()))


def figure(run, path):
    """The figure at a path of keys, or `None` where this arm has none."""
    for key in path:
        run = run.get(key) if run else None
    return run


def figures(runs, path):
    """An arm's figures, one per seed."""
    found = [figure(run, path) for run in runs.values()]
    return [value for value in found if value is not None]


def show(values, spec):
    """Mean, and the seeds' own figures where there are several."""
    if not values:
        return ""
    mean = format(np.mean(values), spec)
    return mean if len(values) == 1 else f"{mean} ({', '.join(format(v, spec) for v in values)})"


def scale(settings, judge):
    level = settings["level"]
    height, width, channels = settings["image_shape"]
    grid = [side // level["downsampling"] for side in (height, width)]
    bits = grid[0] * grid[1] * np.log2(level["codebook_size"])
    (num_train, num_val), (num_classes, num_scored) = judge["images"], judge["num_classes"]
    return [
        f"Scale: {num_train:,} training images of {height}x{width}x{channels} in {num_classes} classes, "
        f"codes {grid[0]}x{grid[1]} of {level['codebook_size']} ({bits:.0f} bits, "
        f"{bits / (height * width * channels):.3f} bits/dim); {settings['code_steps']:,} steps for the codes "
        f"and {settings['decoder_steps']:,} each for the main decoder and the prior, of "
        f"{settings['training']['batch_size']} images; seeds {settings['seeds']}. "
        f"Measured on {num_val:,} validation images; the accuracy score of {num_scored} classes, on "
        f"{judge['num_scored']:,} images. A mean, then each seed's figure where there are several.",
        "",
    ]


def tables(runs, judge):
    lines = []
    for title, columns in {
        "Bits/dim (upper bounds) and use of the codebook": COLUMNS,
        "What the codes hold": CODES,
        "Samples of the whole model, and cost": SAMPLES,
    }.items():
        rows = [["", *(heading for heading, *_ in columns)]]
        for arm, found in runs.items():
            rows.append([arm, *(show(figures(found, path), spec) for _, path, spec in columns)])
        if columns is SAMPLES:
            names = ("accuracy", "standard_error", "frechet_distance", "precision", "recall")
            cells = [format(v, spec) for v, (_, _, spec) in zip(map(judge.get, names), columns, strict=False)]
            rows.append(["(real training images)", *cells, "", ""])
        lines += [f"## {title}", "", *table(rows), ""]
    return lines


def table(rows):
    header, *rows = ["| " + " | ".join(row) + " |" for row in rows]
    return [header, "|---" * (header.count("|") - 1) + "|", *rows]


def claims(runs, settings):
    """What was to be shown, and whether it held, from the means over the seeds."""

    def mean(arm, *path):
        values = figures(runs.get(arm, {}), path)
        return float(np.mean(values)) if values else None

    windows = {arm: a["window"] for arm, a in settings["arms"].items() if a and "window" in a}
    widest = max(windows, key=windows.get, default=None)
    total, pixels = ("model", "bits_per_dim", "total"), ("model", "bits_per_dim", "level_1")
    shuffled = ("model", "levels", "level_1", "bits_per_dim_shuffled_codes")
    score, error, flat = ("samples", "classification_accuracy_score"), ("codes", "error_best"), "no_codes"
    probes = {"linear": ("codes", "linear_probe"), "convolutional": ("codes", "convolutional_probe")}
    compared = [
        (
            "Codes of the widest window hold less detail than feed-forward ones (error, best decoder)",
            mean(widest, *error),
            ">",
            mean("feed_forward", *error),
            ".4f",
        ),
        *(
            (
                f"and at least as much of the class ({name} probe)",
                mean(widest, *path),
                ">=",
                mean("feed_forward", *path),
                ".1%",
            )
            for name, path in probes.items()
        ),
    ]
    for arm in ("feed_forward", *windows):
        cost = None if mean(arm, *shuffled) is None else mean(arm, *shuffled) - mean(arm, *pixels)
        limit = None if mean(flat, *total) is None else 1.05 * mean(flat, *total)
        compared += [
            (
                f"{arm}: shuffling the codes costs the main decoder at least 0.15 bits/dim",
                cost,
                ">=",
                0.15,
                ".3f",
            ),
            (
                f"{arm}: the whole bound is within 5 % of the code-free model's bits/dim",
                mean(arm, *total),
                "<=",
                limit,
                ".3f",
            ),
            (
                f"{arm}: the classification accuracy score is above the code-free model's",
                mean(arm, *score),
                ">",
                mean(flat, *score),
                ".1%",
            ),
        ]
    rows = [["claim", "figure", "against", "held here"]]
    for claim, value, relation, bound, spec in compared:
        if value is None or bound is None:
            rows.append([claim, "", "", "not measured"])
            continue
        held = {">": value > bound, ">=": value >= bound, "<=": value <= bound}[relation]
        rows.append(
            [claim, format(value, spec), f"{relation} {format(bound, spec)}", "yes" if held else "**no**"]
        )
    return ["## Which claims held", "", *table(rows), ""]


def copy_pictures(page, output, settings):
    """Copies the first seed's pictures beside the page; gives the lines that show them."""
    lines, folder = [], page.with_suffix("")
    captions = {
        "codes": "a row per image: the original, the auxiliary decoder's reconstruction (where there is one) "
        "and samples of the main decoder from the same codes",
        "samples_sheet": "samples of the whole model at temperature 1, none left out",
    }
    for arm in settings["arms"]:
        for name, caption in captions.items():
            picture = output / f"{arm}-{settings['seeds'][0]}" / f"{name}.png"
            if picture.exists():
                folder.mkdir(exist_ok=True)
                target = folder / f"{arm}_{name}.png"
                shutil.copy(picture, target)
                lines += [f"![{arm}]({Path(folder.name) / target.name})", "", f"*{arm}: {caption}.*", ""]
    return ["## Pictures", "", *lines] if lines else []
