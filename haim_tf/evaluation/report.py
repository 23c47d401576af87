"""Evaluation on held-out images: bits/dim, use of the codes, reconstruction errors."""

import math

import keras
import numpy as np

from haim_tf import files, progress
from haim_tf.checks import require_int
from haim_tf.class_names import relabelled
from haim_tf.data import ImageData
from haim_tf.evaluation import scores
from haim_tf.layers.vector_quantizer import ACTIVE_SHARE
from haim_tf.models import HierarchicalModel, inputs

# Samples take seeds of 32 bits.
MAX_SEED = 2**31 - 1


def evaluate(
    model: HierarchicalModel,
    data: ImageData,
    num: int | None = None,
    seed: int = 0,
    batch_size: int = 64,
    reconstructions: int = 256,
    verbose: bool | None = None,
) -> dict:
    """Measures a model on images.

    Args:
        model: a `HierarchicalModel`; with no levels, too.
        data: an `ImageData`, with labels where the model is class-conditional; where both name their classes,
            labels are matched by name.
        num: how many images to take, drawn at random by `seed`; `None`: all.
        seed: an int in 0..2**31-1, for the images drawn, the shuffling of codes and the samples.
        batch_size: images in a batch.
        reconstructions: at most how many of the images the main decoders reconstruct, which is slow; 0: none.
        verbose: whether to show progress bars; `None`: when there is more than one batch.

    Returns:
        A dict that `json` can write:

        - `data`, `num`, `seed`: what was measured on.
        - `bits_per_dim`: mean upper bounds by part, `level_1` (pixels given codes), ..., `prior`, and
          `total`, their sum; `standard_error`: that of `total`, `None` for a single image.
        - `levels`: one dict per level, `level_1`, ..., of
            - `grid` `[h, w]`, `codebook_size` K, `capacity_bits` h w log2(K);
            - `perplexity`: exp of the entropy of how often each code occurs in the data, 1 to K;
            - `active_fraction`: the share of the K codes that make up at least 1 % of 1/K of all that occur;
            - `bits_per_dim_shuffled_codes`: the main decoder's, had each image another's codes (a seeded
              cyclic exchange; `None` for a single image). How far it lies above `bits_per_dim` tells how much
              the main decoder relies on the codes;
            - `error_auxiliary`, `error_main`: mean squared error, in units of -1..1, of the images that the
              auxiliary decoders make of this level's codes (`None` for codes without), and of those sampled
              from the main decoders (temperature, top_p and guidance 1; `num_reconstructions` of the images).

    Raises:
        ValueError: more images asked for than there are; images or labels that do not fit the model; weights,
            or a figure of the report, that are NaN or infinite.

    Example:
        >>> model = haim_tf.load("debug")
        >>> images = np.random.default_rng(0).integers(0, 256, (8, *model.image_shape), "uint8")
        >>> report = evaluate(model, haim_tf.data.ImageData(images, labels=[0] * 8), reconstructions=2)
        >>> sorted(report["bits_per_dim"])
        ['level_1', 'level_2', 'prior', 'total']

    Reference: bounds and capacity, De Fauw, Dieleman, Simonyan 2019, sections 3 and 4.
    """
    return _evaluate(model, data, num, seed, batch_size, reconstructions, verbose, by_label=False)[0]


def evaluate_and_score(
    model: HierarchicalModel,
    data: ImageData,
    num: int | None = None,
    seed: int = 0,
    batch_size: int = 64,
    reconstructions: int = 256,
    verbose: bool | None = None,
) -> tuple[dict, dict[str, np.ndarray]]:
    """`evaluate`, and the scores of every image that was measured, from one pass over the images.

    Args, errors: as for `evaluate`.

    Returns:
        `(report, columns)`: the dict of `evaluate`, of class-conditional models with `label_posterior` (see
        `scores.summary`); and a dict of arrays `(num,)`, `image`, the image's index in the data, `path`, its
        file, where it has one of its own, then those that `scores.score` gives.

    Example:
        >>> model = haim_tf.load("debug")
        >>> report, columns = evaluate_and_score(model, haim_tf.data.ImageData(model.sample(8), [0] * 8))
        >>> columns["label_probability"].shape
        (8,)
    """
    return _evaluate(
        model, data, num, seed, batch_size, reconstructions, verbose, by_label=bool(model.num_classes)
    )


