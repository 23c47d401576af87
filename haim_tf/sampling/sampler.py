"""Sampling grids from a network at about the cost of one forward pass: incremental, compiled, seeded."""

from __future__ import annotations

import concurrent.futures
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from keras import ops

from haim_tf.backend import has_accelerator, in_a_graph, is_tensorflow
from haim_tf.layers.types import Tensor
from haim_tf.processor import usable_cores
from haim_tf.programs import Programs
from haim_tf.sampling import noise as host
from haim_tf.sampling.raster import walk

if TYPE_CHECKING:
    from haim_tf.networks import AutoregressiveNetwork

# A batch is sampled in parts of one of these sizes, filled up, so that few programs serve all numbers. On a
# CPU the parts run at once, a thread each: what a position needs is too little work to share out otherwise.
PART_SIZES = 1, 8, 32
# Where as many parts of 32 as there are threads would be emptier, parts of 8 take no longer.
FILLED = 0.75
# Positions that the grids of a part may have together, on a CPU. NOTE: XLA, of TensorFlow 2.21 on two cores,
# gave wrong numbers where two programs of 32 grids of 128x128 began at once; of 8 it gave those of one after
# the other.
POSITIONS_AT_ONCE = 2**18


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
        codes = None if codes is None else ops.concatenate([codes, codes])

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

    Batches are cut into parts of few sizes (`part_size`), with one XLA program each, which is kept (see
    `haim_tf.programs`; `compile` builds it ahead); temperature, top_p, seeds, codes and labels are inputs and
    never cause another one. The noise of a seed is the same under TensorFlow and JAX, so that samples agree
    up to the rounding of the arithmetic.

    Args:
        network: an `AutoregressiveNetwork`.
        shape: `(H, W)` of its grid.
        stream: an int that sets this network's random numbers apart from those of others (the level).
    """

    def __init__(self, network: AutoregressiveNetwork, shape: tuple[int, int], stream: int):
        self.network, self.stream = network, stream
        self.shape = height, width = shape
        self.noise_shape = height, width, network.likelihood.noise_size

        def run(noise, temperature, top_p, codes, labels, log_prob, guidance, rows):
            return sample_grid(network, noise, temperature, top_p, codes, labels, log_prob, rows, guidance)

        self._programs = Programs(run, network, "the sampler")
        self._run = self._programs.function
        self._compiled = set()
        if is_tensorflow():
            import tensorflow as tf

            @tf.function(autograph=False, input_signature=[tf.TensorSpec((None, 2), "int32")])
            def draw(seeds):
                return draw_noise(seeds, stream, self.noise_shape)

            self._draw_noise = draw

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
        """Samples one grid per seed.

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
        """As a call, from and to tensors of a known batch size, whole; under TensorFlow also for use inside
        other graphs."""
        rows = ops.convert_to_tensor(self.shape[0] if rows is None else rows, "int32")
        others = (temperature, top_p, codes, labels, log_prob, guidance, rows)
        if not in_a_graph():
            noise = host.uniforms(ops.convert_to_numpy(seeds), self.stream, self.noise_shape)
            return self._programs(ops.convert_to_tensor(noise), *others)
        # Concrete functions: TensorFlow counts all networks' programs together, and would warn of so many.
        noise = self._draw_noise.get_concrete_function()(ops.convert_to_tensor(seeds, "int32"))
        noise = ops.reshape(noise, (seeds.shape[0], *noise.shape[1:]))
        return self._run.get_concrete_function(noise, *others)(noise, *others)

    def compile(self, batch_size: int, guided: bool = False) -> None:
        """Builds the program that batches of this size are sampled with, which its first use would build
        otherwise."""
        network, (height, width) = self.network, self.shape
        size = part_size(batch_size, self._computed_shape(guided))
        if (size, guided) in self._compiled:
            return
        codes = labels = None
        if network.codebook_size:
            factor = network.upsampling
            vector = (network.code_dim,) if network.code_dim else ()
            shape = size, height // factor, width // factor, *vector
            codes = ops.zeros(shape, "float32" if vector else "int32")
        if network.num_classes:
            labels = ops.zeros(size, "int32")
        ones = ops.ones(size, "float32")
        guidance = ones if guided else None
        # A run of no rows.
        self.draw(np.zeros((size, 2), "int32"), ones, ones, codes, labels, rows=0, guidance=guidance)
        self._compiled.add((size, guided))

    def _sample(self, seeds, temperature, top_p, codes, labels, log_prob, rows, guidance):
        count = len(seeds)
        codes = None if codes is None else ops.convert_to_numpy(codes)
        temperature, top_p = (np.broadcast_to(x, count) for x in (temperature, top_p))
        guidance = None if guidance is None else np.broadcast_to(guidance, count)

        def run(chosen):
            def cut(x, dtype):
                return None if x is None else ops.convert_to_tensor(np.asarray(x)[chosen], dtype)

            return self.draw(
                cut(seeds, "int32"),
                cut(temperature, "float32"),
                cut(top_p, "float32"),
                cut(codes, "float32" if self.network.code_dim else "int32"),
                cut(labels, "int32"),
                log_prob,
                rows,
                cut(guidance, "float32"),
            )

        return in_parts(count, run, self._computed_shape(guidance is not None))

    def _computed_shape(self, guided):
        """The shape that each example counts for: guided, the network runs twice."""
        height, width = self.shape
        return (2 if guided else 1) * height, width


