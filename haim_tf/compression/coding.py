"""Coding images with a model: range coding of codes and pixels, level by level, batched over tiles."""

import hashlib
import json
from collections.abc import Sequence

import keras
import numpy as np

from haim_tf import progress
from haim_tf.backend import require_tensorflow
from haim_tf.class_names import Labels
from haim_tf.compression import container, tiles
from haim_tf.compression.container import Container
from haim_tf.models import HierarchicalModel, inputs
from haim_tf.sampling import HostWalk


def compress(
    model: HierarchicalModel,
    images: Sequence[np.ndarray] | np.ndarray,
    labels: Labels | None = None,
    name: str | None = None,
    verbose: bool | None = None,
) -> list[bytes]:
    """Compresses images without loss.

    Args:
        model: a `HierarchicalModel`.
        images: a list of uint8 arrays `(H, W, C)`, sides up to 65535, or an array `(B, H, W, C)`; larger ones
            than the model's are cut into tiles, the last ones filled up.
        labels: of class-conditional models: one int or one per image, for all its tiles; `None`: each tile's
            most probable one. They are part of the file.
        name: what the file says the model's name is; its own by default.
        verbose: whether to show a progress bar; `None`: when there is more than one batch of tiles.

    Returns:
        A list of bytes, one file per image; see `haim_tf.compression.container`. Its size is the bound that
        `bits_per_dim` states of its tiles, log2(num_classes) bits a tile for the label, and the header, about
        30 bytes and the model's name.

    Raises:
        ValueError: images or labels that do not fit the model.

    Example:
        >>> model = haim_tf.load("debug")
        >>> image = np.zeros((20, 30, 3), "uint8")
        >>> files = compress(model, [image])
        >>> bool((decompress(model, files)[0] == image).all())
        True

    Reference: De Fauw, Dieleman, Simonyan 2019, section 3 (the bound). NOTE: the codes are coded as they are,
    without bits back.
    """
    require_tensorflow("compression")
    inputs.check_codes_have_auxiliary(model, "compression")
    images = [_check_image(image, model) for image in images]
    if labels is not None or not model.num_classes:
        labels = inputs.check_labels(labels, model.num_classes, len(images), model.class_names)
    name, weights, shape = name or model.name, fingerprint(model), model.image_shape
    for image in images:  # What no file can hold is said before the work.
        container.pack(Container(name, weights, *image.shape[:2], 0, 0, bytes(8), np.zeros(0, "uint32")))
    counts = [tiles.count(*image.shape[:2], shape) for image in images]
    batch_bits = min(max(sum(counts) - 1, 0).bit_length(), container.MAX_BATCH_BITS)
    size = 1 << batch_bits
    slots = tiles.choose_slots(counts, size)
    coders = [_Encoder() for _ in images]

    def encode(groups, steps):
        elements = np.zeros((size, *shape), "uint8")
        tile_labels = np.zeros(size, "int32")
        used = np.zeros(size, bool)
        for file, chosen, place in groups:
            elements[place] = tiles.split(images[file], shape)[chosen]
            tile_labels[place] = 0 if labels is None else labels[file]
            used[place] = True
        grids = [keras.ops.convert_to_numpy(model.elements(elements)), *model.encode(elements)]
        if model.num_classes and labels is None:
            tile_labels = _likeliest_labels(model, [elements, *grids[1:], None])
        # A slot without a tile must look in here as it does in decoding.
        for grid in (tile_labels, *grids[1:]):
            grid[~used] = 0
        _code(model, steps, [(coders[i], place) for i, _, place in groups], size, tile_labels, grids)

    _in_batches(model, tiles.plan(counts, slots, size), encode, verbose)
    return [
        container.pack(
            Container(name, weights, *image.shape[:2], batch_bits, slot, _digest(image), coder.words())
        )
        for image, slot, coder in zip(images, slots, coders, strict=True)
    ]


