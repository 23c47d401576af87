"""What samples are measured with: a classifier of real images, by accuracy and distances in its features."""

from collections.abc import Sequence
from functools import cached_property

import keras
import numpy as np

from haim_tf.class_names import labelled_as, labels_of
from haim_tf.data import ImageData
from haim_tf.evaluation.classification import accuracy, classification_accuracy_score, standard_error
from haim_tf.evaluation.distances import frechet_distance, precision_and_recall
from haim_tf.evaluation.features import extract_features, feature_layer
from haim_tf.models import HierarchicalModel

NEIGHBORS = 3


def draw_samples(
    model: HierarchicalModel,
    num: int,
    classes: Sequence[int | str] | None = None,
    seed: int = 0,
    batch_size: int = 64,
    verbose: bool | None = None,
    frequencies: Sequence[float] | None = None,
) -> ImageData:
    """Samples of a class-conditional model for labels drawn at random, as its `sampling_defaults` say.

    Args:
        model: a class-conditional `HierarchicalModel`.
        num: how many.
        classes: the labels to draw from, or their names; `None`: all.
        seed: an int, 0 or more, of labels and samples.
        batch_size, verbose: as for `HierarchicalModel.sample`.
        frequencies: how often each of the classes is drawn, relative to the others, such as their counts in
            data that samples are to stand for; `None`: all alike.

    Raises:
        ValueError: the model is not class-conditional; classes that it does not have; frequencies that are
            not one number of at least 0 per class.

    Example:
        >>> draw_samples(haim_tf.load("debug"), 4, classes=[2, 3]).images.shape
        (4, 16, 16, 3)
    """
    if not model.num_classes:
        raise ValueError("this model is not class-conditional: its samples have no labels")
    classes = np.arange(model.num_classes) if classes is None else labels_of(classes, model.class_names)
    if classes.ndim != 1 or not len(classes):
        raise ValueError(f"classes must be a list of at least one, got {classes.tolist()!r:.60}")
    rng = np.random.default_rng(seed)
    if frequencies is None:
        drawn = rng.integers(len(classes), size=num)
    else:
        drawn = rng.choice(len(classes), size=num, p=_probabilities(frequencies, len(classes)))
    labels = classes[drawn]
    images = model.sample(num, labels, seed=seed, batch_size=batch_size, verbose=verbose)
    return ImageData(images, labels, model.class_names, name="samples")


def _probabilities(frequencies, num_classes):
    frequencies = np.asarray(frequencies, dtype="float64")
    finite = frequencies.shape == (num_classes,) and np.isfinite(frequencies).all()
    if not finite or frequencies.min() < 0 or frequencies.sum() == 0:
        raise ValueError(
            f"frequencies must be one number of at least 0 for each of the {num_classes} classes, not all 0, "
            f"got {frequencies.tolist()!r:.60}"
        )
    return frequencies / frequencies.sum()


class Judge:
    """Measures samples by a classifier that was trained on real images.

    It gives the accuracy that a classifier trained on samples is compared with, and the features, those it
    decides by, in which sets of images are compared. Figures of one judge compare with each other only.
    Labels of images with class names are matched with those of the training images by name.

    Args:
        network: the classifier, as `train_classifier` returns it.
        train: an `ImageData` with labels, what it was trained on.
        val: an `ImageData`, real images that it has not seen: distances are from them.
        scored: an `ImageData` with labels, real images that accuracies are measured on, where it should be
            others, such as more of them; `None`: `val`.

    Raises:
        ValueError: a class that the training images do not have.

    Example:
        >>> train, val = (haim_tf.data.load("fashion_mnist", split) for split in ("train", "val"))
        >>> judge = Judge(train_classifier(train, num_classes=10), train, val)
        >>> samples = draw_samples(haim_tf.load("fashion_mnist28"), num=10000)
        >>> judge.score_samples(samples)["frechet_distance"] / judge.score_real(10000)["frechet_distance"]
    """

    def __init__(
        self, network: keras.Model, train: ImageData, val: ImageData, scored: ImageData | None = None
    ):
        self.network, self.train, self.val = network, train, val
        self.scored = labelled_as(val if scored is None else scored, train)
        self._extractor = feature_layer(network)

    def score_real(self, num: int, seed: int = 0) -> dict:
        """How good real images are, which no samples should be expected to beat.

        Args:
            num: how many of the training images to compare, drawn at random; all where there are fewer.
            seed: an int, of what is drawn.

        Returns:
            A dict: `accuracy` of the judge, 0..1, its `standard_error`, `num_scored`, `num_train`, `num_val`;
            and what `distances` gives of the training images.

        Example:
            >>> train, val = (haim_tf.data.load("fashion_mnist", split) for split in ("train", "val"))
            >>> judge = Judge(train_classifier(train, num_classes=10), train, val)
            >>> judge.score_real(10000)["num_scored"] == len(val)
            True
        """
        rows = np.random.default_rng(seed).permutation(len(self.train))[:num]
        right = accuracy(self.network, self.scored)
        return {
            "accuracy": right,
            "standard_error": standard_error(right, len(self.scored)),
            "num_scored": len(self.scored),
            "num_train": len(self.train),
            "num_val": len(self.val),
            **self.distances(self.train.images[np.sort(rows)]),
        }

    def score_samples(
        self,
        samples: ImageData,
        steps: int = 2000,
        batch_size: int = 128,
        seed: int = 0,
        verbose: bool = True,
    ) -> dict:
        """How good samples are.

        Args:
            samples: an `ImageData` with the labels that they were drawn for.
            steps, batch_size, seed, verbose: of the classifier that is trained on them, best those of the
                judge; see `train_classifier`.

        Returns:
            A dict: what `classification_accuracy_score` gives, with `num_scored`, the images that accuracies
            are measured on, and `num_val`, those that distances are from; and what `distances` gives.

        Example:
            >>> train, val = (haim_tf.data.load("fashion_mnist", split) for split in ("train", "val"))
            >>> judge = Judge(train_classifier(train, num_classes=10), train, val)
            >>> samples = draw_samples(haim_tf.load("fashion_mnist28"), num=10000)
            >>> 0 <= judge.score_samples(samples)["recall"] <= 1
            True
        """
        samples = labelled_as(samples, self.train)
        score = classification_accuracy_score(
            samples.images,
            samples.labels,
            self.train,
            self.scored,
            steps=steps,
            batch_size=batch_size,
            seed=seed,
            verbose=verbose,
            real_classifier=self.network,
        )
        counts = {"num_scored": score["num_val"], "num_val": len(self.val)}
        return {**score, **counts, **self.distances(samples.images)}

    def distances(self, images: np.ndarray) -> dict:
        """How far images, uint8 `(B, H, W, C)`, are from the validation images, in the judge's features: a
        dict of `frechet_distance`, `precision`, `recall`, `neighbors`, and `counts` of both sets.

        Example:
            >>> train, val = (haim_tf.data.load("fashion_mnist", split) for split in ("train", "val"))
            >>> judge = Judge(train_classifier(train, num_classes=10), train, val)
            >>> sorted(judge.distances(train.images[:1000]))
            ['counts', 'frechet_distance', 'neighbors', 'precision', 'recall']
        """
        found = extract_features(images, self._extractor)
        neighbors = min(NEIGHBORS, len(self._features) - 1, len(found) - 1)
        return {
            "frechet_distance": frechet_distance(self._features, found),
            **precision_and_recall(self._features, found, neighbors),
            "counts": [len(self._features), len(found)],
        }

    @cached_property
    def _features(self):
        return extract_features(self.val.images, self._extractor)
