"""What a request may hold: JSON to arrays of one example each, or an error that says what is wrong."""

import base64
import binascii
import json
import reprlib

import numpy as np

# How to sample: may be absent, and, but in exports of before they knew it, -1 for the model's own values.
SAMPLING = {"temperature": (0.0, 100.0), "top_p": (1e-6, 1.0), "guidance": (0.0, 100.0)}
OWN = -1.0
NO_LABEL = -1  # Where codes or images are decoded without one.
MAX_PICTURE_SIDE = 4096
EXTENSION, FRAME = 0x21, 0x2C  # How blocks of a GIF begin.


class RequestError(ValueError):
    """A request that cannot be answered: `status` and `headers` of HTTP, and a message for the client."""

    def __init__(self, message, status=400, headers=None):
        super().__init__(message)
        self.status, self.headers = status, headers


def parse(signature, body, inputs, outputs, description, max_examples):
    """The examples of a request `{"instances": [{...}, ...], "outputs": [...]}`.

    Args:
        signature: its name.
        body: bytes, JSON.
        inputs: the signature's, `{name: (dtype name, shape of one example)}`; dtype `"string"` is bytes,
            `{"b64": ...}` in JSON.
        outputs: names of the signature's outputs.
        description: the export's `haim_tf.json`: `num_classes` and `codebook_sizes` bound labels and codes;
            where it has `sampling`, temperature, top_p and guidance are the model's own where absent or -1,
            and else 1 where absent; the label of the signatures in its `decode_without_label` is none where
            absent or -1.
        max_examples: how many instances one request may have.

    Returns:
        `(examples, names)`: a list of dicts of NumPy arrays or bytes, and the outputs that are asked for.

    Raises:
        RequestError: with a message that names the example, what was given and what is accepted.

    Example:
        >>> inputs = {"label": ("int32", ())}
        >>> body = b'{"instances": [{"label": 3}]}'
        >>> parse("sample", body, inputs, ["image"], {"num_classes": 10}, max_examples=8)
        ([{'label': array(3, dtype=int32)}], ['image'])
    """
    try:
        request = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise RequestError(f"the body must be JSON: {reason[:200]}") from None
    if not isinstance(request, dict) or "instances" not in request:
        raise RequestError(f'the body must be {{"instances": [{{...}}, ...]}}, got {_short(request)}')
    if unknown := sorted(set(request) - {"instances", "outputs"}):
        raise RequestError(f"unknown field {_short(unknown[0])}; the fields are instances and outputs")
    instances = request["instances"]
    if not isinstance(instances, list) or not instances:
        raise RequestError(f"instances must be a list of at least one example, got {_short(instances)}")
    if len(instances) > max_examples:
        raise RequestError(f"instances may hold at most {max_examples} examples, got {len(instances)}", 413)
    names = request.get("outputs", list(outputs))
    if not isinstance(names, list) or not names or not all(name in list(outputs) for name in names):
        raise RequestError(f"outputs must be a list of {', '.join(outputs)}, got {_short(names)}")
    unlabelled = "label" in inputs and signature in description.get("decode_without_label", ())
    return [_example(i, x, inputs, description, unlabelled) for i, x in enumerate(instances)], names


def _short(value):
    text = reprlib.repr(value)  # Of nested lists, too, a part only.
    return text if len(text) <= 60 else f"{text[:60]}..."


def _refuse_constant(text):
    raise ValueError(f"{text} is not a number in JSON")


def _example(number, instance, inputs, description, unlabelled):
    where = f"instances[{number}]"
    if not isinstance(instance, dict):
        raise RequestError(f"{where} must be an object, got {_short(instance)}")
    accepted = ", ".join(inputs)
    if unknown := sorted(set(instance) - set(inputs)):
        raise RequestError(f"{where} has the unknown input {_short(unknown[0])}; the inputs are {accepted}")
    own = "sampling" in description
    instance = {**{name: OWN if own else 1.0 for name in inputs if name in SAMPLING}, **instance}
    if unlabelled:
        instance = {"label": NO_LABEL, **instance}
    if missing := [name for name in inputs if name not in instance]:
        raise RequestError(f"{where} lacks {missing[0]}; the inputs are {accepted}")
    example = {}
    for name, (dtype, shape) in inputs.items():
        if dtype == "string":
            example[name] = _picture(f"{where}.{name}", instance[name])
        else:
            bounds = _bounds(name, dtype, description)
            besides = {}
            if own and name in SAMPLING:
                besides = {OWN: "the model's own"}
            elif name == "label" and unlabelled:
                besides = {NO_LABEL: "none"}
            example[name] = _array(f"{where}.{name}", instance[name], dtype, shape, bounds, besides)
    return example


