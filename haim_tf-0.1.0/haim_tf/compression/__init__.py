"""Lossless compression: images to files and back, coded with the model's own probabilities.

Of each tile of the model's image size the top codes are coded first, then level by level the grids below,
down to the pixels, each element with the probabilities that the network gives it after those before. The size
is thus what `bits_per_dim` states, and a header. It needs tensorflow and the package `constriction`.
"""

from haim_tf.compression.coding import compress, decompress, fingerprint
from haim_tf.compression.container import Container, pack, unpack

__all__ = ["Container", "compress", "decompress", "fingerprint", "pack", "unpack"]
