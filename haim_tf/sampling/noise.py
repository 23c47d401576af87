"""The noise of seed pairs on the host: the very numbers that TensorFlow's Philox generator gives.

Reference: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", 2011 (Philox4x32-10);
`_philox_scramble_seed` and `stateless_random_ops` of TensorFlow (how a seed becomes a key and a counter).
"""

from __future__ import annotations

import math

import numpy as np

_ROUNDS = 10
_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_KEY_STEPS = np.uint32(0x9E3779B9), np.uint32(0xBB67AE85)
_SCRAMBLING_KEY = 0x3EC8F720, 0x02461E29
_LOW_WORD = np.uint64(0xFFFFFFFF)


def uniforms(seeds: np.ndarray, stream: int, shape: tuple[int, ...]) -> np.ndarray:
    """Uniform noise in [0, 1), float32 `(B, *shape)`, row i from seed pair i alone.

    Equal to `tf.random.stateless_uniform(shape, seed, alg="philox")` of each pair's
    `tf.random.experimental.stateless_fold_in(pair, stream, alg="philox")` on TensorFlow's own devices.

    Args:
        seeds: int32 `(B, 2)`.
        stream: an int of 32 bits that sets these numbers apart from those of other streams.
        shape: of one example's noise.

    Example:
        >>> uniforms(np.array([[0, 1]], "int32"), stream=2, shape=(3,)).shape
        (1, 3)
    """
    seeds = np.asarray(seeds, "int32")
    folded = random_words(seeds, 1)[:, 0].view("int32")
    words = random_words(np.stack([folded, np.full_like(folded, stream)], axis=1), math.prod(shape))
    # The lower 23 bits are the fraction of a float in [1, 2).
    ones = (words & np.uint32(0x7FFFFF)) | np.uint32(127 << 23)
    return (ones.view("float32") - np.float32(1.0)).reshape(len(seeds), *shape)


def random_words(seeds: np.ndarray, count: int) -> np.ndarray:
    """The first `count` numbers of each seed pair, uint32 `(B, count)`; seeds int32 `(B, 2)`.

    Equal to `tf.random.stateless_uniform([count], seed, None, None, "uint32", alg="philox")`.
    """
    wide = np.asarray(seeds, "int64").view("uint64")
    first, second = wide[:, 0], wide[:, 1]
    key = [np.full(len(wide), part, "uint32") for part in _SCRAMBLING_KEY]
    mixed = _philox([*_halves(first), *_halves(second)], key)
    blocks = -(-count // 4)
    # A counter of 128 bits: the numbers of a pair start at the mixed upper half and a lower half of zero.
    lower = np.broadcast_to(np.arange(blocks, dtype="uint32"), (len(wide), blocks))
    counter = [lower, np.zeros_like(lower), *(np.broadcast_to(x[:, None], lower.shape) for x in mixed[2:])]
    found = _philox(counter, [x[:, None] for x in mixed[:2]])
    return np.stack(found, axis=-1).reshape(len(wide), 4 * blocks)[:, :count]


def _philox(counter, key):
    """Four random words of each counter, all uint32 arrays."""
    a, b, c, d = counter
    low, high = key
    for _ in range(_ROUNDS):
        a_low, a_high = _halves(a.astype("uint64") * np.uint64(_MULTIPLIERS[0]))
        c_low, c_high = _halves(c.astype("uint64") * np.uint64(_MULTIPLIERS[1]))
        a, b, c, d = c_high ^ b ^ low, c_low, a_high ^ d ^ high, a_low
        low, high = low + _KEY_STEPS[0], high + _KEY_STEPS[1]  # Arrays of uint32 wrap around.
    return a, b, c, d


def _halves(words):
    """The lower and upper 32 bits of uint64 words."""
    return (words & _LOW_WORD).astype("uint32"), (words >> np.uint64(32)).astype("uint32")
