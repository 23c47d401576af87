"""Export: a model as a SavedModel that any TensorFlow runs and serves, with no Python of this project."""

import json
import math
import os
import shutil
import tempfile
from pathlib import Path

import keras
import numpy as np
from keras import ops

from haim_tf.models.inputs import check_codes_have_auxiliary
from haim_tf.sampling import draw_noise, sample_grid
from haim_tf.version import __version__

DTYPES = ("float32", "bfloat16", "float16")
BATCH_SIZES = (1, 8, 32)
DESCRIPTION = "haim_tf.json"


def export(model, folder, dtype="float32", batch_sizes=BATCH_SIZES, warmup=True, xla=True, name=None):
    """Writes a model as `folder/<version>/`, the next integer: a SavedModel that stands alone.

    It needs tensorflow to run, nothing else, and serves as it is under TensorFlow Serving. Every input and
    output is a named tensor with one row an example, and a row of the output depends on its own row of the
    input alone. Signatures (without `label` where the model is unconditional; only `sample` and `log_prob`
    where it has no levels):

    - `sample`, also `serving_default`: `label`, `seed`, `temperature`, `top_p` -> `image`, `image_bytes`
    - `encode`: `image` -> `codes_1`, ..., `codes_L`; `encode_bytes`: `image_bytes` -> the same
    - `decode_level_l`: `codes_l`, `seed`, `temperature`, `top_p` -> `image`, `image_bytes`; `decode` is the
      top level's
    - `reconstruct_level_l`: `image`, `seed`, `temperature`, `top_p` -> `image`, `image_bytes`;
      `reconstruct` is level 1's
    - `log_prob`: `image`, `label` -> `log_prob`, `bits_per_dim`, `bits_per_dim_level_1`, ..., `_prior`

    Tensors: `image` uint8 `(B, H, W, C)`; `image_bytes` string `(B,)`, out: PNG, in: PNG, JPEG or GIF, which
    is converted to the model's channels and, where it has another size, cropped around its centre and
    resized; `codes_l` int32 `(B, h_l, w_l)`; `label` int32 `(B,)`; `seed` int32 `(B, 2)`, the pairs that
    `HierarchicalModel.sample` takes; `temperature` (0..100) and `top_p` (above 0, at most 1) float32 `(B,)`,
    for all levels alike; `log_prob` nats, a lower bound; `bits_per_dim` an upper bound, the parts summing up.

    An example with an input out of range does not disturb the others of its batch: it gets a black `image`
    with empty `image_bytes`, codes of -1, or NaN. Only bytes that are no picture fail their whole batch.

    Sampling is compiled (XLA) once a batch size of `batch_sizes`; a batch is filled up to the next of them,
    and a larger one goes through in pieces, so that no size that comes up later waits for a compiler.

    Args:
        model: a `HierarchicalModel`. What only training needs stays behind: auxiliary decoders, moving
            averages, the optimizer.
        folder: where the versions are, made where absent.
        dtype: the weights' in the file: `"float32"`, or `"bfloat16"` or `"float16"` for half the size.
            Encoders and codebooks stay float32, since rounded ones would change codes; all is computed as
            the model's own dtype policy says.
        batch_sizes: ints, the compiled ones.
        warmup: also write requests of these sizes for every signature that TensorFlow Serving sends to itself
            before it takes others (`assets.extra/tf_serving_warmup_requests`).
        xla: compile the sampling loops. TensorFlow Serving compiles only where it is told to
            (`--xla_cpu_compilation_enabled`), and its own GPU build not at all: `False` makes an export that
            runs everywhere, and samples much more slowly.
        name: the model's, for those who serve it; `None`: the folder's.

    Returns:
        The `Path` of the version, which appears only when it is complete.

    Raises:
        ValueError: an argument that is not as stated, or a folder that cannot be written.

    Example:
        >>> export(haim_tf.load("debug"), "exported/debug")
        >>> loaded = tf.saved_model.load("exported/debug/1")
        >>> loaded.signatures["sample"](label=[3], seed=[[0, 0]], temperature=[1.0], top_p=[1.0])["image"]
    """
    import tensorflow as tf

    check_codes_have_auxiliary(model, "export")
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    sizes = sorted({*batch_sizes})
    if not sizes or not all(isinstance(n, (int, np.integer)) and n > 0 for n in sizes):
        raise ValueError(f"batch_sizes must be positive ints, got {batch_sizes!r}")
    folder = Path(folder).absolute()
    program = _Program(model, dtype, [int(n) for n in sizes], xla)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=".unfinished.", dir=folder))
        try:
            signatures, traced = program.signatures(), {}
            for function, inputs in signatures.values():
                if function not in traced:
                    traced[function] = tf.function(function, autograph=False).get_concrete_function(**inputs)
            module = tf.Module()
            # Saved because they hang here, and only these are.
            module.weights = [x for pairs in program.weights.values() for _, x in pairs]
            concrete = {key: traced[function] for key, (function, _) in signatures.items()}
            tf.saved_model.save(module, str(unfinished), signatures=concrete)
            extra = unfinished / "assets.extra"
            extra.mkdir()
            description = {**program.description(dtype), "name": name or folder.name}
            (extra / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n")
            if warmup:
                with tf.io.TFRecordWriter(str(extra / "tf_serving_warmup_requests")) as writer:
                    for key, (_, inputs) in signatures.items():
                        for size in sizes:
                            writer.write(_warmup_request(description["name"], key, inputs, size))
            unfinished.chmod(0o755)  # Temporary folders are private.
            return _number(unfinished, folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    except OSError as error:
        raise ValueError(f"cannot write {folder}: {error.strerror or error}") from error


def _number(unfinished, folder):
    """Renames a finished version to the next integer; another export may take it at the same time."""
    while True:
        taken = [int(path.name) for path in folder.iterdir() if path.name.isdecimal()]
        version = folder / str(max(taken, default=0) + 1)
        try:
            os.rename(unfinished, version)
            return version
        except OSError:
            if not version.exists():
                raise


class _Program:
    """The signatures of a model, as functions of tensors with weights of their own."""

    def __init__(self, model, dtype, sizes, xla):
        import tensorflow as tf

        self.model, self.sizes, self.xla = model, sizes, xla
        # By part, Keras' variables and what is exported of them; saving fails where another one is read.
        self.weights = {}
        for part in (*model.autoencoders, *model.networks):
            exact = part in model.autoencoders
            variables = [*part.encoder.variables, part.quantizer.codebook] if exact else part.variables
            self.weights[part.name] = stored = []
            for variable in variables:
                if not keras.backend.is_float_dtype(variable.dtype):
                    continue  # The random state of dropout.
                value = ops.convert_to_numpy(variable)
                if not exact and np.abs(value).max(initial=0) > tf.as_dtype(dtype).max:
                    raise ValueError(f"{variable.path} does not fit {dtype}: say dtype='float32'")
                value = tf.cast(value, "float32" if exact else dtype)
                stored.append((variable, tf.Variable(value, trainable=False, name=variable.path)))
        self._samplers = [self._sampler(network) for network in model.networks]

    def _reading(self, parts):
        """Inside, the layers of these parts read the exported weights."""
        import tensorflow as tf

        pairs = [pair for part in parts for pair in self.weights[part.name]]
        return keras.StatelessScope([(variable, tf.cast(x, variable.dtype)) for variable, x in pairs])

    def _sampler(self, network):
        """Grids `(B, ...)` from the inputs of `sample_grid`, for any number of examples."""
        import tensorflow as tf

        @tf.function(jit_compile=self.xla or None, autograph=False)
        def run(inputs):
            with self._reading([network]):
                return sample_grid(network, **inputs)[0]

        def in_pieces(inputs, count, size):
            pieces = -(-count // size)
            # The last piece is filled up with its last example.
            rows = tf.reshape(tf.minimum(tf.range(pieces * size), count - 1), (pieces, size))

            def run_piece(rows):
                piece = {name: tf.gather(x, rows) for name, x in inputs.items()}
                return run({name: tf.ensure_shape(x, (size, *x.shape[1:])) for name, x in piece.items()})

            grids = tf.map_fn(run_piece, rows, fn_output_signature=tf.int32, parallel_iterations=1)
            return tf.reshape(grids, (pieces * size, *grids.shape[2:]))[:count]

        def sample(inputs):
            count = tf.shape(inputs["noise"])[0]
            fitting = tf.searchsorted(self.sizes, count[None])[0]
            branches = [lambda size=size: in_pieces(inputs, count, size) for size in self.sizes]
            return tf.switch_case(tf.minimum(fitting, len(branches) - 1), branches)

        return sample

    def signatures(self):
        """Each signature's function and its inputs' specs, by name."""
        import tensorflow as tf

        def spec(name, dtype, *shape):
            return {name: tf.TensorSpec((None, *shape), dtype, name)}

        model, levels = self.model, self.model.num_levels
        label = spec("label", "int32") if model.num_classes else {}
        image = spec("image", "uint8", *model.image_shape)
        sampling = spec("seed", "int32", 2) | spec("temperature", "float32") | spec("top_p", "float32")
        found = {
            "serving_default": (self.sample, label | sampling),
            "sample": (self.sample, label | sampling),
        }
        if levels:
            found["encode"] = (self.encode, image)
            found["encode_bytes"] = (self.encode_bytes, spec("image_bytes", "string"))
        for level in range(1, levels + 1):
            codes = spec(f"codes_{level}", "int32", *model.grid_shapes[level])
            found[f"decode_level_{level}"] = (self._at(self.decode, level), codes | sampling)
            found[f"reconstruct_level_{level}"] = (self._at(self.reconstruct, level), image | sampling)
        if levels:
            found["decode"] = found[f"decode_level_{levels}"]
            found["reconstruct"] = found["reconstruct_level_1"]
        found["log_prob"] = (self.log_prob, image | label)
        return found

    @staticmethod
    def _at(method, level):
        return lambda **inputs: method(level, **inputs)

    def sample(self, seed, temperature, top_p, label=None):
        import tensorflow as tf

        valid = _valid_sampling(temperature, top_p)
        conditioning = {}
        if label is not None:
            known = (label >= 0) & (label < self.model.num_classes)
            valid, conditioning = valid & known, {"labels": tf.where(known, label, 0)}
        return self._sample_from(self.model.num_levels, seed, temperature, top_p, conditioning, valid)

    def decode(self, level, seed, temperature, top_p, **codes):
        import tensorflow as tf

        (codes,) = codes.values()
        known = (codes >= 0) & (codes < self.model.codebook_sizes[level - 1])
        valid = _valid_sampling(temperature, top_p) & tf.reduce_all(known, axis=(1, 2))
        conditioning = {"codes": tf.where(known, codes, 0)}
        return self._sample_from(level - 1, seed, temperature, top_p, conditioning, valid)

    def reconstruct(self, level, image, seed, temperature, top_p):
        codes = self.encode(image)[f"codes_{level}"]
        valid = _valid_sampling(temperature, top_p)
        return self._sample_from(level - 1, seed, temperature, top_p, {"codes": codes}, valid)

    def _sample_from(self, top, seed, temperature, top_p, conditioning, valid):
        """Samples network `top` and those below: images and their PNG files."""
        import tensorflow as tf

        temperature, top_p = tf.where(valid, temperature, 1.0), tf.where(valid, top_p, 1.0)
        for index in range(top, -1, -1):
            noise_size = self.model.networks[index].likelihood.noise_size
            noise = draw_noise(seed, index, (*self.model.grid_shapes[index], noise_size))
            inputs = {"noise": noise, "temperature": temperature, "top_p": top_p, **conditioning}
            conditioning = {"codes": self._samplers[index](inputs)}
        images = tf.reshape(tf.cast(conditioning["codes"], "uint8"), (-1, *self.model.image_shape))
        files = tf.map_fn(tf.io.encode_png, images, fn_output_signature=tf.string)
        return {
            "image": tf.where(valid[:, None, None, None], images, tf.zeros_like(images)),
            "image_bytes": tf.where(valid, files, ""),
        }

    def encode(self, image):
        with self._reading(self.model.autoencoders):
            codes = self.model._encode(image)
        return {f"codes_{level}": grid for level, grid in enumerate(codes, start=1)}

    def encode_bytes(self, image_bytes):
        import tensorflow as tf

        def decode(file):
            return _decode_image(file, self.model.image_shape)

        return self.encode(tf.map_fn(decode, image_bytes, fn_output_signature=tf.uint8))

    def log_prob(self, image, label=None):
        import tensorflow as tf

        known = None
        if label is not None:
            known = (label >= 0) & (label < self.model.num_classes)
            label = tf.where(known, label, 0)
        with self._reading([*self.model.autoencoders, *self.model.networks]):
            parts = self.model._log_probs(image, label)
        if known is not None:
            parts = tf.where(known[:, None], parts, math.nan)
        bits = -parts / (math.prod(self.model.image_shape) * math.log(2.0))
        names = [f"level_{level}" for level in range(1, self.model.num_levels + 1)] + ["prior"]
        return {
            "log_prob": tf.reduce_sum(parts, axis=1),
            "bits_per_dim": tf.reduce_sum(bits, axis=1),
            **{f"bits_per_dim_{name}": bits[:, i] for i, name in enumerate(names)},
        }

    def description(self, dtype):
        """What a server or a page wants to know of the model, JSON-able."""
        model = self.model
        return {
            "image_shape": list(model.image_shape),
            "num_classes": model.num_classes,
            "class_names": model.class_names,
            "code_grids": [list(shape) for shape in model.grid_shapes[1:]],
            "codebook_sizes": list(model.codebook_sizes),
            "batch_sizes": self.sizes,
            "dtype": dtype,
            "xla": self.xla,
            "haim_tf_version": __version__,
        }


def _valid_sampling(temperature, top_p):
    """Which examples' temperature and top_p are in the range that `HierarchicalModel.sample` accepts."""
    return (temperature >= 0.0) & (temperature <= 100.0) & (top_p >= 1e-6) & (top_p <= 1.0)


def _decode_image(file, image_shape):
    """The picture in a PNG, JPEG or GIF file, uint8 `(H, W, C)`; equal to Pillow's where the size fits."""
    import tensorflow as tf

    height, width, channels = image_shape
    # It reads the other formats as well, and with this method JPEG as Pillow does.
    image = tf.io.decode_jpeg(file, channels=3, dct_method="INTEGER_ACCURATE")
    if channels == 1:
        weights = tf.constant([19595, 38470, 7471])  # ITU-R 601 in 16 bits, as Pillow has them.
        image = (tf.reduce_sum(tf.cast(image, "int32") * weights, axis=-1, keepdims=True) + 0x8000) // 0x10000
    found = tf.shape(image)

    def fit():
        # The largest part around the centre that has the aspect ratio wanted.
        scale = tf.reduce_min(tf.cast(found[:2], "float32") / (height, width))
        size = tf.maximum(tf.cast(tf.round(scale * (height, width)), "int32"), 1)
        top, left = tf.unstack((found[:2] - size) // 2)
        part = image[top : top + size[0], left : left + size[1]]
        resized = tf.image.resize(tf.cast(part, "float32"), (height, width), "lanczos3", antialias=True)
        return tf.cast(tf.clip_by_value(tf.round(resized), 0.0, 255.0), "int32")

    fits = tf.reduce_all(found[:2] == (height, width))
    image = tf.cond(fits, lambda: tf.cast(image, "int32"), fit)
    return tf.cast(tf.ensure_shape(image, image_shape), "uint8")


def _warmup_request(name, signature, inputs, size):
    """A `tensorflow.serving.PredictionLog` of one request, serialized; its package is not needed for it."""
    import tensorflow as tf

    def field(number, content):
        return bytes([number << 3 | 2]) + _varint(len(content)) + content

    spec = field(1, name.encode()) + field(3, signature.encode())
    request = field(1, spec)
    for key, tensor in example_inputs(inputs, size).items():
        value = tf.make_tensor_proto(tensor).SerializeToString()
        request += field(2, field(1, key.encode()) + field(2, value))
    return field(6, field(1, request))


def _varint(number):
    """A non-negative int as protocol buffers write it."""
    groups = []
    while True:
        number, group = number >> 7, number & 0x7F
        groups.append(group | (0x80 if number else 0))
        if not number:
            return bytes(groups)


def example_inputs(inputs, size):
    """`size` valid examples for the specs of a signature's inputs, NumPy arrays by name."""
    import tensorflow as tf

    arrays = {}
    for name, spec in inputs.items():
        shape = (size, *spec.shape[1:])
        if name == "image_bytes":
            picture = tf.io.encode_png(tf.zeros((1, 1, 3), "uint8")).numpy()
            arrays[name] = np.full(shape, picture, object)
        else:
            fill = 1 if name in ("temperature", "top_p") else 0
            arrays[name] = np.full(shape, fill, spec.dtype.as_numpy_dtype)
    return arrays
