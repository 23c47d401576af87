"""The walk over a grid in raster order: one step, and the two loops that make it.

`walk` is a loop of tensor code, to be compiled: sampling and completion decide each element inside it.
`HostWalk` comes back to Python at each element: coding decides there.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from keras import ops

from haim_tf.layers.types import Tensor

if TYPE_CHECKING:
    from haim_tf.networks import AutoregressiveNetwork

# The more stages, the less does a network read of rows that are not there yet, and the longer is compilation.
MAX_STAGES, POSITIONS_A_STAGE = 4, 128


def walk(
    network: AutoregressiveNetwork,
    batch_size: int,
    shape: tuple[int, int],
    decide: Callable[[Tensor, Tensor, Tensor, Any], tuple[Tensor, Any]],
    carry: Any = None,
    end_row: Callable[[Tensor, Tensor, Any], Any] | None = None,
    rows: Tensor | int | None = None,
    **conditioning: Tensor | None,
) -> tuple[Tensor, Any]:
    """Goes through a batch of grids and decides each element once its parameters are known.

    When a row starts, every layer's share of the finished rows is computed for the whole row at once; a
    position then needs only the row's own taps (see `AutoregressiveNetwork.start_row` and `read`). Pure
    tensor code that any backend can compile.

    Args:
        network: an `AutoregressiveNetwork`.
        batch_size: the number of grids B, an int.
        shape: `(H, W)` of a grid, ints.
        decide: called as `decide(params, row, column, carry)` with the parameters `(B, P)` of the element at
            that place; gives the element, int32 `(B, *E)`, and the new carry.
        carry: a structure of tensors that goes from element to element.
        end_row: called as `end_row(elements, row, carry)` with a finished row, int32 `(B, W, *E)`; gives the
            new carry. `None`: nothing.
        rows: how many rows to go through, an int tensor; `None`: all. The others stay zero.
        **conditioning: `codes` and `labels` of the network. They may be for more than B examples, a multiple
            of B: the network then runs for all of them, copies of the same elements under each condition, and
            `decide` gets parameters of all.

    Returns:
        The grids, int32 `(B, H, W, *E)`, and the last carry.
    """
    height, width = shape
    element = network.likelihood.element_shape
    start = (0,) * len(element)
    conditioning = {name: x for name, x in conditioning.items() if x is not None}
    copies = max([x.shape[0] // batch_size for x in conditioning.values()], default=1)

    def visit_row(row, state):
        cache, grid, carry = state

        def visit(column, state):
            cache, elements, carry = state
            params, cache = network.read(cache, row, column)
            x, carry = decide(params, row, column, carry)
            copied = x if copies == 1 else ops.concatenate([x] * copies)
            elements = ops.slice_update(elements, (0, column, *start), x[:, None])
            return network.write(cache, copied, column), elements, carry

        elements = ops.zeros((batch_size, width, *element), "int32")
        state = network.start_row(cache, row), elements, carry
        cache, elements, carry = ops.fori_loop(0, width, visit, state)
        grid = ops.slice_update(grid, (0, row, 0, *start), elements[:, None])
        return cache, grid, end_row(elements, row, carry) if end_row else carry

    cache = network.init_cache(copies * batch_size, height, width, **conditioning)
    carry = {} if carry is None else carry
    state = cache, ops.zeros((batch_size, height, width, *element), "int32"), carry
    rows = height if rows is None else rows
    stages = 1
    if network.keeps_all_rows:
        # It reads all of its cache at every element: the cache grows in stages.
        stages = min(MAX_STAGES, height, max(height * width // POSITIONS_A_STAGE, 1))
    ends = [height * stage // stages for stage in range(stages + 1)]
    for first, end in itertools.pairwise(ends):
        cache, *others = state
        state = network.resize_cache(cache, end), *others
        state = ops.fori_loop(first, ops.minimum(rows, end), visit_row, state)
    return state[1:]


class HostWalk:
    """Goes through grids and asks Python for each element once its probabilities are known.

    The step runs in a few XLA programs, one call for each position. Encoding and decoding make the same calls
    with the same inputs, so that they see the same floats; the network's whole-grid form would differ in the
    last bits. TensorFlow only: JAX gives other last bits, and files are to be read everywhere.

    Args:
        network: an `AutoregressiveNetwork`.
        shape: `(H, W)` of its grid.
    """

    def __init__(self, network: AutoregressiveNetwork, shape: tuple[int, int]):
        import tensorflow as tf

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
            params = ops.zeros((element.shape[0], network.likelihood.output_size), "float32")
            cache, params = ops.fori_loop(position, position + 1, advance, (cache, params))
            return cache, params, ops.exp(network.likelihood.log_probs(params))

        @compiled
        def next_number(params, earlier):
            return ops.exp(network.likelihood.log_probs(params, earlier))

        self._begin, self._step, self._next_number = begin, step, next_number
        self._positions = [tf.constant(i, "int32") for i in range(height * width)]

    def run(
        self,
        batch_size: int,
        code: Callable[[tuple[int, ...], np.ndarray], np.ndarray],
        codes: np.ndarray | None = None,
        labels: np.ndarray | None = None,
    ) -> np.ndarray:
        """Goes through a batch of grids.

        Args:
            batch_size: the number of grids B.
            code: called as `code(position, probabilities)` with the index of a number, `(row, column)` or
                `(row, column, channel)`, and float32 `(B, K)`; gives its values, int `(B,)`.
            codes, labels: what the network is conditioned on, int32 `(B, h, w)` and `(B,)`.

        Returns:
            The grids, int32 `(B, H, W, *E)`.
        """
        element_shape = self.network.likelihood.element_shape
        grid = np.zeros((batch_size, *self.shape, *element_shape), "int32")
        element = np.zeros((batch_size, *element_shape), "int32")
        cache = self._begin(batch_size, codes, labels)
        for row in range(self.shape[0]):
            for column in range(self.shape[1]):
                position = self._positions[row * self.shape[1] + column]
                cache, params, probabilities = self._step(cache, element, position)
                if element_shape:
                    element[:, 0] = code((row, column, 0), probabilities.numpy())
                    for channel in range(1, element_shape[0]):
                        probabilities = self._next_number(params, element[:, :channel])
                        element[:, channel] = code((row, column, channel), probabilities.numpy())
                else:
                    element[:] = code((row, column), probabilities.numpy())
                grid[:, row, column] = element
        return grid
