"""The model card of a preset: its `README.md`, rendered from configuration and metadata."""

import math
from typing import Any


def model_card(config: dict[str, Any], metadata: dict[str, Any], source: str | None = None) -> str:
    """A preset's model card.

    Args:
        config: constructor arguments of a `HierarchicalModel`.
        metadata: a dict as `haim_tf.presets.save_to_preset` writes it.
        source: what `haim_tf.load` is given; by default the preset's name.

    Returns:
        Markdown text. Figures are as the metadata has them; sections without any are left out.

    Example:
        >>> arguments, metadata = haim_tf.presets.read(haim_tf.presets.find("debug"))
        >>> model_card(arguments, metadata).splitlines()[0]
        '# debug'
    """
    sections = [
        ("", [*_introduction(config, metadata), *_pictures(metadata)]),
        ("Use", _use(config, metadata, source)),
        ("Data", _facts(metadata.get("dataset"))),
        ("Architecture", _architecture(config, metadata)),
        ("Training", _facts(metadata.get("training"))),
        ("Sampling", _sampling(metadata.get("sampling"), metadata.get("sampling_chosen"))),
        ("Metrics", [*_evaluation(metadata.get("evaluation")), *_metrics(metadata.get("metrics"))]),
        ("Limits", [f"- {limit}" for limit in metadata.get("limits") or ()]),
        ("File", _file(metadata)),
    ]
    lines = []
    for title, content in sections:
        if content:
            lines += ([f"## {title}", ""] if title else []) + content + [""]
    return "\n".join(lines)


def code_grids(config: dict[str, Any]) -> list[tuple[int, int, int]]:
    """Each level's codes as (h, w, K), finest first."""
    height, width = config["image_shape"][:2]
    grids = []
    for level in config["levels"]:
        height, width = height // level["downsampling"], width // level["downsampling"]
        grids.append((height, width, level["codebook_size"]))
    return grids


def _sampling(sampling, chosen):
    """How the model samples by default, and how that was chosen."""
    if not sampling:
        return []
    lines = [
        "What `sample`, `decode` and `reconstruct` do when nothing else is asked; with 1 everywhere they "
        "sample the model's own distribution:",
        "",
        "| " + " | ".join(sampling) + " |",
        "|---" * len(sampling) + "|",
        "| " + " | ".join(_numbers(value) for value in sampling.values()) + " |",
        "",
        "Several values: one for each level, finest first, then the prior.",
    ]
    if chosen:
        draws = chosen["draws"]
        best = min(draw["distance"] for draw in draws)
        lines += [
            "",
            f"Chosen by `haim_tf choose_sampling`: Frechet distance of {chosen['samples']:,} samples from "
            f"{chosen['images']:,} training images ({chosen['split']}), {draws[0]['distance']:.1f} at first, "
            f"{best:.1f} at last, in {len(draws)} draws.",
        ]
    return lines


def _numbers(value):
    return ", ".join(f"{x:g}" for x in value) if isinstance(value, (list, tuple)) else f"{value:g}"


def _introduction(config, metadata):
    height, width, channels = config["image_shape"]
    kind = "Class-conditional" if config.get("num_classes") else "Unconditional"
    lines = [f"# {metadata['name']}", ""]
    if not metadata["sha256"]:
        lines += ["**This model is not pretrained: there are no weights, only the configuration.**", ""]
    elif not metadata["pretrained"]:
        lines += ["**The weights are not trained ones: its pictures and figures mean nothing.**", ""]
    if description := metadata.get("description"):
        lines += [description, ""]
    summary = (
        f"{kind} hierarchical autoregressive model with auxiliary decoders (De Fauw, Dieleman, Simonyan "
        f"2019, arXiv 1903.04933) of {height}x{width} images with {channels} "
        f"channel{'s' if channels > 1 else ''}; {len(config['levels'])} "
        f"level{'' if len(config['levels']) == 1 else 's'} of codes, "
        f"{metadata['parameters']:,} parameters."
    )
    return [*lines, summary]


def _pictures(metadata):
    lines = []
    for file, caption in (metadata.get("pictures") or {}).items():
        lines += ["", f"![{caption}]({file})", "", caption]
    return lines


