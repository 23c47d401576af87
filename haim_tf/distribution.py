"""A model as a TensorFlow Probability distribution, to be used inside other TFP code.

Importing this module needs tensorflow and tensorflow-probability; `HierarchicalModel.as_distribution` and
`prior_distribution` import it.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from haim_tf.backend import has_accelerator
from haim_tf.checks import check_per_level, require_int
from haim_tf.class_names import Labels, labels_of
from haim_tf.models import HierarchicalModel, inputs
from haim_tf.sampling import at_most

# Samples of one compiled program: whatever number is asked for is drawn in chunks of at most this many.
_CHUNK = 64


class _ModelDistribution(tfp.distributions.Distribution):
    """What images and top codes share: labels as the batch, samples from seeds, chunks of a fixed size."""

    def __init__(self, model, labels, temperature, dtype, event_shape, name):
        parameters = {"model": model, "labels": labels, "temperature": temperature, "name": name}
        if labels is not None:
            shape = np.shape(labels)
            flat = labels_of(labels, model.class_names).reshape(-1)
            labels = inputs.check_labels(flat, model.num_classes, flat.size).reshape(shape)
        networks = model.num_levels + 1
        self.model = model
        self.labels = labels
        self.temperature = check_per_level("temperature", temperature, networks, 0.0, 100.0)
        self._shape = tuple(event_shape)
        super().__init__(
            dtype=dtype,
            reparameterization_type=tfp.distributions.NOT_REPARAMETERIZED,
            validate_args=False,
            allow_nan_stats=True,
            parameters=parameters,
            name=name,
        )

    @classmethod
    def _parameter_properties(cls, dtype, num_classes=None):
        return {"labels": tfp.util.ParameterProperties(event_ndims=0)}

    def __getitem__(self, slices):
        """The distribution of some of the labels, or of their batch in another shape."""
        if self.labels is not None:
            return self.copy(labels=self.labels[slices])
        shape = np.empty(())[slices].shape
        return self.copy() if shape == () else tfp.distributions.BatchReshape(self, shape)

    def _batch_shape(self):
        return tf.TensorShape(np.shape(self.labels) if self.labels is not None else ())

    def _batch_shape_tensor(self):
        return tf.constant(self._batch_shape().as_list(), "int32")

    def _event_shape(self):
        return tf.TensorShape(self._shape)

    def _event_shape_tensor(self):
        return tf.constant(self._shape, "int32")

    def _call_log_prob(self, value, name, **options):
        _check_type(value)
        return super()._call_log_prob(value, name, **options)

    def _call_prob(self, value, name, **options):
        _check_type(value)
        return super()._call_prob(value, name, **options)

    def _log_prob(self, value):
        if any(t != 1.0 for t in self._temperatures()):
            raise ValueError(
                f"log_prob is that of the model as trained, at temperature 1; this distribution samples at "
                f"{self.temperature}"
            )
        value = tf.convert_to_tensor(value)
        if not value.shape[-len(self._shape) :].is_compatible_with(self._shape):
            wanted = ", ".join(["..."] + [str(side) for side in self._shape])
            raise ValueError(f"value must have shape ({wanted}), got {tuple(value.shape)}")
        if hasattr(value, "numpy"):  # In graphs values are not known yet.
            self._check_values(value.numpy())
        value = tf.cast(value, self.dtype)
        lead = tf.broadcast_dynamic_shape(tf.shape(value)[: -len(self._shape)], self._batch_shape_tensor())
        value = tf.broadcast_to(value, tf.concat([lead, self._shape], 0))
        if value.shape.num_elements() == 0:
            return tf.zeros(lead, "float32")
        labels = None if self.labels is None else tf.reshape(tf.broadcast_to(self.labels, lead), [-1])
        flat = tf.reshape(value, [-1, *self._shape])
        log_prob = tf.reshape(self._log_prob_in_chunks(flat, labels), lead)
        log_prob.set_shape(tf.broadcast_static_shape(value.shape[: -len(self._shape)], self._batch_shape()))
        return log_prob

    def _log_prob_in_chunks(self, flat, labels):
        def of_few():
            return self._log_prob_given(flat, labels)

        def of_many():
            return self._of_many(flat, labels)

        if flat.shape[0] is None:
            return tf.cond(tf.shape(flat)[0] <= _CHUNK, of_few, of_many)
        return of_few() if flat.shape[0] <= _CHUNK else of_many()

    def _of_many(self, flat, labels):
        count = tf.shape(flat)[0]
        pieces = -(-count // _CHUNK)
        # The last piece is filled up with its last example.
        rows = tf.reshape(tf.minimum(tf.range(pieces * _CHUNK), count - 1), [pieces, _CHUNK])

        def log_prob(rows):
            given = None if labels is None else tf.gather(labels, rows)
            return self._log_prob_given(tf.gather(flat, rows), given)

        found = _one_by_one(log_prob, rows, tf.TensorSpec((_CHUNK,), "float32"))
        return tf.reshape(found, [-1])[:count]

    def _sample_n(self, n, seed=None):
        each = int(np.prod(self._batch_shape().as_list(), dtype="int64"))
        total = n * each
        static = tf.get_static_value(total)
        # Powers of two, so that other numbers of samples seldom need another program.
        size = _CHUNK if static is None else min(_CHUNK, 1 << max(int(static) - 1, 0).bit_length())
        if not has_accelerator():
            size = at_most(size, self._shape[:2])
        count = -(-total // size)
        seeds = self._seed_pairs(seed, count * size)
        if self.labels is not None:
            labels = tf.gather(np.reshape(self.labels, -1), tf.range(count * size) % each)
        elif self.model.num_classes:
            labels = self._draw_labels(seeds)
        else:
            labels = tf.zeros([count * size], "int32")

        def draw(chunk):
            seeds, labels = chunk
            return self._draw(seeds, labels if self.model.num_classes else None)

        chunks = (tf.reshape(seeds, [count, size, 2]), tf.reshape(labels, [count, size]))
        samples = _one_by_one(draw, chunks, tf.TensorSpec((size, *self._shape), "int32"))
        samples = tf.reshape(samples, [-1, *self._shape])[:total]
        shape = tf.concat([[n], self._batch_shape_tensor(), self._event_shape_tensor()], 0)
        return tf.cast(tf.reshape(samples, shape), self.dtype)

    def _seed_pairs(self, seed, count):
        """One pair per example: (s, i) for an int s as `model.sample` has it, else split from TFP's seed."""
        if isinstance(seed, np.ndarray) and seed.ndim == 0:
            seed = seed[()]
        if isinstance(seed, (int, np.integer)) and not isinstance(seed, bool):
            seed = require_int("seed", seed, low=-(2**31), high=2**31 - 1)
            return tf.stack([tf.fill([count], tf.constant(seed, "int32")), tf.range(count)], 1)
        seed = tfp.random.sanitize_seed(seed)
        return tf.random.stateless_uniform([count, 2], seed, minval=None, maxval=None, dtype="int32")

    def _draw_labels(self, seeds):
        def draw(seed):
            return tf.random.stateless_uniform([], seed, maxval=self.model.num_classes, dtype="int32")

        return tf.map_fn(draw, seeds, fn_output_signature="int32")


