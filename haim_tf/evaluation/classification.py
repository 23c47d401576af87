"""How good a training set a model's samples are: the classification accuracy score."""

import math
from collections.abc import Callable

import keras
import numpy as np
from numpy.typing import ArrayLike

from haim_tf import progress
from haim_tf.checks import require_int, require_positive_integers
from haim_tf.class_names import labelled_as
from haim_tf.data import Batches, ImageData, in_order
from haim_tf.data.prefetched import prefetched
from haim_tf.models import inputs
from haim_tf.processor import keep_freed_memory

# What three poolings leave something of.
SMALLEST_SIDE = 8
# Of the shorter side; a class shows in so many pixels.
LARGEST_SIDE = 64


def small_classifier(image_shape: tuple[int, int, int], num_classes: int) -> keras.Model:
    """A plain convolutional classifier of about 100,000 parameters, for images of 8 to 64 pixels a side.

    Larger ones are averaged over 2x2 pixels until the shorter side has 64 or fewer. Four 3x3 convolutions
    (32, 64, 64, 64), the first three each followed by 2x2 max pooling; the mean over positions; one dense
    layer.

    Args:
        image_shape: `(H, W, C)`.
        num_classes: number of labels.

    Returns:
        A `keras.Model` of images, 0..255 `(B, H, W, C)`, to logits, float32 `(B, num_classes)`.

    Raises:
        ValueError: images that three poolings leave nothing of.

    Example:
        >>> tuple(small_classifier((28, 28, 1), 10)(np.zeros((2, 28, 28, 1), "uint8")).shape)
        (2, 10)
    """
    layers = keras.layers
    if min(image_shape[:2]) < SMALLEST_SIDE:
        raise ValueError(f"images must be of at least {SMALLEST_SIDE} pixels a side, got {image_shape}")
    images = keras.Input(image_shape)
    hidden = layers.Rescaling(1 / 127.5, offset=-1)(images)
    while min(hidden.shape[1:3]) > LARGEST_SIDE:
        hidden = layers.AveragePooling2D(2)(hidden)
    for width in (32, 64, 64):
        hidden = layers.Conv2D(width, 3, padding="same", activation="relu")(hidden)
        hidden = layers.MaxPooling2D()(hidden)
    hidden = layers.Conv2D(64, 3, padding="same", activation="relu")(hidden)
    hidden = layers.GlobalAveragePooling2D()(hidden)
    return keras.Model(images, layers.Dense(num_classes, dtype="float32")(hidden))


def train_classifier(
    train: ImageData,
    num_classes: int,
    classifier: Callable[..., keras.Model] = small_classifier,
    steps: int = 2000,
    batch_size: int = 128,
    seed: int = 0,
    verbose: bool = True,
) -> keras.Model:
    """Trains a classifier of images, with Adam from 3e-3 down to 0 along a cosine and no augmentation.

    NOTE: it sets Keras' global random seed, which the classifier's initial weights are drawn with.

    Args:
        train: an `ImageData` with labels in 0..num_classes-1.
        num_classes: number of labels.
        classifier: called as `classifier(image_shape, num_classes)`, gives an uncompiled `keras.Model` of
            images in 0..255 to logits.
        steps, batch_size: length of the training, in steps, and images in a step.
        seed: an int in 0..2**32-1, for initial weights and the order of images.
        verbose: whether to show a progress bar.

    Returns:
        The `keras.Model`, trained; `feature_layer` makes an extractor of it.

    Raises:
        ValueError: an argument that is not as stated; data without labels, or with more than `num_classes`.

    Example:
        >>> data = haim_tf.data.load("fashion_mnist")
        >>> network = train_classifier(data, num_classes=10)
    """
    num_classes, steps, batch_size = require_positive_integers(
        num_classes=num_classes, steps=steps, batch_size=batch_size
    )
    seed = require_int("seed", seed, low=0, high=2**32 - 1)
    if train.labels is None:
        raise ValueError(f"{train.name} must have labels, which the classifier learns")
    if train.labels.max() >= num_classes:
        raise ValueError(f"{train.name}: labels must lie in 0..{num_classes - 1}, got {train.labels.max()}")
    keras.utils.set_random_seed(seed)
    network = classifier(train.image_shape, num_classes)
    network.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(3e-3, steps)),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    if verbose:
        progress.tell(f"Training a classifier on {train.name}, {len(train)} images, {steps} steps")
    batches = Batches(train, batch_size, seed=seed)
    keep_freed_memory()
    with progress.Bar(steps, "steps", show=verbose) as bar:
        moving = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: bar.add(batch + 1 - bar.done, loss=float(logs["loss"]))
        )
        with inputs.value_errors():
            network.fit(
                prefetched(batches), steps_per_epoch=steps, shuffle=False, callbacks=[moving], verbose=0
            )
    return network