def decompress(
    model: HierarchicalModel,
    files: Sequence[bytes | Container],
    names: Sequence[str] | None = None,
    verbose: bool | None = None,
) -> list[np.ndarray]:
    """The images of compressed files, exactly.

    Args:
        model: the `HierarchicalModel` that they were compressed with.
        files: a list of bytes, or of `Container`s.
        names: names of the files for messages; `None`: `file 0` and so on.
        verbose: as for `compress`.

    Returns:
        A list of uint8 arrays `(H, W, C)`.

    Raises:
        ValueError: no file of this format, one that is damaged or truncated, one of another model or other
            weights; pixels that differ from those compressed, as where another machine's arithmetic gives
            other floats. No wrong picture is ever returned.

    Example:
        >>> model = haim_tf.load("debug")
        >>> images = model.sample(2, labels=0)
        >>> decompress(model, compress(model, images))[0].shape
        (16, 16, 3)
    """
    require_tensorflow("decompression")
    names = [f"file {i}" for i in range(len(files))] if names is None else names
    files = [
        file if isinstance(file, Container) else container.unpack(file, name)
        for file, name in zip(files, names, strict=True)
    ]
    weights, shape = fingerprint(model), model.image_shape
    for file, name in zip(files, names, strict=True):
        if file.weights != weights:
            raise ValueError(
                f"{name} was written by the model {file.model!r} with the weights {file.weights.hex()}; the "
                f"weights of this model are {weights.hex()}"
            )
    results = [None] * len(files)
    for batch_bits in sorted({file.batch_bits for file in files}):
        size = 1 << batch_bits
        rows = [i for i, file in enumerate(files) if file.batch_bits == batch_bits]
        chosen = [files[i] for i in rows]
        counts = [tiles.count(file.height, file.width, shape) for file in chosen]
        for i, tile_count in zip(rows, counts, strict=True):
            if files[i].slot + min(tile_count, size) > size:
                raise _UndecodableError(names[i])
        coders = [_Decoder(file.words, names[i]) for file, i in zip(chosen, rows, strict=True)]
        decoded = [np.zeros((tile_count, *shape), "uint8") for tile_count in counts]

        def decode(groups, steps, size=size, coders=coders, decoded=decoded):
            pixels = _code(model, steps, [(coders[i], place) for i, _, place in groups], size)
            for file, part, place in groups:
                decoded[file][part] = pixels[place].reshape(-1, *shape)

        _in_batches(model, tiles.plan(counts, [file.slot for file in chosen], size), decode, verbose)
        for i, coder, image in zip(rows, coders, decoded, strict=True):
            image = tiles.join(image, files[i].height, files[i].width)
            if not coder.exhausted() or _digest(image) != files[i].pixels:
                raise _UndecodableError(names[i])
            results[i] = image
    return results


def fingerprint(model: HierarchicalModel) -> bytes:
    """8 bytes that tell models apart: the start of the SHA-256 of configuration, precision and weights.

    Example:
        >>> len(fingerprint(haim_tf.load("debug")))
        8
    """
    config = {key: value for key, value in model.get_config().items() if key in model._arguments}
    described = json.dumps([config, model.dtype_policy.name], sort_keys=True)
    digest = hashlib.sha256(described.encode())
    for weight in model.weights:
        digest.update(keras.ops.convert_to_numpy(weight).tobytes())
    return digest.digest()[:8]


# Of any symbol, in the coder's fixed point.
LEAST_PROBABILITY = 2.0**-24


class _UndecodableError(ValueError):
    def __init__(self, name):
        super().__init__(
            f"{name} cannot be decoded here: what comes out is not what was compressed. This machine's "
            "arithmetic gives other probabilities than the one that wrote it, or the file was altered"
        )