def part_size(count: int, shape: tuple[int, int]) -> int:
    """How many of `count` examples are sampled at once: it depends on that number, the grids' shape and the
    machine alone.

    Example:
        >>> part_size(6, (8, 8)) == part_size(7, (8, 8))
        True
    """
    one, some, many = PART_SIZES
    size = one if count == 1 else some
    if has_accelerator():
        # All at once: what a position needs leaves it idle. Few more than asked for: memory is short.
        while size < count:
            size *= 2
        return size
    if count > some and count >= FILLED * many * usable_cores():
        size = many
    return at_most(size, shape)


def at_most(size: int, shape: tuple[int, int]) -> int:
    """`size`, or how many grids of a shape a CPU samples at once where so many are too large.

    Args:
        size: how many are wanted, at least one.
        shape: `(H, W)` of their positions, as often as the network runs for each.

    Example:
        >>> at_most(32, (8, 8))
        32
    """
    most = max(1, POSITIONS_AT_ONCE // math.prod(shape))
    return size if size <= most else max(fitting for fitting in PART_SIZES if fitting <= most)


def in_parts(
    count: int, run: Callable[[np.ndarray], Sequence[Tensor | None]], shape: tuple[int, int]
) -> list[np.ndarray | None]:
    """Runs something for a batch in parts of one size, at once where there are several.

    Args:
        count: how many examples there are, at least one.
        run: called as `run(chosen)` with the indices of a part's examples, int `(part_size(count, shape),)`,
            the last part filled up with its last example; gives tensors whose first axis is theirs, and
            `None`s.
        shape: `(H, W)` of the grids.

    Returns:
        What `run` gives, as NumPy arrays for all examples.
    """
    size = part_size(count, shape)
    parts = [np.minimum(np.arange(start, start + size), count - 1) for start in range(0, count, size)]

    def arrays(part):
        return [None if x is None else ops.convert_to_numpy(x) for x in run(part)]

    if len(parts) == 1:
        results = [arrays(parts[0])]
    else:
        with concurrent.futures.ThreadPoolExecutor(min(len(parts), usable_cores())) as pool:
            results = list(pool.map(arrays, parts))
    return [None if x[0] is None else np.concatenate(x)[:count] for x in zip(*results, strict=True)]


def draw_noise(seeds: Tensor, stream: int, shape: tuple[int, ...]) -> Tensor:
    """Uniform noise in [0, 1), a TensorFlow tensor float32 `(B, *shape)`, row i from seed pair i alone.

    One generator an example: what an example gets does not depend on the rest of the batch. `noise.uniforms`
    gives the same numbers without TensorFlow.

    Args:
        seeds: int32 `(B, 2)`.
        stream: an int that sets these numbers apart from those of other streams (the level).
        shape: of one example's noise.
    """
    import tensorflow as tf

    def draw(seed):
        seed = tf.random.experimental.stateless_fold_in(seed, stream, alg="philox")
        return tf.random.stateless_uniform(shape, seed, alg="philox")

    return tf.map_fn(draw, seeds, fn_output_signature=tf.float32)


def seed_pairs(seed: int | np.ndarray, count: int) -> np.ndarray:
    """The seed pair of each example, int32 `(count, 2)`: `(s, i)` for an int `s`, or the array given.

    Raises:
        ValueError: for anything but an int or an integer array `(count, 2)`.
    """
    if isinstance(seed, np.ndarray) and seed.ndim == 0:
        seed = seed[()]
    if isinstance(seed, (int, np.integer)) and not isinstance(seed, bool):
        if not -(2**31) <= seed < 2**31:
            raise ValueError(f"seed must fit in 32 bits, got {seed}")
        return np.stack([np.full(count, seed), np.arange(count)], axis=1).astype("int32")
    pairs = np.asarray(seed)
    if pairs.shape != (count, 2) or not np.issubdtype(pairs.dtype, np.integer):
        raise ValueError(
            f"seed must be an int or an integer array of shape ({count}, 2), one pair per example, "
            f"got {pairs.dtype} of shape {pairs.shape}"
        )
    limits = np.iinfo("int32")
    if pairs.size and (pairs.min() < limits.min or pairs.max() > limits.max):
        raise ValueError(f"seed pairs must fit in 32 bits, got values {pairs.min()} to {pairs.max()}")
    return pairs.astype("int32")