class ImageDistribution(_ModelDistribution):
    """The model's images as a `tfp.distributions.Distribution`.

    `log_prob` is the model's lower bound of the log-likelihood, in nats: log p(x_0 given y) >= sum over
    levels of log p(x_{l-1} given x_l) + log p(x_L given y). `sample` draws from the plain model, whatever its
    `sampling_defaults` are. Both work in eager mode and inside `tf.function`; samples pass no gradient.

    NOTE: being a bound, exp(log_prob) sums to less than 1 over all images.

    Args:
        model: a `HierarchicalModel`.
        labels: of a class-conditional model: ints of any shape, or names of classes (that is the batch shape,
            one distribution per label; `()` of one int), or `None`: every label equally likely, summed over.
        temperature: of samples; one value, or one per level (finest first) and one for the prior. `log_prob`
            is known at temperature 1 only.

    Event: float32 `(H, W, C)`, whole numbers in 0..255 (others are rounded; outside, `log_prob` is -inf). In
    eager mode `log_prob` refuses what `model.log_prob` does: fractions all in 0..1, and what is not finite.

    Seeds: `sample(n, seed=s)` with an int `s` and labels that are given is what `model.sample(n, labels,
    seed=s, temperature=1.0, top_p=1.0, guidance=1.0)` is, every time, or what that is at the `temperature`
    given here (with N labels, sample i of label j, in row-major order, has the seed pair (s, i N + j)). A
    stateless seed, two int32, gives the same samples every time as well; `None` draws a seed.

    Raises:
        ValueError: labels or temperature that do not fit the model; `log_prob` at another temperature, or of
            what is no image of the model.

    Example:
        >>> model = haim_tf.load("debug")
        >>> distribution = model.as_distribution(labels=3)
        >>> images = distribution.sample(2, seed=0)  # float32 (2, 16, 16, 3)
        >>> distribution.log_prob(images).shape
        TensorShape([2])
    """

    def __init__(
        self,
        model: HierarchicalModel,
        labels: Labels | None = None,
        temperature: float | Sequence[float] = 1.0,
        name: str = "ImageDistribution",
    ):
        super().__init__(model, labels, temperature, tf.float32, model.image_shape, name)

    @classmethod
    def _parameter_properties(cls, dtype, num_classes=None):
        return super()._parameter_properties(dtype, num_classes)

    def _temperatures(self):
        return self.temperature

    def _log_prob_given(self, images, labels):
        inside = tf.reduce_all((images >= 0.0) & (images <= 255.0), [1, 2, 3])
        log_prob = self._bound(tf.clip_by_value(images, 0.0, 255.0), labels)
        return tf.where(inside, log_prob, -np.inf)

    def _check_values(self, images):
        if not np.isfinite(images).all():
            raise ValueError("images must be finite, got NaN or infinity")
        if images.size and images.min() >= 0 and inputs.looks_scaled(images):
            raise ValueError(
                f"images must lie in 0..255, got fractions of at most {images.max():.3g}: "
                "multiply images in 0..1 by 255"
            )

    def _bound(self, images, labels):
        if labels is not None or not self.model.num_classes:
            return tf.reduce_sum(self.model._log_probs(images, labels), 1)
        by_label = tf.reduce_sum(self.model._log_probs_by_label(images), 1)
        return _mean_over_labels(by_label)

    def _draw(self, seeds, labels):
        grid = None
        for index in range(self.model.num_levels, -1, -1):
            grid = _draw(self.model, index, seeds, self.temperature[index], grid, labels)
        return tf.reshape(grid, [-1, *self._shape])


