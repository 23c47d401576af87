"""Codes of a data set, kept on disk: decoders and priors learn on them without running encoders again."""

import hashlib
import json
import pathlib

import keras
import numpy as np

from haim_tf import progress
from haim_tf.data import in_order
from haim_tf.files import write_arrays

BATCH_SIZE = 256


def cached_codes(model, images, path, mirrored=False, verbose=True):
    """The codes of images, read from a file where it holds just those, else computed and written there.

    `N` images, `h_l, w_l` the grid of level l.

    Args:
        model: a `HierarchicalModel`.
        images: an `ImageData`.
        path: an `.npz` file; codes of other encoders or images in it are replaced.
        mirrored: whether the codes of the mirrored images are wanted too.
        verbose: whether to show progress.

    Returns:
        A list, a level each, finest first, of uint8 or int32 arrays `(1, N, h_l, w_l)`; with `mirrored`
        `(2, N, h_l, w_l)`, the mirrored images' codes at index 1.
    """
    path = pathlib.Path(path)
    key = _key(model, images, mirrored)
    names = [f"codes_{level}" for level in range(1, model.num_levels + 1)]
    try:
        with np.load(path) as saved:
            if str(saved["key"]) == key:
                return [saved[name] for name in names]
    except Exception:  # Absent, or damaged in one of the many ways a zip file can be: it is only a cache.
        pass
    codes = _encode_all(model, images, mirrored, verbose)
    write_arrays(path, {"key": np.array(key), **dict(zip(names, codes, strict=True))})
    return codes


def _encode_all(model, images, mirrored, verbose):
    codes = []
    for shape, size in zip(model.grid_shapes[1:], model.codebook_sizes, strict=True):
        dtype = "uint8" if size <= 256 else "int32"
        codes.append(np.zeros((1 + mirrored, len(images), *shape), dtype))
    if verbose:
        progress.tell(f"encoding {len(images)} images")
    bar = progress.Bar(len(images), "images", show=verbose)
    start = 0
    for batch, _ in in_order(images, BATCH_SIZE):
        here = slice(start, start + len(batch))
        for side in range(1 + mirrored):
            # Encoders do not commute with mirroring, so that flipped codes would not do.
            for kept, found in zip(codes, model.encode(batch[:, :, ::-1] if side else batch), strict=True):
                kept[side, here] = found
        start += len(batch)
        bar.add(len(batch))
    return codes


def _key(model, images, mirrored):
    """What the codes depend on, hashed: encoders, codebooks and images (a few of those, and their number)."""
    digest = hashlib.sha256()
    for autoencoder in model.autoencoders:
        for weight in (*autoencoder.encoder.weights, *autoencoder.quantizer.weights):
            digest.update(np.ascontiguousarray(keras.ops.convert_to_numpy(weight)))
    for place in np.linspace(0, len(images) - 1, 16).astype(int):
        digest.update(np.ascontiguousarray(images.images[[place]]))
    digest.update(json.dumps([len(images), bool(mirrored)]).encode())
    return digest.hexdigest()