def _use(config, metadata, source):
    lines = ["```python", "import haim_tf", ""]
    lines += [f'model = haim_tf.load("{source or metadata["name"]}")  # or the path of this folder']
    if config.get("num_classes"):
        lines += ["images = model.sample(16, labels=0)  # uint8 (16, H, W, C)", "```"]
    else:
        lines += ["images = model.sample(16)  # uint8 (16, H, W, C)", "```"]
    if names := metadata.get("class_names"):
        shown = [f"{i} {name}" for i, name in enumerate(names[:20])]
        lines += ["", f"Labels: {', '.join(shown)}{', ...' if len(names) > 20 else ''}."]
    return lines


def _facts(facts):
    return [f"- {key.replace('_', ' ')}: {_text(key, value)}" for key, value in (facts or {}).items()]


def _text(key, value):
    return f"`{value}`" if key == "command" else str(value)


def _architecture(config, metadata):
    by_part = metadata["parameters_by_part"]
    rows = [["part", "codes", "codebook size K", "capacity, bits", "autoencoder", "main decoder or prior"]]
    for i, (h, w, K) in enumerate(code_grids(config), start=1):
        capacity = f"{h * w * math.log2(K):,.0f}"
        autoencoder, decoder = by_part[f"autoencoder_{i}"], by_part[f"decoder_{i}"]
        rows.append([f"level {i}", f"{h}x{w}", str(K), capacity, f"{autoencoder:,}", f"{decoder:,}"])
    rows.append(["prior", "", "", "", "", f"{by_part['prior']:,}"])
    notes = ["The capacity of a level is h w log2(K); the last two columns count parameters."]
    if teachers := sum(count for part, count in by_part.items() if part.startswith("teacher")):
        notes.append(f"{teachers:,} more are of the teacher, which only the training of codes needs.")
    told = [str(i) for i, level in enumerate(config["levels"], start=1) if level["decoder"].get("labels")]
    if told:
        notes.append(f"Told the label: the prior and the main decoder of level {', '.join(told)}.")
    return [*_table(rows), "", " ".join(notes)]


def _evaluation(report):
    if not report:
        return []
    rows = [["", "bits/dim", "with another image's codes", "perplexity", "active codes"]]
    rows[0] += ["error, auxiliary decoder", "error, main decoder"]
    for name, bits in report["bits_per_dim"].items():
        level = report.get("levels", {}).get(name, {})
        rows.append(
            [
                name.replace("_", " "),
                f"{bits:.4f}",
                _number(level.get("bits_per_dim_shuffled_codes"), ".4f"),
                _number(level.get("perplexity"), ".1f"),
                _number(level.get("active_fraction"), ".1%"),
                _number(level.get("error_auxiliary"), ".4f"),
                _number(level.get("error_main"), ".4f"),
            ]
        )
    split = f", {report['split']}" if "split" in report else ""
    return [
        f"`haim_tf evaluate` on {report['num']:,} images of {report['data']}{split}, seed {report['seed']}:",
        "",
        *_table(rows),
        "",
        "Bits/dim are upper bounds; errors are squared, of pixels in -1..1 (main decoders: plain samples).",
    ]


def _metrics(metrics):
    if not metrics:
        return []
    keys = [
        key for key in ("name", "value", "split", "count", "command") if any(key in row for row in metrics)
    ]
    rows = [[_text(key, row[key]) if key in row else "" for key in keys] for row in metrics]
    return ["", *_table([[{"name": "metric", "count": "images"}.get(key, key) for key in keys], *rows])]


def _file(metadata):
    if not metadata["sha256"]:
        return [f"Written by haim_tf {metadata['haim_tf_version']} with keras {metadata['keras_version']}."]
    return [
        f"Weights in {metadata['precision']}, sha256 `{metadata['sha256']}`; written by haim_tf "
        f"{metadata['haim_tf_version']} with keras {metadata['keras_version']}."
    ]


def _number(value, spec):
    return "" if value is None else format(value, spec)


def _table(rows):
    header, *rows = ["| " + " | ".join(row) + " |" for row in rows]
    return [header, "|---" * (header.count("|") - 1) + "|", *rows]
