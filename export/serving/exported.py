"""A version of an exported model, and its signatures on batches of the sizes that it was compiled for."""

import bisect
import json
from pathlib import Path

import numpy as np

from serving.requests import SAMPLING

# What a whole version has; one may be looked at while it is being copied.
OF_A_VERSION = ("saved_model.pb", "variables/variables.index")


def newest_version(folder):
    """The largest integer among the complete version folders in `folder`, or `None`."""
    versions = [
        int(path.name)
        for path in Path(folder).iterdir()
        if path.name.isdecimal()
        and path.name == str(int(path.name))
        and all((path / name).is_file() for name in OF_A_VERSION)
    ]
    return max(versions, default=None)


def contents(folder, version):
    """The names and sizes of a version's files."""
    paths = sorted(path for path in (Path(folder) / str(version)).rglob("*") if path.is_file())
    return [(path.name, path.stat().st_size) for path in paths]


def limit_threads(threads, parallel=None):
    """Lets tensorflow use so many threads an operation, and run so many batches side by side. Products of
    GPUs are those of float32, by which codes are what they are elsewhere.

    To be called before it does anything. Returns `parallel`; by default it is `threads`, for a sampling loop
    keeps one core busy, hardly two, but 1 where there is a GPU.
    """
    import tensorflow as tf

    parallel = parallel or (1 if tf.config.list_physical_devices("GPU") else threads)
    tf.config.experimental.enable_tensor_float_32_execution(False)
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(parallel)
    return parallel


def read_description(folder, version, max_batch_size):
    """The `haim_tf.json` of a version, its `batch_sizes` sorted and none above `max_batch_size`.

    Raises:
        ValueError: not an export of haim_tf, or no compiled batch size is small enough.
    """
    path = Path(folder) / str(version)
    try:
        description = json.loads((path / "assets.extra/haim_tf.json").read_text())
        sizes = sorted(int(size) for size in description["batch_sizes"])
        smallest = sizes[0]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ValueError(f"{path} is not written by haim_tf export: {error!r}") from error
    if smallest > max_batch_size:
        raise ValueError(f"max_batch_size must be at least {smallest}, got {max_batch_size}")
    return {**description, "batch_sizes": [size for size in sizes if size <= max_batch_size]}


class Exported:
    """One version of a model, loaded with tensorflow alone.

    Args:
        folder: where the version folders are.
        version: int, which one.
        max_batch_size: batches hold at most so many examples. They are filled up to one of the batch sizes of
            the export, so that nothing compiles once `warm_up` has run.

    Raises:
        ValueError: not an export of haim_tf, or no compiled batch size is small enough.

    Example:
        >>> model = Exported("models/fashion_mnist28", 1, max_batch_size=32)
        >>> model.warm_up()
        >>> model.run("encode", [{"image": image}])[0]["codes_1"]
    """

    def __init__(self, folder, version, max_batch_size):
        import tensorflow as tf

        self.description = read_description(folder, version, max_batch_size)
        self.version, self.sizes = version, self.description["batch_sizes"]
        loaded = tf.saved_model.load(str(Path(folder) / str(version)))
        self._loaded = loaded  # The functions do not keep their variables alive.
        self._functions = dict(loaded.signatures)
        self.inputs, self.outputs = {}, {}
        for name, function in self._functions.items():
            specs = function.structured_input_signature[1]
            self.inputs[name] = {k: (s.dtype.name, tuple(s.shape[1:])) for k, s in sorted(specs.items())}
            self.outputs[name] = sorted(function.structured_outputs)

    @property
    def signatures(self):
        return sorted(self._functions)

    def warm_up(self):
        """Runs every signature at every batch size, which compiles what there is to compile."""
        import tensorflow as tf

        picture = tf.io.encode_png(tf.zeros((1, 1, 3), "uint8")).numpy()
        for name, inputs in self.inputs.items():
            example = {}
            for key, (dtype, shape) in inputs.items():
                fill = 1 if key in SAMPLING else 0
                example[key] = picture if dtype == "string" else np.full(shape, fill, dtype)
            for size in self.sizes:
                self.run(name, [example] * size)

    def run(self, signature, examples):
        """The outputs of 1 to `sizes[-1]` examples, a dict each, of arrays or bytes by name."""
        import tensorflow as tf

        count = len(examples)
        size = self.sizes[bisect.bisect_left(self.sizes, count)]
        filled = examples + examples[-1:] * (size - count)
        batch = {
            name: tf.constant(np.stack([x[name] for x in filled]))
            if dtype != "string"
            else tf.constant([x[name] for x in filled])
            for name, (dtype, _) in self.inputs[signature].items()
        }
        found = {name: x.numpy() for name, x in self._functions[signature](**batch).items()}
        return [{name: x[i] for name, x in found.items()} for i in range(count)]
