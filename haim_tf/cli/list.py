"""Lists the models of the zoo.

Bits/dim are upper bounds, as `haim_tf evaluate` measured them; model cards tell on which images.
"""

from absl import flags

from haim_tf import presets
from haim_tf.presets import model_card

FLAGS = flags.FLAGS
flags.DEFINE_string("pattern", "*", "Which names, e.g. 'imagenet*'.")
flags.DEFINE_bool(
    "pretrained", None, "Only models whose trained weights are here; --nopretrained: the others."
)


def main(argv: list[str]) -> None:
    rows = [["name", "image", "levels", "codes", "parameters", "pretrained", "bits/dim", "data", "terms"]]
    for name in presets.list_models(FLAGS.pattern, FLAGS.pretrained):
        folder = presets.find(name)
        config, metadata = presets.read(folder)
        dataset = metadata.get("dataset") or {}
        bits = ((metadata.get("evaluation") or {}).get("bits_per_dim") or {}).get("total")
        rows.append(
            [
                name,
                "x".join(map(str, config["image_shape"])),
                str(len(config["levels"])),
                ", ".join(f"{h}x{w}x{K}" for h, w, K in model_card.code_grids(config)) or "-",
                f"{metadata['parameters']:,}",
                "yes" if presets.is_pretrained(folder) else "no",
                "-" if bits is None else f"{bits:.3f}",
                dataset.get("name", "-"),
                dataset.get("terms", "-"),
            ]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