def accuracy(network: keras.Model, data: ImageData, batch_size: int = 128) -> float:
    """The share of an `ImageData`'s images whose label a classifier thinks the likeliest, 0..1.

    Example:
        >>> data = haim_tf.data.load("fashion_mnist", "test")
        >>> share = accuracy(keras.saving.load_model("classifier.keras"), data)
    """
    right = [
        network.predict_on_batch(images).argmax(axis=1) == labels
        for images, labels in in_order(data, batch_size)
    ]
    return float(np.concatenate(right).mean())


def standard_error(share: float, num: int) -> float:
    """The standard error of a share, such as an accuracy, of `num` independent images (binomial).

    Example:
        >>> standard_error(0.5, 100)
        0.05
    """
    return math.sqrt(share * (1 - share) / num)


def classification_accuracy_score(
    sample_images: ArrayLike,
    sample_labels: ArrayLike,
    real_train: ImageData,
    real_val: ImageData,
    classifier: Callable[..., keras.Model] = small_classifier,
    steps: int = 2000,
    batch_size: int = 128,
    seed: int = 0,
    verbose: bool = True,
    real_classifier: keras.Model | None = None,
) -> dict:
    """How good a training set samples are: the accuracy on real images of a classifier that saw only samples,
    beside that of the same classifier trained on real images.

    Both trainings take the same number of steps of the same batch size, with Adam from 3e-3 down to 0 along
    a cosine, the same initial weights and no augmentation.

    NOTE: it sets Keras' global random seed, which the classifier's initial weights are drawn with.

    Args:
        sample_images: uint8 `(B, H, W, C)`.
        sample_labels: ints `(B,)`, the labels that they were sampled with.
        real_train, real_val: `ImageData` with labels; those of the second go by the class names of the first,
            where both have such.
        classifier: called as `classifier(image_shape, num_classes)`, gives an uncompiled `keras.Model` of
            images in 0..255 to logits.
        steps, batch_size: length of each training, in steps, and images in a step.
        seed: an int, 0 or more, for initial weights and the order of images.
        verbose: whether to show progress bars.
        real_classifier: what `train_classifier` has made of `real_train`, so that it is not trained again.

    Returns:
        A dict: `accuracy_samples` and `accuracy_real`, 0..1 on `real_val`, and their standard errors,
        `standard_error_samples` and `standard_error_real`; `ratio`, the first accuracy by the second;
        `num_samples`, `num_train`, `num_val`, `steps`, `batch_size`, `seed`.

    Raises:
        ValueError: labels missing, or images of different shapes.

    Example:
        >>> images, labels = np.zeros((4, 28, 28, 1), "uint8"), [0, 0, 0, 0]
        >>> real = ImageData(images, labels)
        >>> classification_accuracy_score(images, labels, real, real, steps=1, verbose=False)["ratio"]
        1.0

    Reference: Ravuri, Vinyals, "Classification accuracy score for conditional generative models", 2019.
    NOTE: there a ResNet-50 and ImageNet; here a small network, so that figures compare only with its own.
    """
    samples = ImageData(sample_images, sample_labels, name="samples")
    real_val = labelled_as(real_val, real_train)
    for data in (samples, real_train, real_val):
        if data.labels is None:
            raise ValueError(f"{data.name} has no labels: the score needs them")
        if data.image_shape != samples.image_shape:
            raise ValueError(
                f"{data.name} has images of shape {data.image_shape}, the samples {samples.image_shape}"
            )
    num_classes = 1 + max(int(data.labels.max()) for data in (samples, real_train, real_val))
    accuracies = []
    for train, network in ((samples, None), (real_train, real_classifier)):
        network = network or train_classifier(
            train, num_classes, classifier, steps, batch_size, seed, verbose
        )
        accuracies.append(accuracy(network, real_val, batch_size))
    return {
        "accuracy_samples": accuracies[0],
        "accuracy_real": accuracies[1],
        "standard_error_samples": standard_error(accuracies[0], len(real_val)),
        "standard_error_real": standard_error(accuracies[1], len(real_val)),
        "ratio": accuracies[0] / accuracies[1] if accuracies[1] else None,
        "num_samples": len(samples),
        "num_train": len(real_train),
        "num_val": len(real_val),
        "steps": steps,
        "batch_size": batch_size,
        "seed": seed,
    }
