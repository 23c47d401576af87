"""How a model is best sampled: temperature, top_p and guidance chosen by the Frechet distance of samples."""

from collections.abc import Callable

import numpy as np

from haim_tf import progress
from haim_tf.checks import check_sampling, require_int
from haim_tf.class_names import relabelled
from haim_tf.data import ImageData
from haim_tf.evaluation.distances import frechet_distance
from haim_tf.evaluation.features import check_extractor, extract_features
from haim_tf.evaluation.report import MAX_SEED, check_weights
from haim_tf.models import HierarchicalModel

TEMPERATURES = (0.9, 0.8, 0.7)
GUIDANCE = (1.5, 2.0, 3.0, 4.0)
TOP_PS = (0.98, 0.95, 0.9)
# Sizes of the last, small steps.
FINE = {"temperature": 0.03, "guidance": 0.25}


def choose_sampling(
    model: HierarchicalModel,
    images: ImageData,
    extractor: Callable,
    num: int = 1000,
    draws: int = 20,
    start: dict | None = None,
    seed: int = 0,
    batch_size: int = 64,
    verbose: bool = True,
) -> tuple[dict, list[dict]]:
    """Chooses a model's `sampling_defaults`, coordinate by coordinate.

    From plain sampling (or `start`) on, each coordinate is moved along its list of values for as long as the
    distance of the samples from the images falls: the temperature of the pixels, guidance where the model
    takes it, the temperature of the prior, those of the levels between, then top_p of the prior and of the
    pixels; and once more from the first, until nothing moves. Temperatures and guidance then move by small
    steps up or down, until nothing does or `draws` are used up. All draws have the same labels and seeds.

    NOTE: what is chosen on images that are reported on later flatters the report: take training images,
    best such that the model has not learned.

    Args:
        model: a `HierarchicalModel`.
        images: an `ImageData`; with labels where the model is class-conditional, which the samples then have,
            matched by the names of classes where both sides have them.
        extractor: as for `extract_features`.
        num: samples of a draw.
        draws: at most how many draws.
        start: a dict to begin with, as `sampling_defaults`.
        seed: an int in 0..2**31-1, of the samples.
        batch_size: images sampled at once.
        verbose: whether to print a line for each draw.

    Returns:
        `(sampling, log)`: the best dict, as `sampling_defaults` gives it, and a list of dicts, `sampling` and
        `distance` of each draw.

    Raises:
        ValueError: fewer than two images, or images that do not fit the model.

    Example:
        >>> model = haim_tf.load("debug")
        >>> images = ImageData(model.sample(8), [0] * 8)
        >>> sampling, log = choose_sampling(model, images, keras.layers.Flatten(), num=8, draws=2)
        >>> len(log)
        2
    """
    num = require_int("num", num, low=2)
    draws = require_int("draws", draws, low=1)
    seed = require_int("seed", seed, low=0, high=MAX_SEED)
    check_weights(model)
    check_extractor(extractor, model.image_shape)
    if model.num_classes and images.labels is None:
        raise ValueError(f"{images.name} must have labels, which the samples of this model are drawn with")
    images = relabelled(images, model)
    real = extract_features(images.images, extractor)
    labels = None
    if model.num_classes:
        labels = images.labels[np.arange(num) * len(images) // num]  # Of all classes, where they are sorted.
    best, log = check_sampling(start, model.num_levels + 1, model.takes_guidance), []

    def draw(sampling):
        for earlier in log:
            if earlier["sampling"] == sampling:
                return earlier["distance"]
        samples = model.sample(num, labels, seed=seed, batch_size=batch_size, verbose=False, **sampling)
        distance = frechet_distance(real, extract_features(samples, extractor))
        log.append({"sampling": sampling, "distance": distance})
        if verbose:
            progress.tell(f"draw {len(log)} of at most {draws}: distance {distance:.3f} at {sampling}")
        return distance

    least = draw(best)
    for coordinates in (_coarse(model), _fine(model)):
        moved = True
        while moved:
            moved = False
            for name, index, values_from in coordinates:
                for value in values_from(best[name] if index is None else best[name][index]):
                    tried = _with(best, name, index, value)
                    if len(log) >= draws and tried not in [earlier["sampling"] for earlier in log]:
                        return best, log
                    distance = draw(tried)
                    if distance >= least:
                        break
                    best, least, moved = tried, distance, True
    return best, log


def _coarse(model):
    """What is moved, in turn: the key, the network's index (`None` for guidance) and a function of its value
    that gives the next ones."""
    top = model.num_levels
    order = [("temperature", 0, lambda _: TEMPERATURES)]
    if model.takes_guidance:
        order.append(("guidance", None, lambda _: GUIDANCE))
    order += [("temperature", i, lambda _: TEMPERATURES) for i in (top, *range(1, top)) if i]
    return order + [("top_p", i, lambda _: TOP_PS) for i in ((top, 0) if top else (0,))]


def _fine(model):
    """The same for the last moves: up to three small steps upwards, then downwards."""

    def steps(name, step):
        lowest = 1 if name == "guidance" else FINE[name]
        return lambda value: [v for k in (1, 2, 3) if (v := round(value + k * step, 2)) >= lowest]

    moves = [(name, index) for name, index, _ in _coarse(model) if name in FINE]
    return [(name, i, steps(name, sign * FINE[name])) for name, i in moves for sign in (1, -1)]


def _with(sampling, name, index, value):
    """The dict with one coordinate changed."""
    if index is None:
        return {**sampling, name: value}
    values = list(sampling[name])
    values[index] = value
    return {**sampling, name: values}
