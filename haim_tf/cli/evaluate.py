"""Measures a model on held-out images: bits/dim, use of the codes, reconstruction errors."""

from typing import Any

from absl import flags

FLAGS = flags.FLAGS
flags.DEFINE_string("model", None, "Name of a model, or a preset folder.", required=True)
flags.DEFINE_string("data", None, "TFDS name, image folder, .npz or .npy file.", required=True)
flags.DEFINE_string("split", "val", "Split of the data to measure on, e.g. test[:1000].")
flags.DEFINE_integer("num", None, "Images to take, drawn at random; all by default.", lower_bound=1)
flags.DEFINE_integer(
    "seed", 0, "Seed for what is drawn, shuffled and sampled.", lower_bound=0, upper_bound=2**31 - 1
)
flags.DEFINE_integer("batch_size", 64, "Images in a batch.", lower_bound=1)
flags.DEFINE_integer(
    "reconstructions", 256, "Images that the main decoders reconstruct, at most.", lower_bound=0
)
flags.DEFINE_string("output", None, "JSON file for the figures, a new one.")
flags.DEFINE_string(
    "scores",
    None,
    "CSV file, a new one, for bits/dim by level of every image measured, in the order of files, and, of "
    "class-conditional models, the most probable label and the label's posterior by Bayes' rule.",
)


def main(argv: list[str]) -> None:
    from haim_tf import data, evaluation, files, presets
    from haim_tf.evaluation import scores

    output, csv = (
        None if path is None else files.check_new_file(path) for path in (FLAGS.output, FLAGS.scores)
    )
    if output is not None and output == csv:
        raise ValueError(f"--output and --scores must be two files, got {output} for both")
    model = presets.load(FLAGS.model, weights=True)
    images = data.load(FLAGS.data, FLAGS.split, image_shape=model.image_shape)
    report, columns = evaluation.evaluate_and_score(
        model,
        images,
        num=FLAGS.num,
        seed=FLAGS.seed,
        batch_size=FLAGS.batch_size,
        reconstructions=FLAGS.reconstructions,
    )
    report = {"model": FLAGS.model, "split": images.split, **report}
    print(table(report))  # First, for the files may not be writable any more.
    if csv:
        order = images.in_file_order(columns["image"])
        scores.write_csv(csv, {name: values[order] for name, values in columns.items()})
    if output:
        files.write_json(output, report)
    for what, path in (("figures", output), ("scores of single images", csv)):
        if path:
            print(f"{what} in {path}")


def table(report: dict[str, Any]) -> str:
    """The figures of a report as text, one row per part of the model."""
    rows = [["", "bits/dim", "codes shuffled", "grid", "codebook", "capacity, bits", "perplexity", "active"]]
    rows[0] += ["error auxiliary", "error main"]
    for name, bits in report["bits_per_dim"].items():
        row = [name.replace("_", " "), f"{bits:.4f}"]
        if level := report["levels"].get(name):
            row += [
                _number(level["bits_per_dim_shuffled_codes"], ".4f"),
                "x".join(map(str, level["grid"])),
                str(level["codebook_size"]),
                f"{level['capacity_bits']:.0f}",
                f"{level['perplexity']:.1f}",
                f"{level['active_fraction']:.1%}",
                _number(level["error_auxiliary"], ".4f"),
                _number(level["error_main"], ".4f"),
            ]
        rows.append(row + [""] * (len(rows[0]) - len(row)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for name, *cells in rows:
        cells = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        lines.append("  ".join([name.ljust(widths[0]), *cells]).rstrip())
    error = _number(report["standard_error"], ".4f")
    posterior = report.get("label_posterior")
    return "\n".join(
        [
            f"{report['model']} on {report['num']} images of {report['data']}, {report['split']}, "
            f"seed {report['seed']}",
            *lines,
            f"Bits/dim are upper bounds (standard error of the total: {error}); errors are squared, "
            f"pixels in -1..1, main decoders on {report['num_reconstructions']} images.",
            *([f"Label by Bayes' rule: accuracy {posterior['accuracy']:.4f}."] if posterior else []),
        ]
    )


def _number(value, spec):
    return "-" if value is None else format(value, spec)
