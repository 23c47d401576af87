"""Compressed files: the container, and what decodes it."""

import dataclasses
import zlib

import numpy as np
from damage import damaged_bytes, pick

from haim_tf.compression import Container, compress, decompress, pack, unpack
from surfaces.presets import tiny_model

# How many of the inputs that can be unpacked are decoded: that takes a model.
DECODED = 0.1


class Compressed:
    """A file as it was written, damaged with and without a checksum that fits, or with odd fields."""

    LIMIT = 120

    def __init__(self, folder):
        self.model = tiny_model()
        rng = np.random.default_rng(0)
        self.images = [rng.integers(0, 256, shape, "uint8") for shape in ((4, 4, 1), (5, 9, 1))]
        # One by one, so that all are decoded by the same small program.
        self.contents = [compress(self.model, [image], labels=1)[0] for image in self.images]

    def attempt(self, rng):
        place = int(rng.integers(len(self.contents)))
        content = self.contents[place]
        kind = rng.random()
        if kind < 0.3:
            content = damaged_bytes(rng, content)
        elif kind < 0.7:
            content = damaged_bytes(rng, content[:-4])
            content += zlib.crc32(content).to_bytes(4, "little")
        else:
            content = self._odd_fields(rng, unpack(content))
        found = unpack(content, "the file")
        assert isinstance(found, Container)
        if rng.random() < DECODED:
            (image,) = decompress(self.model, [found])
            # Never a wrong picture: what is decoded is what was compressed.
            np.testing.assert_array_equal(image, self.images[place])

    def _odd_fields(self, rng, container):
        words = container.words
        changes = {
            "height": pick(rng, [1, 4, 5, 64, 65535]),
            "width": pick(rng, [1, 9, 64, 300]),
            "batch_bits": pick(rng, [0, 1, 2, 6, 7, 255]),
            "slot": pick(rng, [0, 1, 3, 63, 255]),
            "weights": rng.bytes(8),
            "pixels": rng.bytes(8),
            "words": pick(rng, [words[:0], words[:-1], words[::-1], np.tile(words, 3)]),
        }
        chosen = pick(rng, list(changes))
        return pack(dataclasses.replace(container, **{chosen: changes[chosen]}))