def _bounds(name, dtype, description):
    """The least and the largest value that an input takes."""
    if name == "label":
        return 0, description["num_classes"] - 1
    if name.startswith("codes_"):
        return 0, description["codebook_sizes"][int(name.removeprefix("codes_")) - 1] - 1
    if name in SAMPLING:
        return SAMPLING[name]
    limits = np.iinfo(dtype)
    return limits.min, limits.max


def _array(where, value, dtype, shape, bounds, besides):
    """The value as an array, each number within bounds or one of `besides`, a dict of what those mean."""
    kind = "number" if dtype == "float32" else "int"
    wanted = f"of shape {list(shape)}, {kind}s" if shape else f"one {kind}"
    wanted = f"{where} must be {wanted} from {bounds[0]} to {bounds[1]}"
    for number, meaning in besides.items():
        wanted += f", or {number:g} for {meaning}"
    try:
        array = np.asarray(value)
    except (ValueError, OverflowError, RecursionError):
        raise RequestError(f"{wanted}, got lists of unequal lengths or depths") from None
    if array.shape != shape:
        raise RequestError(f"{wanted}, got shape {list(array.shape)}")
    if array.dtype.kind not in ("iuf" if dtype == "float32" else "iu"):
        raise RequestError(f"{wanted}, got {_short(value)}")
    # An inf comes of a number like 1e999.
    accepted = (array >= bounds[0]) & (array <= bounds[1])
    for number in besides:
        accepted = accepted | (array == number)
    if not accepted.all():
        raise RequestError(f"{wanted}, got {_short(value) if not shape else 'others among them'}")
    return array.astype(dtype)


def _picture(where, value):
    wanted = f'{where} must be {{"b64": the base64 of a PNG, JPEG or GIF file}}'
    if not isinstance(value, dict) or set(value) != {"b64"} or not isinstance(value["b64"], str):
        raise RequestError(f"{wanted}, got {_short(value)}")
    try:
        return base64.b64decode(value["b64"], validate=True)
    except (binascii.Error, ValueError) as error:
        raise RequestError(f"{wanted}: {error}") from None


def check_picture(file):
    """Refuses bytes that are no picture, or would unpack to a huge one.

    One such file would fail every request in its batch.
    """
    import tensorflow as tf

    try:
        if file.startswith(b"\x89PNG\r\n\x1a\n") and len(file) >= 24:
            sides = int.from_bytes(file[16:20], "big"), int.from_bytes(file[20:24], "big")
        elif file.startswith(b"GIF8") and len(file) >= 13:
            sides = gif_sides(file)
        elif file.startswith(b"\xff\xd8\xff"):
            sides = tuple(tf.image.extract_jpeg_shape(file).numpy()[:2])
        else:
            raise RequestError(f"image_bytes must be a PNG, JPEG or GIF file, got {len(file)} other bytes")
        if not 0 < min(sides) <= max(sides) <= MAX_PICTURE_SIDE:
            raise RequestError(
                f"image_bytes must be a picture of at most {MAX_PICTURE_SIDE} pixels a side, "
                f"got {sides[0]} by {sides[1]}"
            )
        # As the export reads it.
        if file.startswith(b"GIF8"):
            tf.io.decode_image(file, channels=3, expand_animations=False)
        else:
            tf.io.decode_jpeg(file, channels=3, dct_method="INTEGER_ACCURATE")
    except tf.errors.InvalidArgumentError:
        raise RequestError(f"image_bytes cannot be read as a picture ({len(file)} bytes): cut off?") from None


def gif_sides(file):
    """The largest width and height of a GIF's screen and frames, all of which are unpacked with the first: a
    frame may be larger than the screen, and their pixels count together."""
    width, height, flags = int.from_bytes(file[6:8], "little"), int.from_bytes(file[8:10], "little"), file[10]
    place, pixels = 13 + _table_size(flags), 0
    try:
        while file[place] in (EXTENSION, FRAME):
            if file[place] == FRAME:
                right, down = (int.from_bytes(file[place + i : place + i + 2], "little") for i in (5, 7))
                width, height, pixels = max(width, right), max(height, down), pixels + right * down
                place += 11 + _table_size(file[place + 9])
            else:
                place += 2
            while file[place]:  # Blocks of data, each with its length in front.
                place += 1 + file[place]
            place += 1
    except IndexError:
        pass  # Cut off: what is there counts, and reading it will fail.
    most = MAX_PICTURE_SIDE**2
    if max(width, height) <= MAX_PICTURE_SIDE and pixels > most:
        raise RequestError(f"image_bytes must be a picture of at most {most} pixels in all, got {pixels}")
    return width, height


def _table_size(flags):
    """Bytes of a colour table, as the flags before it tell."""
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def to_json(value):
    """One output of one example for JSON: arrays as nested lists, bytes as `{"b64": ...}`."""
    if isinstance(value, bytes):
        return {"b64": base64.b64encode(value).decode()}
    return value.tolist()
