"""Dropping codes that data hardly uses from the codebooks of a trained hierarchy."""

import keras
import numpy as np

from haim_tf.models.hierarchy import HierarchicalModel


def without_rare_codes(model: HierarchicalModel, images: np.ndarray, below: float = 0.1) -> HierarchicalModel:
    """A copy of a hierarchy whose codebooks lack the codes that images hardly use.

    What was such a code becomes the nearest of the others. Rare codes cost the networks outputs and
    parameters, and the vector quantizer, which revives them again and again in training, leaves them behind
    when it ends.

    Args:
        model: a `HierarchicalModel`.
        images: typical ones, uint8 or float in 0..255, `(B, H, W, C)`.
        below: codes of a smaller share than this part of uniform usage, 1/K, are dropped; in [0, 1). At
            least the two most used ones stay.

    Returns:
        A `HierarchicalModel`, in float32; weights are the model's own, without the dropped codes' rows.

    Raises:
        ValueError: `below` is out of its range, or the images do not fit the model.

    Example:
        >>> model = haim_tf.load("debug")
        >>> without_rare_codes(model, model.sample(8)).codebook_sizes[0] <= model.codebook_sizes[0]
        True
    """
    if not 0 <= below < 1:
        raise ValueError(f"below must be in [0, 1), got {below!r}")
    smaller = _copy(model)
    for level in range(1, model.num_levels + 1):
        # Finest first: the codes of a level depend on those below it.
        codes, size = smaller.encode(images)[level - 1], smaller.codebook_sizes[level - 1]
        counts = np.bincount(codes.ravel(), minlength=size)
        most_used = np.isin(np.arange(size), np.argsort(-counts, kind="stable")[:2])
        kept = np.flatnonzero((counts >= below * codes.size / size) | most_used)
        if len(kept) < size:
            smaller = _copy(smaller, level, kept)
    return smaller


def _copy(model, level=None, kept=()):
    """A copy in float32; where a level is named with these codes of it alone, sorted indices."""
    config = model.get_config()
    levels, size = [dict(arguments) for arguments in config["levels"]], None
    if level is not None:
        size, levels[level - 1]["codebook_size"] = levels[level - 1]["codebook_size"], len(kept)
    smaller = type(model).from_config({**config, "levels": levels, "dtype": "float32"})
    for ours, theirs in zip(smaller.weights, model.weights, strict=True):
        value = keras.ops.convert_to_numpy(theirs)
        for axis, (new, old) in enumerate(zip(ours.shape, value.shape, strict=True)):
            if new != old:
                # Only what has an entry a code of this level differs.
                assert (old, new) == (size, len(kept)), ours.path
                value = np.take(value, kept, axis=axis)
        ours.assign(value)
    smaller.weights_history = model.weights_history
    return smaller
