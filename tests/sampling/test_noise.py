"""The host's noise is TensorFlow's, number by number."""

import numpy as np
import pytest
import tensorflow as tf

from haim_tf.sampling import noise
from haim_tf.sampling.sampler import draw_noise

EDGES = [[0, 0], [0, 1], [1, 0], [-1, 7], [7, -1], [2**31 - 1, -(2**31)], [-(2**31), 2**31 - 1]]


def test_words_are_those_of_the_papers_authors():
    """Known answers of the Random123 library, philox4x32-10."""
    zeros = noise._philox([np.zeros(1, "uint32")] * 4, [np.zeros(1, "uint32")] * 2)
    assert [int(x[0]) for x in zeros] == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    ones = noise._philox([np.full(1, 0xFFFFFFFF, "uint32")] * 4, [np.full(1, 0xFFFFFFFF, "uint32")] * 2)
    assert [int(x[0]) for x in ones] == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]


@pytest.mark.parametrize("count", [1, 4, 4099])
def test_words_are_tensorflows(count):
    seeds = np.array(EDGES, "int32")
    expected = [tf.random.stateless_uniform([count], s, None, None, "uint32", alg="philox") for s in seeds]
    np.testing.assert_array_equal(noise.random_words(seeds, count), expected)


@pytest.mark.parametrize("stream", [0, 3])
def test_uniforms_are_the_samplers(stream):
    random = np.random.default_rng(0).integers(-(2**31), 2**31, (9, 2))
    seeds = np.concatenate([EDGES, random]).astype("int32")
    shape = (3, 5, 4)
    found = noise.uniforms(seeds, stream, shape)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, draw_noise(seeds, stream, shape))
    # One example's numbers have nothing to do with the others'.
    np.testing.assert_array_equal(noise.uniforms(seeds[4:5], stream, shape)[0], found[4])


def test_no_seeds_give_no_noise():
    assert noise.uniforms(np.zeros((0, 2), "int32"), 0, (2, 3)).shape == (0, 2, 3)