def _evaluate(model, data, num, seed, batch_size, reconstructions, verbose, by_label):
    """What `evaluate_and_score` returns; `by_label`: with the label's posterior, where there are labels."""
    if not isinstance(data, ImageData):
        raise ValueError(
            f"data must be an ImageData, such as haim_tf.data.load gives, got {type(data).__name__}"
        )
    num = require_int("num", num, low=1, optional=True)
    seed = require_int("seed", seed, low=0, high=MAX_SEED)
    batch_size = require_int("batch_size", batch_size, low=1)
    reconstructions = require_int("reconstructions", reconstructions, low=0)
    check_weights(model)
    data = relabelled(data, model)
    chosen = choose_images(len(data), num, seed)
    labels = None if data.labels is None or model.num_classes is None else data.labels[chosen]
    labels = inputs.check_labels(labels, model.num_classes, len(chosen))
    batches = [slice(i, i + batch_size) for i in range(0, len(chosen), batch_size)]
    names = [f"level_{i + 1}" for i in range(model.num_levels)]
    verbose = len(batches) > 1 if verbose is None else verbose
    bar = progress.Bar(2 * len(batches), "batches", show=verbose)

    def images_of(rows):
        return inputs.check_images(data.images[chosen[rows]], model.image_shape)

    measured = []
    for rows in batches:
        measured.append(_measure(model, images_of(rows), None if labels is None else labels[rows], by_label))
        bar.add(1)
    measured = keras.tree.map_structure(lambda *arrays: np.concatenate(arrays), *measured)
    columns = scores.columns(model, measured["log_probs"], labels, measured.get("by_label"))

    # Whose codes are exchanged is known only now that all are there.
    codes, partners = measured["codes"], _others(len(chosen), seed)
    shuffled = [[] for _ in names]
    for rows in batches:
        lower, own = images_of(rows), None if labels is None else labels[rows]
        for i, grids in enumerate(codes):
            shuffled[i].append(_run(model, "_log_probs_of", lower, grids[partners[rows]], own, i))
            lower = grids[rows]
        bar.add(1)

    drawn = choose_images(len(chosen), min(reconstructions, len(chosen)), seed)
    report = {
        "data": data.name,
        "num": len(chosen),
        "seed": seed,
        "bits_per_dim": {name: float(columns[name].mean()) for name in [*names, "prior", "total"]},
        "standard_error": _standard_error(columns["total"]),
        "num_reconstructions": len(drawn),
        "levels": {},
    }
    for i, name in enumerate(names):
        shuffled_bits = error_main = None
        if len(chosen) > 1:
            shuffled_bits = float(scores.bits_per_dim(model, np.concatenate(shuffled[i])).mean())
        if len(drawn):
            sampled = model.decode(
                codes[i][drawn],
                level=i + 1,
                seed=seed,
                temperature=1.0,
                top_p=1.0,
                guidance=1.0,
                labels=None if labels is None else labels[drawn],
                batch_size=batch_size,
                verbose=verbose,
            )
            error_main = float(squared_errors(sampled, images_of(drawn)).mean())
        errors = measured["errors"].get(name)
        report["levels"][name] = {
            **code_statistics(codes[i], model.codebook_sizes[i]),
            "bits_per_dim_shuffled_codes": shuffled_bits,
            "error_auxiliary": None if errors is None else float(errors.mean()),
            "error_main": error_main,
        }
    if by_label:
        report["label_posterior"] = scores.summary(columns)
    files.check_finite(report)
    paths = {} if data.paths is None else {"path": data.paths[chosen]}
    return report, {"image": chosen, **paths, **columns}


