"""Sampling grids from a network at about the cost of one forward pass: incremental, compiled, seeded."""

from __future__ import annotations

import concurrent.futures
import os
from typing import TYPE_CHECKING

import numpy as np
from keras import ops

from haim_tf.layers.types import Tensor
from haim_tf.sampling.raster import walk

if TYPE_CHECKING:
    from haim_tf.networks import AutoregressiveNetwork

# On a CPU a batch is cut into parts that are sampled at once, a thread each: what a single position needs is
# too little work to share out any other way. Fewer examples a part would not fill a matrix product.
EXAMPLES_A_THREAD = 8


def sample_grid(
    network: AutoregressiveNetwork,
    noise: Tensor,
    temperature: Tensor,
    top_p: Tensor,
    codes: Tensor | None = None,
    labels: Tensor | None = None,
    log_prob: bool = False,
    rows: Tensor | int | None = None,
    guidance: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Samples a batch of grids, element after element; pure tensor code that any backend can compile.

    Args:
        network: an `AutoregressiveNetwork`.
        noise: float32 `(B, H, W, network.likelihood.noise_size)`, uniform in [0, 1).
        temperature, top_p: float32 `(B,)`.
        codes, labels: what the network is conditioned on, int `(B, h, w)` and `(B,)`.
        log_prob: whether the log-probability is wanted too.
        rows: how many rows to sample, an int tensor; `None`: all. The others stay zero.
        guidance: float32 `(B,)`: parameters are moved away from those without a label, which a second half
            of the batch computes (see `Categorical.guided`); `None`: not at all.

    Returns:
        The grids, int32 `(B, H, W)` or `(B, H, W, C)`, and, where asked for, their log-probability under the
        network at temperature 1, in nats `(B,)`, as the sampler's own parameters give it (else `None`).
    """
    batch_size, height, width, noise_size = noise.shape
    likelihood = network.likelihood
    guided = guidance is not None
    if guided:
        labels = ops.concatenate([labels, ops.full_like(labels, network.no_label)])

    def decide(params, row, column, carry):
        drawn_from = params
        if guided:
            params, unlabeled = ops.split(params, 2)
            drawn_from = likelihood.guided(params, unlabeled, guidance)
        uniforms = ops.slice(noise, (0, row, column, 0), (batch_size, 1, 1, noise_size))[:, 0, 0]
        x = likelihood.sample(drawn_from, uniforms, temperature, top_p)
        if log_prob:
            kept = ops.slice_update(carry["params"], (0, column, 0), params[:, None])
            carry = {**carry, "params": kept}
        return x, carry

    def end_row(elements, row, carry):
        nats = ops.sum(likelihood.log_prob(carry["params"], elements), axis=1)
        return {**carry, "log_prob": carry["log_prob"] + nats}

    carry = {}
    if log_prob:
        # Kept for a whole row: the logarithms of single positions would cost more than their products.
        carry["params"] = ops.zeros((batch_size, width, likelihood.output_size), "float32")
        carry["log_prob"] = ops.zeros((batch_size,), "float32")
    grid, carry = walk(
        network,
        batch_size,
        (height, width),
        decide,
        carry,
        end_row if log_prob else None,
        rows,
        codes=codes,
        labels=labels,
    )
    return grid, carry.get("log_prob")


class Sampler:
    """The compiled `sample_grid` of one network and grid size, with noise from each example's own seed.

    One XLA program is built a batch size and kept (`compile` does it ahead); temperature, top_p, seeds,
    codes and labels are inputs and never cause another one. TensorFlow only.

    Args:
        network: an `AutoregressiveNetwork`.
        shape: `(H, W)` of its grid.
        stream: an int that sets this network's random numbers apart from those of others (the level).
    """

    def __init__(self, network: AutoregressiveNetwork, shape: tuple[int, int], stream: int):
        import tensorflow as tf

        self.network = network
        self.shape = height, width = shape
        noise_size = network.likelihood.noise_size
        self._threads = 1 if tf.config.list_physical_devices("GPU") else (os.cpu_count() or 1)

        @tf.function(jit_compile=True, autograph=False)
        def run(noise, temperature, top_p, codes, labels, log_prob, rows, guidance):
            return sample_grid(network, noise, temperature, top_p, codes, labels, log_prob, rows, guidance)

        @tf.function(autograph=False, input_signature=[tf.TensorSpec((None, 2), "int32")])
        def draw(seeds):
            return draw_noise(seeds, stream, (height, width, noise_size))

        self._run, self._draw_noise = run, draw

    def __call__(
        self,
        seeds: np.ndarray,
        temperature: float | np.ndarray,
        top_p: float | np.ndarray,
        codes: Tensor | None = None,
        labels: Tensor | None = None,
        log_prob: bool = False,
        guidance: float | np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Samples one grid a seed.

        Args:
            seeds: int32 `(B, 2)`.
            temperature, top_p: floats or float `(B,)`.
            codes, labels: conditioning, int `(B, h, w)` and `(B,)`.
            log_prob: whether the log-probabilities are wanted too.
            guidance: float or float `(B,)`, see `sample_grid`; `None`: none, at half the cost.

        Returns:
            NumPy int32 grids `(B, H, W[, C])`, and their log-probabilities `(B,)` in nats, or `None`.
        """
        return self._sample(seeds, temperature, top_p, codes, labels, log_prob, self.shape[0], guidance)

    def draw(
        self,
        seeds: Tensor,
        temperature: Tensor,
        top_p: Tensor,
        codes: Tensor | None = None,
        labels: Tensor | None = None,
        log_prob: bool = False,
        rows: Tensor | int | None = None,
        guidance: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """As a call, from and to tensors of a known batch size, whole: for use inside other graphs."""
        # Concrete functions: TensorFlow counts all networks' programs together, and would warn of so many.
        noise = self._draw_noise.get_concrete_function()(ops.convert_to_tensor(seeds, "int32"))
        noise = ops.reshape(noise, (seeds.shape[0], *noise.shape[1:]))
        rows = ops.convert_to_tensor(self.shape[0] if rows is None else rows, "int32")
        inputs = (noise, temperature, top_p, codes, labels, log_prob, rows, guidance)
        return self._run.get_concrete_function(*inputs)(*inputs)

    def compile(self, batch_size: int, guided: bool = False) -> None:
        """Builds the program of a batch size, which its first use would build otherwise."""
        network, (height, width) = self.network, self.shape
        codes = labels = None
        if network.codebook_size:
            factor = network.upsampling
            vector = (network.code_dim,) if network.code_dim else ()
            codes = np.zeros((batch_size, height // factor, width // factor, *vector), "int32")
        if network.num_classes:
            labels = np.zeros(batch_size, "int32")
        # A run of no rows.
        guidance = 1.0 if guided else None
        self._sample(np.zeros((batch_size, 2), "int32"), 1.0, 1.0, codes, labels, False, 0, guidance)

    def _sample(self, seeds, temperature, top_p, codes, labels, log_prob, rows, guidance):
        count = len(seeds)
        temperature, top_p = (np.broadcast_to(x, count) for x in (temperature, top_p))
        guidance = None if guidance is None else np.broadcast_to(guidance, count)
        parts = max(1, min(self._threads, count // EXAMPLES_A_THREAD))
        size = -(-count // parts)

        def run(part):
            # All parts are of one size, for one program: the last one begins earlier where it must.
            start = min(part * size, count - size)

            def cut(x, dtype):
                return None if x is None else ops.convert_to_tensor(x[start : start + size], dtype)

            grid, log_probs = self.draw(
                cut(seeds, "int32"),
                cut(temperature, "float32"),
                cut(top_p, "float32"),
                cut(codes, "float32" if self.network.code_dim else "int32"),
                cut(labels, "int32"),
                log_prob,
                rows,
                cut(guidance, "float32"),
            )
            new = slice(part * size - start, None)
            grid = ops.convert_to_numpy(grid)[new]
            return grid, ops.convert_to_numpy(log_probs)[new] if log_prob else None

        if parts == 1:
            return run(0)
        with concurrent.futures.ThreadPoolExecutor(parts) as pool:
            grids, log_probs = zip(*pool.map(run, range(parts)), strict=True)
        return np.concatenate(grids), np.concatenate(log_probs) if log_prob else None


def draw_noise(seeds: Tensor, stream: int, shape: tuple[int, ...]) -> Tensor:
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


def seed_pairs(seed: int | np.ndarray, count: int) -> np.ndarray:
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