def _code(model, steps, groups, size, labels=None, grids=None):
    """Runs a batch of tiles through the coders; encodes `labels` and `grids` where given, else decodes.

    Args:
        model: the model.
        steps: a `HostWalk` of each network.
        groups: `(coder, slots)` of each file, a slice of the batch's `size` tiles.
        labels, grids: int32 `(size,)`, and x_0, ..., x_L; unused slots are 0 in all but x_0.

    Returns:
        The pixels, int32 `(size, H, W[, C])`.
    """
    below = None
    if model.num_classes:
        uniform = np.full((size, model.num_classes), 1.0, "float32")
        labels = _code_values(groups, size, None if grids is None else labels, uniform)
    for index in range(model.num_levels, -1, -1):
        known = None if grids is None else grids[index]

        def code(position, probabilities, known=known):
            values = None if known is None else known[(slice(None), *position)]
            return _code_values(groups, size, values, probabilities)

        below = steps[index].run(size, code, **model.conditioning(index, below, labels))
    return below


def _likeliest_labels(model, grids):
    """The label that each tile is shortest with, int32 `(size,)`, by the networks that are told it."""
    told = [index for index, network in enumerate(model.networks) if network.num_classes]
    parts = [model._run("_log_probs_of_labels", *grids[i : i + 2], i) for i in told]
    return sum(parts).argmax(axis=1).astype("int32")


def _code_values(groups, size, known, probabilities):
    """One value a tile, int32 `(size,)`, 0 in unused slots; `probabilities` `(size, K)` need not sum to 1."""
    values = np.zeros(size, "int32")
    if probabilities.shape[1] == 1:  # Nothing to say, and the coder takes no such alphabet.
        return values
    for coder, place in groups:
        part = None if known is None else known[place]
        values[place] = coder.code(part, probabilities[place])
    return values


class _Encoder:
    def __init__(self):
        self._coder, self._family = _constriction().RangeEncoder(), _family()

    def code(self, values, probabilities):
        values = np.ascontiguousarray(values, "int32")
        self._coder.encode(values, self._family, probabilities)
        return values

    def words(self):
        return self._coder.get_compressed()


class _Decoder:
    def __init__(self, words, name):
        self._coder, self._family, self._name = _constriction().RangeDecoder(words), _family(), name
        # How much more its words can tell, in bits, generously: the coder itself would go on with zeros.
        self._left = 2 * 32 * len(words) + 1000.0

    def code(self, values, probabilities):
        try:
            values = self._coder.decode(self._family, probabilities)
        except AssertionError:  # The coder's word for data that no symbols lead to.
            raise _UndecodableError(self._name) from None
        chosen = probabilities[np.arange(len(values)), values] / probabilities.sum(axis=1)
        self._left += float(np.log2(np.maximum(chosen, LEAST_PROBABILITY)).sum())
        if self._left < 0:
            raise _UndecodableError(self._name)
        return values

    def exhausted(self):
        return self._coder.maybe_exhausted()


def _constriction():
    import constriction

    return constriction.stream.queue


def _family():
    """Fixed-point probabilities of 24 bits, never zero, from float32 ones."""
    import constriction

    return constriction.stream.model.Categorical(perfect=False)


def _in_batches(model, batches, function, verbose):
    """Calls `function(groups, steps)` for each batch, with a progress bar."""
    steps = []
    for index, network in enumerate(model.networks):
        if ("steps", index) not in model._programs:
            model._programs["steps", index] = HostWalk(network, model.grid_shapes[index])
        steps.append(model._programs["steps", index])
    show = verbose or (verbose is None and len(batches) > 1)
    bar = progress.Bar(len(batches), "batches of tiles", show=show)
    for groups in batches:
        function(groups, steps)
        bar.add(1)


def _check_image(image, model):
    image, channels = np.asarray(image), model.image_shape[2]
    if image.ndim != 3 or image.dtype != np.uint8 or image.shape[2] != channels or not image.size:
        raise ValueError(
            f"this model compresses uint8 images of shape (H, W, {channels}), got {image.dtype} of shape "
            f"{image.shape}"
        )
    return image


def _digest(image):
    return hashlib.sha256(np.ascontiguousarray(image).tobytes()).digest()[:8]
