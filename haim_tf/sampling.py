"""Sampling grids from a `PixelCNN` at about the cost of one forward pass: incremental, compiled, seeded."""

import numpy as np
from keras import ops


def sample_grid(network, noise, temperature, top_p, codes=None, labels=None):
    """Samples a batch of grids, element after element; pure tensor code that any backend can compile.

    When a row starts, every layer's share of the finished rows is computed for the whole row at once; a
    position then needs only the row's own taps (see `PixelCNN.start_row` and `read`).

    Args:
        network: a `PixelCNN`.
        noise: float32 `(B, H, W, network.likelihood.noise_size)`, uniform in [0, 1).
        temperature, top_p: float32 `(B,)`.
        codes, labels: what the network is conditioned on, int `(B, h, w)` and `(B,)`.

    Returns:
        The grids, int32 `(B, H, W)` or `(B, H, W, C)`, and their log-probability under the network at
        temperature 1, in nats `(B,)`, as the sampler's own parameters give it.
    """
    batch_size, height, width, noise_size = noise.shape
    element = (network.likelihood.channels,) if network.pixels else ()
    grid = ops.zeros((batch_size, height, width, *element), "int32")
    start = (0,) * len(element)

    def sample_row(row, state):
        grid, log_prob, cache = state
        cache = network.start_row(cache, row)
        row_noise = ops.slice(noise, (0, row, 0, 0), (batch_size, 1, width, noise_size))[:, 0]

        def sample_element(column, state):
            grid, log_prob, cache = state
            params, cache = network.read(cache, row, column)
            uniforms = ops.slice(row_noise, (0, column, 0), (batch_size, 1, noise_size))[:, 0]
            x = network.likelihood.sample(params, uniforms, temperature, top_p)
            log_prob = log_prob + network.likelihood.log_prob(params, x)
            cache = network.write(cache, x, column)
            grid = ops.slice_update(grid, (0, row, column, *start), x[:, None, None])
            return grid, log_prob, cache

        return ops.fori_loop(0, width, sample_element, (grid, log_prob, cache))

    cache = network.init_cache(batch_size, height, width, codes=codes, labels=labels)
    state = (grid, ops.zeros((batch_size,), "float32"), cache)
    grid, log_prob, _ = ops.fori_loop(0, height, sample_row, state)
    return grid, log_prob


class Sampler:
    """The compiled `sample_grid` of one network and grid size, with noise from each example's own seed.

    One XLA program is built a batch size and kept; temperature, top_p, seeds, codes and labels are inputs
    and never cause another one. TensorFlow only.

    Args:
        network: a `PixelCNN`.
        shape: `(H, W)` of its grid.
        stream: an int that sets this network's random numbers apart from those of others (the level).
    """

    def __init__(self, network, shape, stream):
        import tensorflow as tf

        self.network = network
        height, width = shape
        noise_size = network.likelihood.noise_size

        @tf.function(jit_compile=True, autograph=False)
        def run(noise, temperature, top_p, codes, labels):
            return sample_grid(network, noise, temperature, top_p, codes, labels)

        @tf.function(autograph=False)
        def draw(seeds):
            return draw_noise(seeds, stream, (height, width, noise_size))

        self._run, self._draw_noise = run, draw

    def __call__(self, seeds, temperature, top_p, codes=None, labels=None):
        """Samples one grid a seed.

        Args:
            seeds: int32 `(B, 2)`.
            temperature, top_p: floats or float `(B,)`.
            codes, labels: conditioning, int `(B, h, w)` and `(B,)`.

        Returns:
            NumPy int32 grids `(B, H, W[, C])` and their log-probabilities `(B,)` in nats.
        """
        count = len(seeds)
        noise = self._draw_noise(ops.convert_to_tensor(seeds, "int32"))
        noise = ops.reshape(noise, (count, *noise.shape[1:]))
        grid, log_prob = self._run(
            noise,
            ops.convert_to_tensor(np.broadcast_to(temperature, count), "float32"),
            ops.convert_to_tensor(np.broadcast_to(top_p, count), "float32"),
            None
            if codes is None
            else ops.convert_to_tensor(codes, "float32" if self.network.code_dim else "int32"),
            None if labels is None else ops.convert_to_tensor(labels, "int32"),
        )
        return ops.convert_to_numpy(grid), ops.convert_to_numpy(log_prob)


def draw_noise(seeds, stream, shape):
    """Uniform noise in [0, 1), a TensorFlow tensor float32 `(B, *shape)`, row i from seed pair i alone.

    One generator an example: what an example gets does not depend on the rest of the batch.

    Args:
        seeds: int32 `(B, 2)`.
        stream: an int that sets these numbers apart from those of other streams (the level).
        shape: of one example's noise.
    """
    import tensorflow as tf

    def draw(seed):
        seed = tf.random.experimental.stateless_fold_in(seed, stream)
        return tf.random.stateless_uniform(shape, seed, alg="philox")

    return tf.map_fn(draw, seeds, fn_output_signature=tf.float32)


def seed_pairs(seed, count):
    """The seed pair of each example, int32 `(count, 2)`: `(s, i)` for an int `s`, or the array given.

    Raises:
        ValueError: for anything but an int or an integer array `(count, 2)`.
    """
    if isinstance(seed, (int, np.integer)) and not isinstance(seed, bool):
        if not -(2**31) <= seed < 2**31:
            raise ValueError(f"seed must fit in 32 bits, got {seed}")
        return np.stack([np.full(count, seed), np.arange(count)], axis=1).astype("int32")
    pairs = np.asarray(seed)
    if pairs.shape != (count, 2) or not np.issubdtype(pairs.dtype, np.integer):
        raise ValueError(
            f"seed must be an int or an integer array of shape ({count}, 2), one pair an example, "
            f"got {pairs.dtype} of shape {pairs.shape}"
        )
    limits = np.iinfo("int32")
    if pairs.size and (pairs.min() < limits.min or pairs.max() > limits.max):
        raise ValueError(f"seed pairs must fit in 32 bits, got values {pairs.min()} to {pairs.max()}")
    return pairs.astype("int32")
