"""Tells what a model is: its picture, codes, figures, how it samples, its classes with their numbers."""

from pathlib import Path
from typing import Any

from absl import flags

from haim_tf import presets
from haim_tf.presets import model_card

ARGUMENTS = "MODEL"
FLAGS = flags.FLAGS
flags.DEFINE_string("model", None, "Name of a model, or a preset folder; the same as the argument MODEL.")


def main(argv: list[str]) -> None:
    names = [*argv[1:], *([FLAGS.model] if FLAGS.model else [])]
    if len(names) != 1:
        raise ValueError(f"name one model, as in haim_tf info fashion_mnist28, got {len(names)}")
    folder = presets.find(names[0])
    config, metadata = presets.read(folder)
    try:
        lines = describe(names[0], folder, config, metadata)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder} must be as save_to_preset writes it, got {error!r}") from error
    print("\n".join(lines))


def describe(name: str, folder: Path, config: dict[str, Any], metadata: dict[str, Any]) -> list[str]:
    """Lines of text about a preset, from its two JSON files."""
    own = metadata.get("sampling") or {}
    sampling = {key: own.get(key, 1.0) for key in ("temperature", "top_p", "guidance")}
    rows = {
        "model": f"{name}, in {folder}",
        "image": "x".join(map(str, config["image_shape"])),
        "codes": ", ".join(f"{h}x{w} of {K}" for h, w, K in model_card.code_grids(config)) or "none",
        "weights": _weights(folder, metadata),
        "sampling": ", ".join(f"{key} {_values(value)}" for key, value in sampling.items()),
    }
    report = metadata.get("evaluation") or {}
    if bits := (report.get("bits_per_dim") or {}).get("total"):
        rows["bits/dim"] = f"{bits:.3f} on {report['num']:,} images of {report['data']}"
    pictures = [folder / name for name in metadata.get("pictures") or {} if (folder / name).is_file()]
    if pictures:
        rows["picture"] = pictures[0]
    lines = [f"{key:<9} {value}" for key, value in rows.items()]
    for metric in metadata.get("metrics") or ():
        lines.append(f"metric    {metric['name']} {metric['value']}")
    count, class_names = config.get("num_classes"), metadata.get("class_names")
    if count is None:
        return [*lines, "classes   none: this model takes no labels"]
    if not class_names:
        return [*lines, f"classes   0..{count - 1}, without names"]
    width = len(str(count - 1))
    return [*lines, "classes", *(f"  {label:>{width}}  {text}" for label, text in enumerate(class_names))]


def _weights(folder, metadata):
    if presets.is_pretrained(folder):
        return "pretrained"
    elsewhere = metadata.get("pretrained") and metadata.get("sha256")
    return "pretrained, not downloaded yet" if elsewhere else "none that are trained"


def _values(value):
    """One number, or those of the levels, finest first, and of the prior."""
    return f"[{', '.join(f'{x:g}' for x in value)}]" if isinstance(value, list) else f"{value:g}"
