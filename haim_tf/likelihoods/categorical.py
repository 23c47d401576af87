"""One of K integers at each position: codes, and how a value is drawn by the inverse CDF."""

import keras
from keras import ops

from haim_tf.checks import require_int
from haim_tf.layers.types import Cache, Tensor
from haim_tf.likelihoods.base import PIXEL_LIKELIHOODS, Likelihood

# Below this a temperature counts as zero. Division by it keeps float32 finite and still separates any two
# logits that differ in float32.
_MIN_TEMPERATURE = 1e-20


@keras.saving.register_keras_serializable(package="haim_tf")
class Categorical(Likelihood):
    """One of `num_values` integers at each position, from logits.

    Args:
        num_values: int >= 2, the number of values (`K` for codes).

    Raises:
        ValueError: `num_values` is not such an int.

    Example:
        >>> head = Categorical(512)
        >>> outputs = np.zeros((2, 7, 7, head.params_size), "float32")
        >>> codes = np.zeros((2, 7, 7), "int32")
        >>> tuple(head.log_prob(head.parameters(outputs, codes), codes).shape)  # -log(512) everywhere.
        (2, 7, 7)
    """

    takes_guidance = True

    def __init__(self, num_values: int):
        self.num_values = require_int("num_values", num_values, low=2)
        self.params_size = self.output_size = self.num_values

    def parameters(self, outputs: Tensor, x: Tensor) -> Tensor:
        """Logits, float32 (B, H, W, K): `outputs` (B, H, W, K) as they are; `x` plays no part."""
        return ops.cast(outputs, "float32")

    def parameters_at(self, cache: Cache, outputs: Tensor, column: Tensor | int) -> Tensor:
        """Logits, float32 (B, K): `outputs` (B, K) as they are."""
        return ops.cast(outputs, "float32")

    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        """Log-probability of `x`.

        Args:
            params: (..., K) logits.
            x: (...) ints in 0..K-1.

        Returns:
            (...) float32, nats.
        """
        logits = ops.cast(params, "float32")
        return -ops.sparse_categorical_crossentropy(ops.cast(x, "int32"), logits, from_logits=True)

    def log_probs(self, params: Tensor, earlier: Tensor | None = None) -> Tensor:
        """Log-probability of every value, float32 (..., K), nats; there are no `earlier` channels."""
        return ops.log_softmax(ops.cast(params, "float32"), axis=-1)

    def guided(self, conditional: Tensor, unconditional: Tensor, guidance: Tensor | float) -> Tensor:
        """Logits, float32 (..., K), moved away from what they are without a condition.

        Args:
            conditional, unconditional: (..., K) logits.
            guidance: float or array that broadcasts to (...): `unconditional + guidance * (conditional -
                unconditional)`; 1 leaves the conditional ones, 0 gives the unconditional ones.

        Reference: Ho, Salimans, "Classifier-free diffusion guidance", 2022, equation 6 (their w is
        guidance - 1), here on logits, as autoregressive models use it.
        """
        guidance = ops.expand_dims(ops.cast(guidance, "float32"), -1)
        # Put so, guidance 1 leaves the conditional logits to the bit.
        return conditional + (guidance - 1.0) * (conditional - unconditional)

    def sample(
        self, params: Tensor, noise: Tensor, temperature: Tensor | float = 1.0, top_p: Tensor | float = 1.0
    ) -> Tensor:
        """Samples by the inverse CDF.

        Args:
            params: (..., K) logits.
            noise: (..., 1) uniforms in [0, 1).
            temperature: float or array that broadcasts to (...): the logits are divided by it; 0 gives the
                most probable value.
            top_p: float or array that broadcasts to (...): draws from the smallest set of most probable
                values whose mass reaches `top_p` (nucleus sampling, Holtzman et al. 2020, arXiv 1904.09751);
                never less than one value; from 1 on, all values.

        Returns:
            (...) int32 in 0..K-1.
        """
        noise = ops.cast(noise, "float32")
        return sample_categorical(ops.cast(params, "float32"), noise[..., 0], temperature, top_p)

    def get_config(self) -> dict:
        return {"num_values": self.num_values}


@PIXEL_LIKELIHOODS.register("categorical")
def categorical_pixels(channels: int) -> Categorical:
    """Grey pixels as 256 values; a ValueError for more than one channel."""
    if channels != 1:
        raise ValueError(f"categorical pixels must have 1 channel, got {channels}")
    return Categorical(256)


def sample_categorical(
    logits: Tensor, uniform: Tensor, temperature: Tensor | float, top_p: Tensor | float
) -> Tensor:
    """Inverse-CDF sample, int32 (...), from float32 logits (..., K) with one uniform (...) each."""
    temperature, top_p = ops.cast(temperature, "float32"), ops.cast(top_p, "float32")
    cold = temperature < _MIN_TEMPERATURE
    temperature = ops.expand_dims(ops.maximum(temperature, _MIN_TEMPERATURE), -1)
    # Not normalised: what follows is relative to the total. A compiler may compute logits twice, rounded
    # otherwise, so that none of them is the maximum: the mode's difference is 0 by its index.
    mode = ops.cast(ops.argmax(logits, axis=-1), "int32")
    below = ops.minimum(logits - ops.max(logits, axis=-1, keepdims=True), 0.0)
    is_mode = ops.arange(logits.shape[-1], dtype="int32") == ops.expand_dims(mode, -1)
    weights = ops.exp(ops.where(is_mode, 0.0, below) / temperature)
    plain = ops.where(cold, mode, _invert_cdf(ops.cumsum(weights, axis=-1), uniform))

    def from_nucleus():
        sorted_weights, values = ops.top_k(weights, weights.shape[-1])
        cdf = ops.cumsum(sorted_weights, axis=-1)
        # A value is in the nucleus while the mass before it falls short of top_p; the mode always is.
        wanted = ops.expand_dims(ops.maximum(top_p, 1e-6), -1) * cdf[..., -1:]
        mass = ops.max(ops.where(cdf - sorted_weights < wanted, cdf, 0.0), axis=-1, keepdims=True)
        rank = _invert_cdf(ops.minimum(cdf, mass), uniform)
        value = ops.take_along_axis(values, ops.expand_dims(rank, -1), axis=-1)[..., 0]
        # An example's sample must not depend on the top_p of the others in the batch.
        return ops.where((top_p < 1.0) & ~cold, ops.cast(value, "int32"), plain)

    # The sort costs far more than the rest (20 times at K = 512 on a CPU): skip it when nobody asks for it.
    return ops.cond(ops.any(top_p < 1.0), from_nucleus, lambda: plain)


def _invert_cdf(cdf, uniform):
    """The first index, int32 (...), where `cdf` (..., K) exceeds `uniform` (...) times its last entry.

    Relative to the last entry, a uniform below 1 stays below it however the sum was rounded, so that values
    without mass are out of reach.
    """
    threshold = ops.expand_dims(uniform, -1) * cdf[..., -1:]
    return ops.sum(ops.cast(cdf <= threshold, "int32"), axis=-1)