def _measure(model, images, labels, by_label):
    """What one batch of images says for itself, a tree of arrays `(B, ...)`: its codes, its log-probabilities
    level by level and of the top codes (and those under every label), the auxiliary decoders' errors."""
    codes = model.encode(images)
    log_probs, by_labels, errors, grids = [], [], {}, [images, *codes, None]
    for index, network in enumerate(model.networks):
        if by_label and network.num_classes:
            by_labels.append(_run(model, "_log_probs_of_labels", *grids[index : index + 2], index))
            log_probs.append(by_labels[-1][np.arange(len(images)), labels])
        else:
            log_probs.append(_run(model, "_log_probs_of", *grids[index : index + 2], labels, index))
    for level in range(1, model.num_levels + 1):
        if model.has_auxiliary(level):
            painted = _run(model, "_auxiliary", codes[level - 1], level)
            errors[f"level_{level}"] = squared_errors(painted, images)
    found = {"codes": codes, "errors": errors, "log_probs": np.stack(log_probs, axis=1)}
    return {**found, "by_label": sum(by_labels)} if by_labels else found


def _run(model, name, *arrays):
    return model._run(name, *arrays, batch_size=len(arrays[0]))


def check_weights(model: keras.Model) -> None:
    """Checks that the weights are all finite.

    Raises:
        ValueError: there is NaN or infinity in a weight, the first of which it names.

    Example:
        >>> check_weights(haim_tf.load("debug"))
    """
    for variable in model.variables:
        values = keras.ops.convert_to_numpy(variable)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise ValueError(f"the model's weights must be finite, got NaN or infinity in {variable.path}")


def code_statistics(codes: np.ndarray, codebook_size: int) -> dict:
    """How codes, int `(B, h, w)` in 0..K-1, use their codebook: the first five entries that `evaluate` gives
    of a level.

    Example:
        >>> code_statistics(np.array([[[0, 1], [1, 0]]]), codebook_size=4)["perplexity"]
        2.0
    """
    shares = np.bincount(codes.ravel(), minlength=codebook_size) / codes.size
    used = shares[shares > 0]
    return {
        "grid": list(codes.shape[1:]),
        "codebook_size": codebook_size,
        "capacity_bits": math.prod(codes.shape[1:]) * math.log2(codebook_size),
        "perplexity": float(np.exp(-np.sum(used * np.log(used)))),
        "active_fraction": float(np.mean(shares >= ACTIVE_SHARE / codebook_size)),
    }


def choose_images(count: int, num: int | None, seed: int) -> np.ndarray:
    """Sorted indices of `num` of `count` images, drawn by the seed; all where `num` is `None`.

    Raises:
        ValueError: `num` is no integer in 0..count.

    Example:
        >>> choose_images(4, None, seed=0)
        array([0, 1, 2, 3])
    """
    if num is None:
        return np.arange(count)
    if not isinstance(num, (int, np.integer)) or not 0 <= num <= count:
        raise ValueError(f"the number of images must be an int in 0..{count}, got {num!r}")
    return np.sort(np.random.default_rng(seed).permutation(count)[:num])


def _others(count, seed):
    """For each of `count` images another one: each image's successor in a random cycle through all."""
    cycle = np.random.default_rng((seed, 1)).permutation(count)
    partners = np.empty(count, "int64")
    partners[cycle] = np.roll(cycle, -1)
    return partners


def squared_errors(images: np.ndarray, originals: np.ndarray) -> np.ndarray:
    """Mean squared error of each image, in units of -1..1, `(B,)`."""
    difference = (images.astype("float64") - originals) / 127.5
    return np.square(difference).mean(axis=(1, 2, 3))


def _standard_error(values):
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None
