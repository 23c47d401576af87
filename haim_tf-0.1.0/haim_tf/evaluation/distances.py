"""How far samples are from real images, in a space of features: Frechet distance, precision and recall."""

import numpy as np
from numpy.typing import ArrayLike

# Rows of the distance matrix that are held at once.
ROWS = 512


def frechet_distance(real: ArrayLike, samples: ArrayLike) -> float:
    """Frechet distance of two sets of features, each seen as a Gaussian; 0 for equal means and covariances.

    |mean difference|^2 + trace(S_real + S_samples - 2 (S_real S_samples)^(1/2)), in float64. With features of
    Inception-v3 it is called FID. It falls as the sets grow: compare figures of equal counts only.

    Args:
        real, samples: arrays `(N, F)` and `(M, F)`, of at least 2 examples each.

    Returns:
        A float of at least 0, in squared units of the features.

    Raises:
        ValueError: other shapes, or values that are not finite.

    Example:
        >>> features = np.random.default_rng(0).normal(size=(1000, 4))
        >>> round(frechet_distance(features, features + 1), 6)
        4.0

    Reference: Heusel et al. 2017, GANs trained by a two time-scale update rule converge to a local Nash
    equilibrium, arXiv 1706.08500, equation 6.
    """
    real, samples = _check(real, samples, minimum=2)
    difference = real.mean(axis=0) - samples.mean(axis=0)
    covariances = [np.atleast_2d(np.cov(features, rowvar=False)) for features in (real, samples)]
    # The product's root has the trace of the root of this symmetric matrix, which stays real and accurate
    # where covariances are singular.
    values, vectors = np.linalg.eigh(covariances[0])
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    values = np.linalg.eigvalsh(root @ covariances[1] @ root)
    shared = np.sqrt(np.maximum(values, 0.0)).sum()
    distance = difference @ difference + np.trace(covariances[0]) + np.trace(covariances[1]) - 2.0 * shared
    return max(float(distance), 0.0)


def precision_and_recall(real: ArrayLike, samples: ArrayLike, neighbors: int = 3) -> dict:
    """Precision, the share of samples that are like real ones, and recall, the share of real ones that are
    like samples: those no farther from some example of the other set than its k-th nearest of its own set.

    Args:
        real, samples: arrays `(N, F)` and `(M, F)`, more than k examples each.
        neighbors: k.

    Returns:
        A dict: `precision` and `recall`, 0..1, and `neighbors`.

    Raises:
        ValueError: other shapes, values that are not finite, or too few examples.

    Example:
        >>> real = np.random.default_rng(0).normal(size=(100, 2))
        >>> precision_and_recall(real, real + 100)
        {'precision': 0.0, 'recall': 0.0, 'neighbors': 3}

    Reference: Kynkaanniemi et al. 2019, Improved precision and recall metric for assessing generative models,
    arXiv 1904.06991, section 2. There k = 3, too.
    """
    if isinstance(neighbors, bool) or not isinstance(neighbors, (int, np.integer)) or neighbors < 1:
        raise ValueError(f"neighbors must be an int of at least 1, got {neighbors!r}")
    real, samples = _check(real, samples, minimum=neighbors + 1)
    return {
        "precision": _share_within(samples, real, neighbors),
        "recall": _share_within(real, samples, neighbors),
        "neighbors": int(neighbors),
    }


def _share_within(candidates, members, neighbors):
    """The share of candidates that lie in the ball of some member, which reaches to its k-th neighbour."""
    # Each member's nearest is itself.
    radii = [np.partition(rows, neighbors, axis=1)[:, neighbors] for rows in _distances(members, members)]
    radii = np.concatenate(radii)
    return float(np.mean(np.concatenate([(d <= radii).any(axis=1) for d in _distances(candidates, members)])))


def _distances(a, b):
    """Squared distances of the rows of `a` to those of `b`, some rows at a time."""
    squares = np.square(b).sum(axis=1)
    for start in range(0, len(a), ROWS):
        rows = a[start : start + ROWS]
        yield np.maximum(np.square(rows).sum(axis=1)[:, None] + squares - 2.0 * rows @ b.T, 0.0)


def _check(real, samples, minimum):
    real, samples = (np.asarray(features, "float64") for features in (real, samples))
    for name, features in {"real": real, "samples": samples}.items():
        if features.ndim != 2 or len(features) < minimum:
            raise ValueError(f"{name} must be features (N, F) with N >= {minimum}, got {features.shape}")
        if not np.isfinite(features).all():
            raise ValueError(f"{name} must be finite, got NaN or infinity")
    if real.shape[1] != samples.shape[1]:
        raise ValueError(
            f"real and samples must have as many features, got {real.shape[1]} and {samples.shape[1]}"
        )
    return real, samples
