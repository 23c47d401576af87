"""The pictures of a model card: sheets of samples, of classes, under guidance, and of reconstructions."""

from typing import Any

import numpy as np

from haim_tf.class_names import relabelled
from haim_tf.data import ImageData
from haim_tf.models import HierarchicalModel

PLAIN = {"temperature": 1.0, "top_p": 1.0, "guidance": 1.0}
PLAIN_SAMPLES = 32
# Of the sheets with a row per class.
SHOWN_CLASSES = 10
SAMPLES_OF_A_CLASS = 8
GUIDANCE = (1.0, 2.0, 4.0)
RECONSTRUCTED = 10

SAMPLES = "Samples, seed {seed}, {sampling}, none left out."
SAMPLES_BY_CLASS = "Samples, a column per class, seed {seed}, {sampling}, none left out."
CLASSES = "Samples, a row per class ({names}), seed {seed}, {sampling}, none left out."
UNDER_GUIDANCE = (
    "The rows of classes.png under guidance {values}, one set below the other: same seeds, otherwise "
    "{sampling}, none left out."
)
RECONSTRUCTIONS = (
    "Held-out images (top row), evenly spaced in the data. Below, level by level from the finest: what the "
    "auxiliary decoders make of the level's codes, then two samples of the main decoders given these codes, "
    "{sampling}."
)


def make_sheets(
    model: HierarchicalModel,
    samples: int,
    seed: int,
    shown_classes: list[int] | None = None,
    images: ImageData | None = None,
) -> dict[str, tuple[np.ndarray, int | None, str]]:
    """The sheets of a card, by file name: pictures, uint8 `(N, H, W, C)`, columns (`None`: as many as rows)
    and caption. Arguments and files as for `publish_preset`."""
    sheets = {"samples.png": sample_sheet(model, samples, seed)}
    if described(model.sampling_defaults) != described(PLAIN):
        sheets["samples_plain.png"] = sample_sheet(model, min(samples, PLAIN_SAMPLES), seed, **PLAIN)
    if model.num_classes:
        classes = shown_classes or list(range(min(SHOWN_CLASSES, model.num_classes)))
        names = ", ".join(str(c) if model.class_names is None else model.class_names[c] for c in classes)
        caption = CLASSES.format(names=names, seed=seed, sampling=described(model.sampling_defaults))
        sheets["classes.png"] = class_rows(model, classes, seed), SAMPLES_OF_A_CLASS, caption
        if model.takes_guidance:
            rows = [class_rows(model, classes, seed, guidance=guidance) for guidance in GUIDANCE]
            caption = UNDER_GUIDANCE.format(
                values=", ".join(f"{guidance:g}" for guidance in GUIDANCE),
                sampling=described({**model.sampling_defaults, "guidance": 1.0}),
            )
            sheets["guidance.png"] = np.concatenate(rows), SAMPLES_OF_A_CLASS, caption
    if images is not None and model.num_levels:
        sampling = dict(model.sampling_defaults)
        if not any(decoder.takes_guidance for decoder in model.decoders):
            sampling["guidance"] = 1.0
        caption = RECONSTRUCTIONS.format(sampling=described(sampling))
        sheets["reconstructions.png"] = reconstructions(model, images, seed), RECONSTRUCTED, caption
    return sheets


def sample_sheet(
    model: HierarchicalModel, samples: int, seed: int, **sampling: Any
) -> tuple[np.ndarray, int | None, str]:
    """Samples, a column per class where there is room; their sheet's columns (or `None`); its caption."""
    labels, columns, caption = None, None, SAMPLES
    if model.num_classes and model.num_classes <= samples:
        columns, caption = model.num_classes, SAMPLES_BY_CLASS
        samples -= samples % columns
        labels = [i % columns for i in range(samples)]
    sheet = model.sample(samples, labels, seed=seed, **sampling)
    said = described({**model.sampling_defaults, **sampling})
    return sheet, columns, caption.format(seed=seed, sampling=said)


def class_rows(model: HierarchicalModel, classes: list[int], seed: int, **sampling: Any) -> np.ndarray:
    """Samples, eight of each class, one class after the other, uint8 `(N, H, W, C)`."""
    labels = np.repeat(classes, SAMPLES_OF_A_CLASS)
    return model.sample(len(labels), labels, seed=seed, **sampling)


def reconstructions(model: HierarchicalModel, images: ImageData, seed: int) -> np.ndarray:
    """The rows of reconstructions.png, one after the other, uint8 `(N, H, W, C)`."""
    places = np.linspace(0, len(images) - 1, RECONSTRUCTED).astype(int)
    rows = [np.asarray(images.images[places])]
    labels = None
    if model.decodes_by_label() and images.labels is not None:
        labels = relabelled(images, model, say=lambda text: None).labels[places]
    for level in range(1, model.num_levels + 1):
        if model.has_auxiliary(level):
            rows.append(model.reconstruct(rows[0], level=level, decoder="auxiliary"))
        rows += [model.reconstruct(rows[0], level=level, seed=seed + i, labels=labels) for i in range(2)]
    return np.concatenate(rows)


def described(sampling: dict) -> str:
    """How a model samples, in words.

    Example:
        >>> described({"temperature": [1.0, 0.9], "top_p": [0.95, 0.95], "guidance": 2.0})
        'temperature 1, 0.9 (level by level, then the prior), top_p 0.95, guidance 2'
    """
    words = []
    for name, values in sampling.items():
        values = [f"{x:g}" for x in np.ravel(values)]
        if len(set(values)) > 1:
            words.append(f"{name} {', '.join(values)} (level by level, then the prior)")
        elif name == "temperature" or values[0] != "1":
            words.append(f"{name} {values[0]}")
    return ", ".join(words)
