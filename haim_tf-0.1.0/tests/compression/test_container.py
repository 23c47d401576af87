"""The file format: what is written is read, and nothing damaged passes."""

import dataclasses
import struct
import zlib

import numpy as np
import pytest

from haim_tf.compression import container
from haim_tf.compression.container import Container, pack, unpack

WORDS = np.array([1, 2**32 - 1, 77], "uint32")
CONTAINER = Container("fashion", b"12345678", 300, 65535, 6, 63, b"abcdefgh", WORDS)


@pytest.mark.parametrize("height", [1, 127, 128, 16384, 65535])
def test_round_trip(height):
    written = dataclasses.replace(CONTAINER, height=height, width=66000 - height if height > 500 else 3)
    read = unpack(pack(written))
    assert dataclasses.replace(read, words=None) == dataclasses.replace(written, words=None)
    np.testing.assert_array_equal(read.words, WORDS)
    assert len(pack(written)) <= 4 + 1 + 1 + 7 + 8 + 6 + 2 + 8 + 12 + 4


def test_every_truncation_and_every_flipped_bit_is_found():
    data = pack(CONTAINER)
    for size in range(len(data)):
        with pytest.raises(ValueError, match="x.haim is (damaged or truncated|no compressed image)"):
            unpack(data[:size], "x.haim")
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ValueError, match="x.haim is (damaged or truncated|no compressed image)"):
            unpack(flipped, "x.haim")
    with pytest.raises(ValueError, match="damaged"):
        unpack(data + b"\0")


@pytest.mark.parametrize(
    ("position", "value", "message"),
    [
        (4, 2, "format version 2; this reads version 1"),
        (5, 255, "damaged"),  # The name's length.
        (6, 255, "damaged"),  # No UTF-8.
        (21, 0, "damaged"),  # A height of 0.
        (25, 7, "damaged"),  # log2 of the batch.
        (26, 64, "damaged"),  # The slot.
    ],
)
def test_fields_that_say_nonsense_under_a_right_checksum(position, value, message):
    data = bytearray(pack(dataclasses.replace(CONTAINER, height=5, width=65535)))
    data[position] = value
    data[-4:] = struct.pack("<I", zlib.crc32(data[:-4]))
    with pytest.raises(ValueError, match=message):
        unpack(data)


def test_what_cannot_be_written():
    with pytest.raises(ValueError, match="sides of 1 to 65535 pixels, got 65536x3"):
        pack(dataclasses.replace(CONTAINER, height=65536, width=3))
    with pytest.raises(ValueError, match="at most 255 bytes"):
        pack(dataclasses.replace(CONTAINER, model="x" * 256))
    assert container.MAX_BATCH_BITS == 6
