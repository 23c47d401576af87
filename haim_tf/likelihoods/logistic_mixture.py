"""8-bit pixels: a mixture of logistics over the bins of the intensities, channels in order."""

import keras
import numpy as np
from keras import ops

from haim_tf.checks import require_int
from haim_tf.layers.types import Cache, Tensor
from haim_tf.likelihoods.base import PIXEL_LIKELIHOODS, Likelihood
from haim_tf.likelihoods.categorical import sample_categorical

# Log-scales outside this range say nothing more on images in -1..1, but would overflow.
_LOG_SCALE_RANGE = (-7.0, 7.0)
_INITIAL_LOG_SCALE_RANGE = (-4.5, -1.5)
_INITIAL_COEFFICIENT = 0.9
# The outer ends of the bins at the edges; even the widest logistic has no mass beyond.
_FAR = 1e9
# Keeps the logistic's inverse CDF finite in float32.
_MIN_UNIFORM = 1e-6


@PIXEL_LIKELIHOODS.register("logistic_mixture")
@keras.saving.register_keras_serializable(package="haim_tf")
class DiscretizedLogisticMixture(Likelihood):
    """A mixture of logistics, integrated over each intensity's bin, channels in order.

    Pixels 0..levels-1 are seen as -1..1. With a probability for each of `M` components, component m has a
    logistic for each channel c, whose mean depends on the channels before:
    `prediction_c + mean_mc + sum over j < c of coefficient_mcj * (x_j - prediction_j)`. The bins at 0 and
    levels-1 take the tails, so the probabilities sum to 1. With one channel there are no coefficients.

    References: PixelCNN++ (Salimans, Karpathy, Chen, Kingma 2017, arXiv 1701.05517), section 2.1 and 2.2.
    NOTE: unlike PixelCNN++,
    - means are residuals to a fixed causal linear prediction from the finished neighbours,
      `0.75 * west + 0.75 * north - 0.5 * north_west`, clipped to -1..1, neighbours outside the image being 0
      (mid grey), and a channel's mean moves with the earlier channels' residuals, not with their values;
    - coefficients are not squashed by tanh; they start at 0.9 from red to green and green to blue and at 0
      from red to blue, which with the prediction above makes a sensible image model before any training;
    - log-scales start evenly spread over -4.5..-1.5 and are kept within -7..7, not only above -7;
    - a bin's log-probability is computed without the approximation for small bins.

    Args:
        channels: 1 or 3.
        mixtures: int >= 1, the number of components `M`.
        levels: int >= 2, the number of intensities.

    Raises:
        ValueError: an argument is not as stated.

    Example:
        >>> head = DiscretizedLogisticMixture(channels=3)
        >>> images = np.zeros((2, 8, 8, 3), "uint8")
        >>> outputs = np.zeros((2, 8, 8, head.params_size), "float32") + head.initial_bias()
        >>> tuple(head.log_prob(head.parameters(outputs, images), images).shape)
        (2, 8, 8)
    """

    embedded = False

    def __init__(self, channels: int, mixtures: int = 10, levels: int = 256):
        if channels not in (1, 3):
            raise ValueError(f"channels must be 1 or 3, got {channels!r}")
        self.channels = int(channels)
        self.mixtures = require_int("mixtures", mixtures, low=1)
        self.levels = require_int("levels", levels, low=2)
        self.element_shape = (self.channels,)
        self.num_values = self.levels
        self.params_size = self.mixtures * self._num_groups
        self.output_size = self.params_size + self.channels
        self.noise_size = 1 + self.channels

    @property
    def _num_groups(self):
        """Groups of M numbers: logits, a mean and a log-scale a channel, a coefficient a pair of channels."""
        return 1 + 2 * self.channels + self.channels * (self.channels - 1) // 2

    def initial_bias(self) -> np.ndarray:
        """Float32 (params_size,): spread log-scales, coefficients as the class docstring says, else zeros."""
        groups = np.zeros((self._num_groups, self.mixtures), "float32")
        groups[1 + self.channels : 1 + 2 * self.channels] = np.linspace(
            *_INITIAL_LOG_SCALE_RANGE, self.mixtures
        )
        for channel in range(1, self.channels):
            groups[self._coefficient_group(channel, channel - 1)] = _INITIAL_COEFFICIENT
        return groups.reshape(-1)

    def scale(self, x: Tensor) -> Tensor:
        """Ints 0..levels-1 of any shape to float32 in -1..1."""
        return ops.cast(x, "float32") * (2.0 / (self.levels - 1)) - 1.0

    def parameters(self, outputs: Tensor, x: Tensor) -> Tensor:
        """Parameters of every position of a grid.

        Args:
            outputs: (B, H, W, params_size), the network's outputs.
            x: (B, H, W, C) ints in 0..levels-1; a position's parameters see only its west, north and
                north-west neighbours.

        Returns:
            float32 (B, H, W, params_size + C): the outputs, then the linear prediction in -1..1.
        """
        padded = ops.pad(self.scale(x), [[0, 0], [1, 0], [1, 0], [0, 0]])
        west, north, north_west = padded[:, 1:, :-1], padded[:, :-1, 1:], padded[:, :-1, :-1]
        return self._with_prediction(outputs, west, north, north_west)

    def init_cache(self, batch_size: int, width: int) -> Cache:
        """The last row and the current one, float32 (B, W + 1, C), with a place outside before the first."""
        empty = ops.zeros((batch_size, width + 1, self.channels), "float32")
        return {"above": empty, "row": empty}

    def start_row(self, cache: Cache) -> Cache:
        return {"above": cache["row"], "row": ops.zeros_like(cache["row"])}

    def parameters_at(self, cache: Cache, outputs: Tensor, column: Tensor | int) -> Tensor:
        above, row = cache["above"], cache["row"]
        size = (row.shape[0], 1, self.channels)
        west = ops.slice(row, (0, column, 0), size)[:, 0]
        north = ops.slice(above, (0, column + 1, 0), size)[:, 0]
        north_west = ops.slice(above, (0, column, 0), size)[:, 0]
        return self._with_prediction(outputs, west, north, north_west)

    def write(self, cache: Cache, x: Tensor, column: Tensor | int) -> Cache:
        row = ops.slice_update(cache["row"], (0, column + 1, 0), self.scale(x)[:, None])
        return {**cache, "row": row}

    def _with_prediction(self, outputs, west, north, north_west):
        """Parameters (..., P) from outputs and finished neighbours (..., C), 0 outside the image."""
        prediction = ops.clip(0.75 * west + 0.75 * north - 0.5 * north_west, -1.0, 1.0)
        return ops.concatenate([ops.cast(outputs, "float32"), prediction], axis=-1)

    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        """Log-probability of `x`, all channels together.

        Args:
            params: (..., params_size + C), from `parameters`.
            x: (..., C) ints in 0..levels-1.

        Returns:
            (...) float32, nats.
        """
        groups, predictions = self._split(params)
        return ops.logsumexp(self._log_joint(groups, predictions, x)[0], axis=-1)

    def log_probs(self, params: Tensor, earlier: Tensor | None = None) -> Tensor:
        """Log-probability of every value of one channel, given the channels before it.

        Args:
            params: (..., params_size + C), from `parameters`.
            earlier: (..., c) ints in 0..levels-1, the first c channels, c < C; `None`: c = 0.

        Returns:
            float32 (..., levels), nats, of channel c.
        """
        groups, predictions = self._split(params)
        log_joint, residuals = self._log_joint(groups, predictions, earlier)
        mean, log_scale = self._mean_and_log_scale(groups, predictions, residuals, len(residuals))
        values = ops.arange(self.levels, dtype="int32")[:, None]
        log_bins = self._log_bin(values, mean[..., None, :], log_scale[..., None, :])
        return ops.logsumexp(ops.log_softmax(log_joint, axis=-1)[..., None, :] + log_bins, axis=-1)

    def sample(
        self, params: Tensor, noise: Tensor, temperature: Tensor | float = 1.0, top_p: Tensor | float = 1.0
    ) -> Tensor:
        """Samples a component, then channel after channel by the logistic's inverse CDF.

        NOTE: `top_p` confines each channel to the central `top_p` mass of its component's logistic, after
        nucleus sampling of the component. For one logistic this is the nucleus; for a mixture, whose
        components overlap, it is an analogue, not the nucleus of the pixel's distribution.

        Args:
            params: (..., params_size + C), from `parameters`.
            noise: (..., 1 + C) uniforms in [0, 1).
            temperature: float or array that broadcasts to (...): divides the components' logits, multiplies
                the scales; 0 gives the most probable component's means.
            top_p: float or array that broadcasts to (...).

        Returns:
            (..., C) int32 in 0..levels-1.
        """
        params, noise = ops.cast(params, "float32"), ops.cast(noise, "float32")
        temperature, top_p = ops.cast(temperature, "float32"), ops.cast(top_p, "float32")
        outputs, predictions = params[..., : self.params_size], params[..., self.params_size :]
        predictions = ops.split(predictions, self.channels, axis=-1)
        component = sample_categorical(outputs[..., : self.mixtures], noise[..., 0], temperature, top_p)
        # Trailing axis 1 from here on: the chosen component stands where all of them did.
        chosen = ops.one_hot(component, self.mixtures, dtype="float32")
        outputs = ops.reshape(outputs, (*ops.shape(outputs)[:-1], self._num_groups, self.mixtures))
        groups = ops.split(ops.sum(outputs * chosen[..., None, :], axis=-1), self._num_groups, axis=-1)
        temperature, top_p = ops.expand_dims(temperature, -1), ops.expand_dims(top_p, -1)
        mass = ops.minimum(top_p, 1.0)
        uniforms = ops.clip(0.5 * (1.0 - mass) + mass * noise[..., 1:], _MIN_UNIFORM, 1.0 - _MIN_UNIFORM)
        logistic = temperature * (ops.log(uniforms) - ops.log1p(-uniforms))
        values, residuals = [], []
        for channel in range(self.channels):
            mean, log_scale = self._mean_and_log_scale(groups, predictions, residuals, channel)
            value = mean + ops.exp(log_scale) * logistic[..., channel : channel + 1]
            value = ops.round((value + 1.0) * (0.5 * (self.levels - 1)))
            values.append(ops.clip(value, 0.0, self.levels - 1.0))
            residuals.append(self.scale(values[-1]) - predictions[channel])
        return ops.cast(ops.concatenate(values, axis=-1), "int32")

    def _coefficient_group(self, channel, earlier):
        """Which group holds how `channel` follows `earlier`: green-red, blue-red, blue-green."""
        return 1 + 2 * self.channels + channel * (channel - 1) // 2 + earlier

    def _split(self, params):
        """Groups, a list of (..., M), and predictions, a list of (..., 1) for each channel."""
        # One split: its gradient is one concatenation, that of each slice would be as large as `params`.
        starts = [self.mixtures * group for group in range(1, self._num_groups + 1)]
        starts += [self.params_size + channel for channel in range(1, self.channels)]
        parts = ops.split(ops.cast(params, "float32"), starts, axis=-1)
        return parts[: self._num_groups], parts[self._num_groups :]

    def _log_joint(self, groups, predictions, x):
        """Log-probability (..., M) of each component and the channels in `x` together; the residuals."""
        log_joint, residuals = ops.log_softmax(groups[0], axis=-1), []
        x = None if x is None else ops.cast(x, "int32")
        for channel in range(0 if x is None else x.shape[-1]):
            value = x[..., channel : channel + 1]
            mean, log_scale = self._mean_and_log_scale(groups, predictions, residuals, channel)
            log_joint += self._log_bin(value, mean, log_scale)
            residuals.append(self.scale(value) - predictions[channel])
        return log_joint, residuals

    def _mean_and_log_scale(self, groups, predictions, residuals, channel):
        mean = predictions[channel] + groups[1 + channel]
        for earlier in range(channel):
            mean += groups[self._coefficient_group(channel, earlier)] * residuals[earlier]
        return mean, ops.clip(groups[1 + self.channels + channel], *_LOG_SCALE_RANGE)

    def _log_bin(self, value, mean, log_scale):
        """Log of the logistic's mass in the bin of `value` (..., 1): (..., M) for M means and log-scales.

        Uses sigmoid(a) - sigmoid(b) = sigmoid(a) * sigmoid(-b) * (1 - exp(b - a)): every factor's log is
        finite for any a > b. An edge bin ends so far out that the factors of its tail are 1.
        """
        half_bin = 1.0 / (self.levels - 1)
        lower = ops.where(ops.equal(value, 0), _FAR, half_bin)
        upper = ops.where(ops.equal(value, self.levels - 1), _FAR, half_bin)
        inverse_scale = ops.exp(-log_scale)
        centered = self.scale(value) - mean
        below_upper = ops.log_sigmoid((upper + centered) * inverse_scale)
        above_lower = ops.log_sigmoid((lower - centered) * inverse_scale)
        overlap = ops.log(-ops.expm1(-(lower + upper) * inverse_scale))
        return below_upper + above_lower + overlap

    def get_config(self) -> dict:
        return {"channels": self.channels, "mixtures": self.mixtures, "levels": self.levels}
