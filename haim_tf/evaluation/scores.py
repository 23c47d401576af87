"""Scores of single images: bits/dim by level, and the label's posterior by Bayes' rule.

The label enters the prior only, so that encoder and main decoders run once for all labels.
"""

import math

import numpy as np

from haim_tf import files
from haim_tf.models import inputs


def label_log_probs(model, images, batch_size=64):
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
    below, prior = _parts(model, images, batch_size)
    return below.sum(axis=1, keepdims=True) + prior


def label_posterior(log_probs):
    """p(y given x) by Bayes' rule from `(B, num_classes)` log p(x given y), with equally likely labels.

    NOTE: from bounds instead of likelihoods, and so an approximation: it is exact for the codes, whose prior
    the label enters.
    """
    log_probs = np.asarray(log_probs, "float64")
    shares = np.exp(log_probs - log_probs.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


def score(model, images, labels=None, batch_size=64):
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
    labels = inputs.check_labels(labels, model.num_classes, len(images))
    if model.num_classes:
        below, prior = _parts(model, images, batch_size)
        rows = np.arange(len(images))
        log_probs = np.concatenate([below, prior[rows, labels][:, None]], axis=1)
    else:
        images = inputs.check_images(images, model.image_shape)
        log_probs = model._run("_log_probs", images, None, batch_size=batch_size).astype("float64")
    bits = -log_probs / (math.prod(model.image_shape) * math.log(2.0))
    names = [f"level_{i + 1}" for i in range(model.num_levels)] + ["prior"]
    scores = {**dict(zip(names, bits.T, strict=True)), "total": bits.sum(axis=1)}
    if model.num_classes:
        posterior = label_posterior(prior)
        scores["label"] = labels
        scores["predicted_label"] = posterior.argmax(axis=1)
        scores["label_probability"] = posterior[rows, labels]
    return scores


def score_data(model, data, rows, batch_size=64):
    """`score` of some images of an `ImageData`, batch by batch, after `image`, which are their `rows`."""
    parts = []
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        labels = data.labels[batch] if model.num_classes else None
        parts.append(score(model, data.images[batch], labels, batch_size))
    return {"image": rows, **{name: np.concatenate([part[name] for part in parts]) for name in parts[0]}}


def summary(scores):
    """Accuracy of the most probable label and mean log2 of the label's posterior, from `score`'s dict."""
    right = scores["predicted_label"] == scores["label"]
    bits = np.log2(np.maximum(scores["label_probability"], 1e-300))
    return {"accuracy": float(right.mean()), "mean_log2_probability": float(bits.mean()), "num": len(right)}


def write_csv(path, columns):
    """Writes a dict of arrays `(B,)` to a CSV file with a header, never half-written."""
    lines = [",".join(columns)]
    for row in zip(*columns.values(), strict=True):
        lines.append(",".join(str(x) if isinstance(x, np.integer) else f"{x:.6g}" for x in row))
    files.write_file(path, lambda file: file.write(("\n".join(lines) + "\n").encode()))


def _parts(model, images, batch_size):
    if not model.num_classes:
        raise ValueError("this model is not class-conditional: it has no likelihood of a label")
    images = inputs.check_images(images, model.image_shape)
    below, prior = model._run("_log_probs_by_label", images, batch_size=batch_size)
    return below.astype("float64"), prior.astype("float64")
