"""A network's probabilities element by element, from compiled programs that both directions of coding run."""

import numpy as np


class Steps:
    """Walks through grids in raster order and asks for each element once its probabilities are known.

    The network's incremental form (`init_cache`, `start_row`, `read`, `write`) runs in a few XLA programs,
    one call a position. Encoding and decoding make the same calls with the same inputs, so that they see the
    same floats; the parallel form would differ in the last bits. TensorFlow only.

    Args:
        network: a `PixelCNN`.
        shape: `(H, W)` of its grid.
    """

    def __init__(self, network, shape):
        import tensorflow as tf
        from keras import ops

        self.network = network
        self.shape = height, width = shape

        def compiled(function):
            return tf.function(function, jit_compile=True, autograph=False)

        @compiled
        def begin(batch_size, codes, labels):
            return network.init_cache(batch_size, height, width, codes=codes, labels=labels)

        @compiled
        def step(cache, element, position):
            """Takes in the element before `position` (row * width + column), gives that one's parameters."""

            def advance(position, state):
                cache, _ = state
                row, column = position // width, position % width
                cache = ops.cond(
                    position > 0, lambda: network.write(cache, element, (position - 1) % width), lambda: cache
                )
                cache = ops.cond(column == 0, lambda: network.start_row(cache, row), lambda: cache)
                params, cache = network.read(cache, row, column)
                return cache, params

            # A loop of one turn: XLA would compile another program for every value of a plain argument.
            size = network.compute_output_shape((None, None, None))[-1]
            state = cache, ops.zeros((element.shape[0], size), "float32")
            cache, params = ops.fori_loop(position, position + 1, advance, state)
            return cache, params, ops.exp(network.likelihood.log_probs(params))

        @compiled
        def next_channel(params, earlier):
            return ops.exp(network.likelihood.log_probs(params, earlier))

        self._begin, self._step, self._next_channel = begin, step, next_channel
        self._positions = [tf.constant(i, "int32") for i in range(height * width)]

    def run(self, batch_size, code, codes=None, labels=None):
        """Goes through a batch of grids.

        Args:
            batch_size: the number of grids B.
            code: called as `code(position, probabilities)` with the index of an element, `(row, column)` or
                `(row, column, channel)`, and float32 `(B, K)`; gives its values, int `(B,)`.
            codes, labels: what the network is conditioned on, int32 `(B, h, w)` and `(B,)`.

        Returns:
            The grids, int32 `(B, H, W)` or `(B, H, W, C)`.
        """
        channels = (self.network.likelihood.channels,) if self.network.pixels else ()
        grid = np.zeros((batch_size, *self.shape, *channels), "int32")
        element = np.zeros((batch_size, *channels), "int32")
        cache = self._begin(batch_size, codes, labels)
        for row in range(self.shape[0]):
            for column in range(self.shape[1]):
                position = self._positions[row * self.shape[1] + column]
                cache, params, probabilities = self._step(cache, element, position)
                if channels:
                    element[:, 0] = code((row, column, 0), probabilities.numpy())
                    for channel in range(1, channels[0]):
                        probabilities = self._next_channel(params, element[:, :channel])
                        element[:, channel] = code((row, column, channel), probabilities.numpy())
                else:
                    element[:] = code((row, column), probabilities.numpy())
                grid[:, row, column] = element
        return grid