class PriorDistribution(_ModelDistribution):
    """The prior over the top codes as a `tfp.distributions.Distribution`; its `log_prob` is exact.

    Args:
        model: a `HierarchicalModel`; of one without levels, the prior is over the pixels.
        labels, temperature: as for `ImageDistribution`; of a list of temperatures the prior's is the last.

    Event: int32 `(h_L, w_L)`, codes in 0..K_L-1 (outside, `log_prob` is -inf). Seeds are as for
    `ImageDistribution`.

    Example:
        >>> prior = haim_tf.load("debug").prior_distribution(labels=3)
        >>> prior.log_prob(prior.sample(2, seed=0)).shape
        TensorShape([2])
    """

    def __init__(
        self,
        model: HierarchicalModel,
        labels: Labels | None = None,
        temperature: float | Sequence[float] = 1.0,
        name: str = "PriorDistribution",
    ):
        shape = model.grid_shapes[-1] if model.num_levels else model.image_shape
        super().__init__(model, labels, temperature, tf.int32, shape, name)

    @classmethod
    def _parameter_properties(cls, dtype, num_classes=None):
        return super()._parameter_properties(dtype, num_classes)

    def _temperatures(self):
        return self.temperature[-1:]

    def _log_prob_given(self, codes, labels):
        size = self.model.codebook_sizes[-1] if self.model.num_levels else 256
        flat = tf.reshape(codes, [tf.shape(codes)[0], -1])
        inside = tf.reduce_all((flat >= 0) & (flat < size), 1)
        codes = tf.clip_by_value(codes, 0, size - 1)
        if labels is not None or not self.model.num_classes:
            log_prob = self.model._log_probs_of(codes, None, labels, self.model.num_levels)
        else:
            by_label = self.model._log_probs_of_labels(codes, None, self.model.num_levels)
            log_prob = _mean_over_labels(by_label)
        return tf.where(inside, log_prob, -np.inf)

    def _check_values(self, codes):
        if not np.isfinite(codes).all() or (codes != np.round(codes)).any():
            raise ValueError(f"codes must be whole numbers, got {codes.dtype} with others among them")

    def _draw(self, seeds, labels):
        grid = _draw(self.model, self.model.num_levels, seeds, self.temperature[-1], None, labels)
        return tf.reshape(grid, [-1, *self._shape])


def _check_type(value):
    """Refuses what is no number, which TensorFlow would convert."""
    dtype = getattr(value, "dtype", None)
    if dtype is not None and not (tf.as_dtype(dtype).is_integer or tf.as_dtype(dtype).is_floating):
        raise ValueError(f"value must be of ints or floats, got dtype {tf.as_dtype(dtype).name}")


def _one_by_one(function, elements, signature):
    """`tf.map_fn`, one chunk after the other: several at once would want the memory of all."""
    function = tf.autograph.experimental.do_not_convert(function)  # There is nothing to convert in a model.
    return tf.map_fn(function, elements, fn_output_signature=signature, parallel_iterations=1)


def _mean_over_labels(log_probs):
    """log of the mean probability over labels, from `(B, num_classes)`: labels unknown and equally likely."""
    return tf.reduce_logsumexp(log_probs, 1) - float(np.log(log_probs.shape[1]))


def _draw(model, index, seeds, temperature, codes, labels):
    """Grids of network `index`, from and to tensors."""
    count = seeds.shape[0]
    settings = tf.fill([count], temperature), tf.ones([count])
    return model.sampler(index).draw(seeds, *settings, **model.conditioning(index, codes, labels))[0]
