"""Scores of single images: bits/dim by level, and the label's posterior by Bayes' rule.

Encoders and the networks that are told no label, most often all but the prior, run once for all labels.
"""

import csv
import io
import math
import os
from os import PathLike

import numpy as np
from numpy.typing import ArrayLike

from haim_tf import files
from haim_tf.models import HierarchicalModel, inputs


def label_log_probs(model: HierarchicalModel, images: ArrayLike, batch_size: int = 64) -> np.ndarray:
    """The bound of log p(x given y) of images under every label y, float64 `(B, num_classes)`, nats.

    Args:
        model: a class-conditional `HierarchicalModel`.
        images: uint8, or float in 0..255, `(B, H, W, C)`.
        batch_size: images in a batch.

    Raises:
        ValueError: the model is not class-conditional, or images do not fit.

    Example:
        >>> model = haim_tf.load("debug")
        >>> log_probs = label_log_probs(model, model.sample(2))
        >>> label_posterior(log_probs).sum(axis=1)
        array([1., 1.])
    """
    return _parts(model, images, batch_size).sum(axis=1)


def label_posterior(log_probs: ArrayLike) -> np.ndarray:
    """p(y given x) by Bayes' rule, with equally likely labels.

    Args:
        log_probs: log p(x given y), nats, `(B, num_classes)`, as `label_log_probs` gives them.

    Returns:
        float64 `(B, num_classes)`, each row a distribution.

    Raises:
        ValueError: log_probs of another shape.

    Example:
        >>> label_posterior([[0.0, np.log(3.0)]])
        array([[0.25, 0.75]])

    NOTE: from bounds instead of likelihoods, and so an approximation: it is exact for the codes that
    networks told the label are of.
    """
    log_probs = np.asarray(log_probs, "float64")
    if log_probs.ndim != 2 or not log_probs.shape[1]:
        raise ValueError(f"log_probs must be (B, num_classes), got shape {log_probs.shape}")
    shares = np.exp(log_probs - log_probs.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


def score(
    model: HierarchicalModel, images: ArrayLike, labels: ArrayLike | None = None, batch_size: int = 64
) -> dict[str, np.ndarray]:
    """Scores of every image.

    Args:
        model: a `HierarchicalModel`.
        images: uint8, or float in 0..255, `(B, H, W, C)`.
        labels: ints `(B,)` of a class-conditional model.
        batch_size: images in a batch.

    Returns:
        A dict of arrays `(B,)`: bits/dim `level_1`, ..., `prior` and `total`; of class-conditional models
        also `label`, `predicted_label`, the most probable one, and `label_probability`, that of `label`.

    Raises:
        ValueError: images or labels that do not fit the model.
    """
    labels = inputs.check_labels(labels, model.num_classes, len(images), model.class_names)
    if not model.num_classes:
        images = inputs.check_images(images, model.image_shape)
        return columns(model, model._run("_log_probs", images, None, batch_size=batch_size))
    by_label = _parts(model, images, batch_size)
    own = by_label[np.arange(len(images)), :, labels]
    return columns(model, own, labels, by_label.sum(axis=1))


def marginal_log_probs(model: HierarchicalModel, images: ArrayLike, batch_size: int = 64) -> np.ndarray:
    """What a model says of images whose labels are unknown, nats, float64 `(B, L + 1)`: log p of each level
    given the codes above it, finest first, and of the top codes. Labels are equally likely and summed over.

    Args:
        model: a `HierarchicalModel`, class-conditional or not.
        images: uint8, or float in 0..255, `(B, H, W, C)`.
        batch_size: images in a batch.

    Raises:
        ValueError: images that do not fit the model.

    Example:
        >>> model = haim_tf.load("debug")
        >>> marginal_log_probs(model, model.sample(2)).shape
        (2, 3)
    """
    if not model.num_classes:
        images = inputs.check_images(images, model.image_shape)
        return model._run("_log_probs", images, None, batch_size=batch_size).astype("float64")
    # From the top down: of all codes so far together, then of each level's given those above it.
    joint = np.cumsum(_parts(model, images, batch_size)[:, ::-1], axis=1)[:, ::-1]
    joint = np.logaddexp.reduce(joint, axis=2) - math.log(model.num_classes)
    return np.concatenate([joint[:, :-1] - joint[:, 1:], joint[:, -1:]], axis=1)


def columns(
    model: HierarchicalModel,
    log_probs: np.ndarray,
    labels: np.ndarray | None = None,
    by_label: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """The dict that `score` gives, from log-probabilities in nats.

    Args:
        model: the `HierarchicalModel` that they are of.
        log_probs: `(B, L + 1)`, of each level given the codes above it, finest first, and of the top codes.
        labels: ints `(B,)`.
        by_label: of the images under every label, `(B, num_classes)`, up to what no label changes; without
            it nothing is said of the label's posterior.
    """
    bits = bits_per_dim(model, log_probs)
    names = [f"level_{i + 1}" for i in range(model.num_levels)] + ["prior"]
    found = {**dict(zip(names, bits.T, strict=True)), "total": bits.sum(axis=1)}
    if by_label is not None:
        posterior = label_posterior(by_label)
        found["label"] = labels
        found["predicted_label"] = posterior.argmax(axis=1)
        found["label_probability"] = posterior[np.arange(len(labels)), labels]
    return found


def bits_per_dim(model: HierarchicalModel, log_probs: np.ndarray) -> np.ndarray:
    """Log-probabilities, nats, of a model's images as bits per dimension, float64."""
    return -log_probs.astype("float64") / (math.prod(model.image_shape) * math.log(2.0))


def summary(scores: dict[str, np.ndarray]) -> dict:
    """Accuracy of the most probable label and mean log2 of the label's posterior, from `score`'s dict."""
    right = scores["predicted_label"] == scores["label"]
    bits = np.log2(np.maximum(scores["label_probability"], 1e-300))
    return {"accuracy": float(right.mean()), "mean_log2_probability": float(bits.mean()), "num": len(right)}


def write_csv(path: str | PathLike, columns: dict[str, np.ndarray]) -> None:
    """Writes a dict of arrays `(B,)`, numbers or texts, to a CSV file with a header, never half-written;
    paths that are no UTF-8 keep their bytes."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in zip(*columns.values(), strict=True):
        writer.writerow([x if isinstance(x, (np.integer, str)) else f"{x:.6g}" for x in row])
    files.write_file(path, lambda file: file.write(os.fsencode(text.getvalue())))


def _parts(model, images, batch_size):
    if not model.num_classes:
        raise ValueError("this model is not class-conditional: it has no likelihood of a label")
    images = inputs.check_images(images, model.image_shape)
    return model._run("_log_probs_by_label", images, batch_size=batch_size).astype("float64")
