"""The file format: a header, the range coder's words, and a checksum over both.

Numbers are little-endian; a varint holds 7 bits a byte, lowest first, the high bit set on all but the last.

| field | bytes | holds |
|---|---|---|
| magic | 4 | `HAIM` |
| version | 1 | 1 |
| model | 1 + n | length and UTF-8 name of the model |
| weights | 8 | `fingerprint` of the model: its configuration and weights |
| size | 2 varints | height and width of the image |
| batch | 1 | log2 of the number of tiles that one program runs on |
| slot | 1 | which of those the file's first tile is |
| pixels | 8 | start of the SHA-256 of the pixels |
| words | 4 m | the range coder's words, uint32: labels, top codes, ..., pixels |
| checksum | 4 | CRC-32 of everything before |

Batch and slot are there because a matrix product's last bit may depend on the number of rows and on the row:
decoding repeats the encoder's computation in the same place.
"""

import dataclasses
import struct
import zlib

import numpy as np

from haim_tf.files import varint

MAGIC = b"HAIM"
VERSION = 1
MAX_SIDE = 65535
MAX_BATCH_BITS = 6
_FIXED = struct.Struct("<BB8s")


@dataclasses.dataclass(frozen=True)
class Container:
    """What a file holds: the `model`'s name, checksums of `weights` and `pixels` (8 bytes each), `height` and
    `width` of the image, `batch_bits` and `slot` (see the module), the range coder's `words`, uint32.

    Example:
        >>> model = haim_tf.load("debug")
        >>> container = unpack(compress(model, np.zeros((1, 16, 16, 3), "uint8"))[0])
        >>> container.height, container.width
        (16, 16)
    """

    model: str
    weights: bytes
    height: int
    width: int
    batch_bits: int
    slot: int
    pixels: bytes
    words: np.ndarray


def pack(container: Container) -> bytes:
    """The bytes of a file.

    Raises:
        ValueError: a side outside 1..65535, or a model's name of more than 255 bytes.

    Example:
        >>> model = haim_tf.load("debug")
        >>> data = compress(model, np.zeros((1, 16, 16, 3), "uint8"))[0]
        >>> pack(unpack(data)) == data
        True
    """
    try:
        name = container.model.encode()
    except (AttributeError, UnicodeEncodeError):
        raise ValueError(f"a model's name must be a text of UTF-8, got {container.model!r:.60}") from None
    if not 1 <= min(container.height, container.width) <= max(container.height, container.width) <= MAX_SIDE:
        raise ValueError(
            f"images must have sides of 1 to {MAX_SIDE} pixels, got {container.height}x{container.width}"
        )
    if len(name) > 255:
        raise ValueError(f"a model's name must have at most 255 bytes in a file, got {container.model!r}")
    data = b"".join(
        [
            MAGIC,
            bytes([VERSION, len(name)]),
            name,
            container.weights,
            varint(container.height),
            varint(container.width),
            _FIXED.pack(container.batch_bits, container.slot, container.pixels),
            container.words.astype("<u4").tobytes(),
        ]
    )
    return data + struct.pack("<I", zlib.crc32(data))


def unpack(data: bytes, what: str = "the file") -> Container:
    """The `Container` of a file's bytes.

    Args:
        data: bytes.
        what: the file's name, for messages.

    Raises:
        ValueError: no file of this format, one of another version, or one that is damaged or truncated.

    Example:
        >>> model = haim_tf.load("debug")
        >>> unpack(compress(model, np.zeros((1, 16, 16, 3), "uint8"))[0]).width
        16
    """
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise ValueError(f"{what} must be bytes, got {type(data).__name__}")
    data = bytes(data)
    if data[:4] != MAGIC:
        raise ValueError(f"{what} is no compressed image of haim_tf: it does not start with {MAGIC!r}")
    damaged = ValueError(f"{what} is damaged or truncated: its checksum does not fit its {len(data)} bytes")
    if len(data) < 9 or zlib.crc32(data[:-4]) != struct.unpack("<I", data[-4:])[0]:
        raise damaged
    if data[4] != VERSION:
        raise ValueError(f"{what} has format version {data[4]}; this reads version {VERSION}")
    try:
        end = 6 + data[5]
        name, weights = data[6:end].decode(), data[end : end + 8]
        height, position = _read_varint(data, end + 8)
        width, position = _read_varint(data, position)
        batch_bits, slot, pixels = _FIXED.unpack_from(data, position)
        words = np.frombuffer(data[position + _FIXED.size : -4], "<u4").astype("uint32")
    except (ValueError, IndexError, struct.error):
        raise damaged from None
    sides_fit = 1 <= min(height, width) and max(height, width) <= MAX_SIDE
    if not sides_fit or batch_bits > MAX_BATCH_BITS or slot >= 1 << batch_bits:
        raise damaged
    return Container(name, weights, height, width, batch_bits, slot, pixels, words)


def _read_varint(data, position):
    number = shift = 0
    while data[position] & 128:
        number |= (data[position] & 127) << shift
        position, shift = position + 1, shift + 7
    return number | data[position] << shift, position + 1
