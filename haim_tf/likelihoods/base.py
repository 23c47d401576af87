"""What every likelihood head is to a network and to those who sample, score and code with it."""

import numpy as np

from haim_tf.layers.types import Cache, Tensor
from haim_tf.registry import Registry

# Heads for pixels by name, called with `channels` and what a model's `pixel_likelihood` says.
PIXEL_LIKELIHOODS = Registry("pixel likelihood")


class Likelihood:
    """The distribution of one grid element, from what a network says of it.

    A subclass is registered with Keras (`keras.saving.register_keras_serializable`), and one for pixels by
    name in `PIXEL_LIKELIHOODS`. `E` is the shape of one element, `P` the number of parameters.

    Attributes:
        element_shape: `E`: `()` for grids `(B, H, W)`, `(C,)` for grids `(B, H, W, C)`, whose C numbers are
            drawn one after the other.
        num_values: each of these numbers is one of 0..num_values-1.
        params_size: how many numbers a network gives for an element.
        output_size: `P`, how many parameters are made of them.
        noise_size: how many uniform numbers drawing an element takes.
        embedded: whether a network reads elements by a table of num_values rows; else as the floats
            `(..., C)` that `scale` makes of them.
        takes_guidance: whether there is `guided`.
    """

    element_shape = ()
    noise_size = 1
    embedded = True
    takes_guidance = False

    def initial_bias(self) -> np.ndarray:
        """What a network's outputs start as, float32 `(params_size,)`.

        Example:
            >>> Categorical(4).initial_bias()
            array([0., 0., 0., 0.], dtype=float32)
        """
        return np.zeros(self.params_size, "float32")

    def scale(self, x: Tensor) -> Tensor:
        """Elements `(..., C)` as floats around -1..1, of a head that is not embedded.

        Example:
            >>> np.asarray(DiscretizedLogisticMixture(channels=1).scale(np.array([0, 255])))
            array([-1.,  1.], dtype=float32)
        """
        raise NotImplementedError

    def parameters(self, outputs: Tensor, x: Tensor) -> Tensor:
        """Parameters `(B, H, W, P)` from outputs `(B, H, W, params_size)` and the grid `(B, H, W, *E)`; those
        of a position may look at elements before it.

        Example:
            >>> outputs, codes = np.zeros((1, 2, 2, 4), "float32"), np.zeros((1, 2, 2), "int32")
            >>> tuple(Categorical(4).parameters(outputs, codes).shape)
            (1, 2, 2, 4)
        """
        raise NotImplementedError

    # The same, element by element; a head that looks at earlier elements keeps them in a cache.

    def init_cache(self, batch_size: int, width: int) -> Cache:
        """A dict of what is to be kept of earlier elements, for a fresh grid of a width.

        Example:
            >>> head = DiscretizedLogisticMixture(channels=3)
            >>> {name: tuple(x.shape) for name, x in head.init_cache(batch_size=2, width=8).items()}
            {'above': (2, 9, 3), 'row': (2, 9, 3)}
        """
        return {}

    def start_row(self, cache: Cache) -> Cache:
        """The cache of the next row.

        Example:
            >>> head = DiscretizedLogisticMixture(channels=3)
            >>> sorted(head.start_row(head.init_cache(batch_size=2, width=8)))
            ['above', 'row']
        """
        return cache

    def parameters_at(self, cache: Cache, outputs: Tensor, column: Tensor | int) -> Tensor:
        """Parameters `(B, P)` at a column of the current row, from outputs `(B, params_size)`.

        Example:
            >>> head = DiscretizedLogisticMixture(channels=3)
            >>> outputs = np.zeros((2, head.params_size), "float32")
            >>> params = head.parameters_at(head.init_cache(batch_size=2, width=8), outputs, column=0)
            >>> tuple(params.shape) == (2, head.output_size)
            True
        """
        raise NotImplementedError

    def write(self, cache: Cache, x: Tensor, column: Tensor | int) -> Cache:
        """The cache with the element `(B, *E)` of the column in it.

        Example:
            >>> head = DiscretizedLogisticMixture(channels=3)
            >>> cache = head.write(head.init_cache(2, 8), np.full((2, 3), 255), column=0)
            >>> np.asarray(cache["row"][0, 1])
            array([1., 1., 1.], dtype=float32)
        """
        return cache

    # What parameters say ---------------------------------------------------------------------------------

    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        """Log-probability of elements, nats, float32 `(...)`, from `(..., P)` and `(..., *E)`.

        Example:
            >>> np.round(Categorical(4).log_prob(np.zeros((1, 4)), np.array([2])), 3)
            array([-1.386], dtype=float32)
        """
        raise NotImplementedError

    def log_probs(self, params: Tensor, earlier: Tensor | None = None) -> Tensor:
        """Log-probability of every value of the next number of an element, `(..., num_values)`, nats.

        Args:
            params: `(..., P)`.
            earlier: its numbers before that one, int `(..., c)`; `None`: none.

        Example:
            >>> tuple(DiscretizedLogisticMixture(channels=1).log_probs(np.zeros((1, 31), "float32")).shape)
            (1, 256)
        """
        raise NotImplementedError

    def sample(
        self, params: Tensor, noise: Tensor, temperature: Tensor | float = 1.0, top_p: Tensor | float = 1.0
    ) -> Tensor:
        """Draws elements, int32 `(..., *E)`, with uniforms `(..., noise_size)`.

        Example:
            >>> np.asarray(Categorical(4).sample(np.zeros((1, 4)), np.array([[0.6]])))
            array([2], dtype=int32)
        """
        raise NotImplementedError

    def guided(self, conditional: Tensor, unconditional: Tensor, guidance: Tensor | float) -> Tensor:
        """Parameters moved away from those without a condition; only where `takes_guidance`.

        Raises:
            ValueError: the head takes no guidance.

        Example:
            >>> with_label, without = np.array([[1, 0]], "float32"), np.zeros((1, 2), "float32")
            >>> np.asarray(Categorical(2).guided(with_label, without, guidance=2.0))
            array([[2., 0.]], dtype=float32)
        """
        raise ValueError("guidance is for priors of codes, not for a flat model of pixels")

    @classmethod
    def from_config(cls, config: dict) -> "Likelihood":
        return cls(**config)
