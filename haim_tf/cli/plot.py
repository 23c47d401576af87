"""Plots a training: held-out bits/dim of its parts and codes in use, step by step.

It needs the package matplotlib (pip install "haim-tf[plot]").
"""

from absl import flags

from haim_tf.cli._output import check_sheet
from haim_tf.cli._pictures import open_picture

ARGUMENTS = "RUN"
FLAGS = flags.FLAGS
flags.DEFINE_string("output", None, "The picture, a .png file; by default training.png in the run's folder.")
flags.DEFINE_bool("open", False, "Open the picture, where there is a screen.")


def main(argv: list[str]) -> None:
    from haim_tf import files, plots

    if len(argv) != 2:
        raise ValueError(f"name one run's folder, as in haim_tf plot runs/mine, got {len(argv) - 1}")
    folder = files.expanded(argv[1])
    # Where there is no such folder, it is the run that is missing.
    output = folder / "training.png" if FLAGS.output is None else check_sheet(FLAGS.output)
    steps = plots.plot_run(folder, output)
    print(f"{steps} steps of {folder} in {output}")
    if FLAGS.open:
        open_picture(output)
