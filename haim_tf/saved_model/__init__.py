"""Export: a model as a SavedModel that any TensorFlow runs and serves, with no Python of this project."""

import contextlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from haim_tf import files
from haim_tf.backend import require_tensorflow
from haim_tf.checks import require_int
from haim_tf.models import HierarchicalModel
from haim_tf.models.inputs import check_codes_have_auxiliary
from haim_tf.saved_model.program import Program
from haim_tf.saved_model.warmup import warmup_request

__all__ = ["export"]

DTYPES = ("float32", "bfloat16", "float16")
BATCH_SIZES = (1, 8, 32)
DESCRIPTION = "haim_tf.json"


def export(
    model: HierarchicalModel,
    folder: str | os.PathLike,
    dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    batch_sizes: Iterable[int] = BATCH_SIZES,
    warmup: bool = True,
    xla: bool = True,
    name: str | None = None,
) -> Path:
    """Writes a model as `folder/<version>/`, the next integer: a SavedModel that stands alone.

    It needs tensorflow to run, nothing else, and serves as it is under TensorFlow Serving. Every input and
    output is a named tensor with one row an example, and a row of the output depends on its own row of the
    input alone. Signatures (without `label` where the model is unconditional; only `sample` and `log_prob`
    where it has no levels):

    - `sample`, also `serving_default`: `label`, `seed`, `temperature`, `top_p` -> `image`, `image_bytes`;
      `guidance` is a further input where networks were trained with labels left out (`label_dropout`)
    - `encode`: `image` -> `codes_1`, ..., `codes_L`; `encode_bytes`: `image_bytes` -> the same
    - `decode_level_l`: `codes_l`, `seed`, `temperature`, `top_p` -> `image`, `image_bytes`; `decode` is the
      top level's
    - `reconstruct_level_l`: `image`, `seed`, `temperature`, `top_p` -> `image`, `image_bytes`;
      `reconstruct` is level 1's. Where main decoders below are told the label, `label` and `guidance` are
      further inputs of both; a label of -1 is none, where these decoders were trained without one too
    - `log_prob`: `image`, `label` -> `log_prob`, `bits_per_dim`, `bits_per_dim_level_1`, ..., `_prior`

    Tensors: `image` uint8 `(B, H, W, C)`; `image_bytes` string `(B,)`, out: PNG, in: PNG, JPEG or GIF, which
    is converted to the model's channels and, where it has another size, cropped around its centre and
    resized; `codes_l` int32 `(B, h_l, w_l)`; `label` int32 `(B,)`; `seed` int32 `(B, 2)`, the pairs that
    `HierarchicalModel.sample` takes; `temperature` (0..100) and `top_p` (above 0, at most 1) float32 `(B,)`,
    for all levels alike, `guidance` (0..100) likewise, each -1 for the model's own `sampling_defaults`, level
    by level; `log_prob` nats, a lower bound; `bits_per_dim` an upper bound, the parts summing up.

    An example with an input out of range does not disturb the others of its batch: it gets a black `image`
    with empty `image_bytes`, or NaN. Only bytes that are no picture fail their whole batch.

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
        >>> loaded.signatures["sample"](label=[3], seed=[[0, 0]], temperature=[-1.0], top_p=[-1.0])["image"]
    """
    require_tensorflow("export")
    import tensorflow as tf

    check_codes_have_auxiliary(model, "export")
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    if not isinstance(batch_sizes, Iterable) or not (batch_sizes := list(batch_sizes)):
        raise ValueError(f"batch_sizes must be a list of positive ints, got {batch_sizes!r}")
    sizes = sorted({require_int("batch_sizes", size, low=1) for size in batch_sizes})
    named = files.absolute(folder)
    folder = files.linked(named)
    name = named.name if name is None else name
    _check_name(name)
    _check_folder(folder)
    program = Program(model, dtype, sizes, xla)
    made = [path for path in (folder, *folder.parents) if not path.exists()]
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
            with _quiet():
                tf.saved_model.save(module, str(unfinished), signatures=concrete)
            extra = unfinished / "assets.extra"
            extra.mkdir()
            description = {**program.description(dtype), "name": name}
            (extra / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n")
            if warmup:
                with tf.io.TFRecordWriter(str(extra / "tf_serving_warmup_requests")) as writer:
                    for key, (_, inputs) in signatures.items():
                        for size in sizes:
                            writer.write(warmup_request(description["name"], key, inputs, size))
            unfinished.chmod(0o755)  # Temporary folders are private.
            return _number(unfinished, folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
            for path in made:  # Where nothing came of it.
                with contextlib.suppress(OSError):
                    path.rmdir()
    except OSError as error:
        raise ValueError(f"cannot write {folder}: {error.strerror or error}") from error
    except tf.errors.OpError as error:  # TensorFlow's own word for a disk that is full, among others.
        reason = error.message.rpartition("; ")[2].partition(" [Op:")[0]
        raise ValueError(f"cannot write {folder}: {' '.join(reason.split())[:300]}") from error


@contextlib.contextmanager
def _quiet():
    """In a notebook TensorFlow would tell of a folder that has another name a moment later."""
    logger = logging.getLogger("tensorflow")
    level = logger.level
    logger.setLevel(max(level, logging.WARNING))
    try:
        yield
    finally:
        logger.setLevel(level)


def _check_name(name):
    """Requests and the description hold it as UTF-8."""
    try:
        name.encode()
    except (AttributeError, UnicodeEncodeError):
        raise ValueError(f"name must be text that is UTF-8, got {ascii(name)}") from None


def _check_folder(folder):
    """A ValueError before the long work, where nothing can be written to a folder of versions."""
    above = next(path for path in (folder, *folder.parents) if path.exists())
    if not above.is_dir():
        raise ValueError(f"folder must be a folder, or a new one, got {folder}, where {above} is a file")
    if not os.access(above, os.W_OK):
        raise ValueError(f"cannot write {folder}: no permission to write in {above}")


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
