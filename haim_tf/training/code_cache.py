"""Codes of a data set, kept on disk: decoders and priors learn on them without running encoders again."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
from typing import TYPE_CHECKING

import keras
import numpy as np

from haim_tf import progress
from haim_tf.data import in_order
from haim_tf.data.batches import num_symmetries, transformed
from haim_tf.files import write_arrays

if TYPE_CHECKING:
    from haim_tf.data import ImageData
    from haim_tf.models import HierarchicalModel

BATCH_SIZE = 256


def cached_codes(
    model: HierarchicalModel,
    images: ImageData,
    path: str | os.PathLike,
    flip: bool = False,
    verbose: bool = True,
    turns: bool = False,
) -> list[np.ndarray]:
    """The codes of images, read from a file where it holds just those, else computed and written there.

    `N` images, `h_l, w_l` the grid of level l.

    Args:
        model: a `HierarchicalModel`.
        images: an `ImageData`.
        path: an `.npz` file; codes of other encoders or images in it are replaced.
        flip: whether the codes of the mirrored images are wanted too.
        verbose: whether to show progress.
        turns: whether those of the images (and mirrored images) turned by one to three quarters are.

    Returns:
        A list, a level each, finest first, of arrays `(S, N, h_l, w_l)` of the smallest unsigned type that
        holds the level's codes; `S`, 1, 2, 4 or 8, counts the images that each image stands for, in the order
        of `haim_tf.data.batches.transformed`. In memory and on disk, images that are first downsampled by
        4 take less for all eight than for themselves: two thirds of a byte a pixel, where at most 256 codes.
    """
    path = pathlib.Path(path)
    key = _key(model, images, flip, turns)
    names = [f"codes_{level}" for level in range(1, model.num_levels + 1)]
    try:
        with np.load(path) as saved:
            if str(saved["key"]) == key:
                return [saved[name] for name in names]
    except Exception:  # Absent, or damaged in one of the many ways a zip file can be: it is only a cache.
        pass
    codes = _encode_all(model, images, flip, turns, verbose)
    write_arrays(path, {"key": np.array(key), **dict(zip(names, codes, strict=True))})
    return codes


def _encode_all(model, images, flip, turns, verbose):
    codes, count = [], num_symmetries(flip, turns)
    for shape, size in zip(model.grid_shapes[1:], model.codebook_sizes, strict=True):
        codes.append(np.zeros((count, len(images), *shape), np.min_scalar_type(size - 1)))
    if verbose:
        size = sum(kept.nbytes for kept in codes) / 1e6
        ways = f", {count} ways each" * (count > 1)
        progress.tell(f"encoding {len(images)} images{ways}: {size:,.0f} MB")
    bar = progress.Bar(len(images), "images", show=verbose)
    start = 0
    for batch, _ in in_order(images, BATCH_SIZE):
        here = slice(start, start + len(batch))
        for number in range(count):
            # Encoders do not commute with mirroring and turning: mirrored and turned codes would not do.
            for kept, found in zip(codes, model.encode(transformed(batch, number, flip)), strict=True):
                kept[number, here] = found
        start += len(batch)
        bar.add(len(batch))
    return codes


def _key(model, images, flip, turns):
    """What the codes depend on, hashed: encoders, codebooks and images (a few of those, and their number)."""
    digest = hashlib.sha256()
    for autoencoder in model.autoencoders:
        for weight in (*autoencoder.encoder.weights, *autoencoder.quantizer.weights):
            digest.update(np.ascontiguousarray(keras.ops.convert_to_numpy(weight)))
    for place in np.linspace(0, len(images) - 1, 16).astype(int):
        digest.update(np.ascontiguousarray(images.images[[place]]))
    digest.update(json.dumps([len(images), flip, turns]).encode())
    return digest.hexdigest()
