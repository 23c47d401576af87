"""A model as the signatures of its export: functions of tensors, with weights of their own."""

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from haim_tf.checks import SAMPLING
from haim_tf.layers.types import Tensor
from haim_tf.models import HierarchicalModel
from haim_tf.sampling import at_most, draw_noise, sample_grid
from haim_tf.saved_model.pictures import decode_image
from haim_tf.version import __version__

OWN = -1.0  # Instead of a temperature, top_p or guidance: the model's own, `sampling_defaults`.
NO_LABEL = -1  # Instead of the label of codes or images that are decoded: none is known.


class Program:
    """The signatures of a model, as functions of tensors with weights of their own."""

    def __init__(self, model: HierarchicalModel, dtype: str, sizes: list[int], xla: bool):
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
        self._samplers = [
            self._sampler(network, shape)
            for network, shape in zip(model.networks, model.grid_shapes, strict=True)
        ]

    def _reading(self, parts):
        """Inside, the layers of these parts read the exported weights."""
        import tensorflow as tf

        pairs = [pair for part in parts for pair in self.weights[part.name]]
        return keras.StatelessScope([(variable, tf.cast(x, variable.dtype)) for variable, x in pairs])

    def _sampler(self, network, shape):
        """Grids `(B, ...)` of a shape from the inputs of `sample_grid`, for any number of examples."""
        import tensorflow as tf

        # Guided, each counts twice. It may be served by a processor, wherever it is exported.
        computed = (2 if network.takes_guidance else 1) * shape[0], shape[1]
        sizes = sorted({at_most(size, computed) for size in self.sizes})

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
            fitting = tf.searchsorted(sizes, count[None])[0]
            branches = [lambda size=size: in_pieces(inputs, count, size) for size in sizes]
            return tf.switch_case(tf.minimum(fitting, len(branches) - 1), branches)

        return sample

    def signatures(self) -> dict[str, tuple[Callable[..., dict[str, Tensor]], dict[str, Any]]]:
        """Each signature's function and its inputs' specs, by name."""
        import tensorflow as tf

        def spec(name, dtype, *shape):
            return {name: tf.TensorSpec((None, *shape), dtype, name)}

        model, levels = self.model, self.model.num_levels
        label = spec("label", "int32") if model.num_classes else {}
        image = spec("image", "uint8", *model.image_shape)
        sampling = spec("seed", "int32", 2) | spec("temperature", "float32") | spec("top_p", "float32")

        def guidance(networks):
            # What takes guidance always runs twice, also for examples that ask for 1: one program for all.
            return spec("guidance", "float32") if any(n.takes_guidance for n in networks) else {}

        found = {"serving_default": (self.sample, label | sampling | guidance(model.networks))}
        found["sample"] = found["serving_default"]
        if levels:
            found["encode"] = (self.encode, image)
            found["encode_bytes"] = (self.encode_bytes, spec("image_bytes", "string"))
        for level in range(1, levels + 1):
            codes = spec(f"codes_{level}", "int32", *model.grid_shapes[level])
            used = sampling | guidance(model.decoders[:level])
            if model.decodes_by_label(level):
                used = label | used
            found[f"decode_level_{level}"] = (self._at(self.decode, level), codes | used)
            found[f"reconstruct_level_{level}"] = (self._at(self.reconstruct, level), image | used)
        if levels:
            found["decode"] = found[f"decode_level_{levels}"]
            found["reconstruct"] = found["reconstruct_level_1"]
        found["log_prob"] = (self.log_prob, image | label)
        return found

    @staticmethod
    def _at(method, level):
        return lambda **inputs: method(level, **inputs)

    def sample(self, seed: Tensor, label: Tensor | None = None, **sampling: Tensor) -> dict[str, Tensor]:
        import tensorflow as tf

        known = True
        if label is not None:
            known = (label >= 0) & (label < self.model.num_classes)
            label = tf.where(known, label, 0)
        return self._sample_from(self.model.num_levels, seed, None, label, sampling, known)

    def decode(
        self, level: int, seed: Tensor, label: Tensor | None = None, **inputs: Tensor
    ) -> dict[str, Tensor]:
        import tensorflow as tf

        codes = inputs.pop(f"codes_{level}")
        known = (codes >= 0) & (codes < self.model.codebook_sizes[level - 1])
        codes, known = tf.where(known, codes, 0), tf.reduce_all(known, axis=(1, 2))
        return self._decode(level, seed, codes, label, inputs, known)

    def reconstruct(
        self, level: int, image: Tensor, seed: Tensor, label: Tensor | None = None, **sampling: Tensor
    ) -> dict[str, Tensor]:
        codes = self.encode(image)[f"codes_{level}"]
        return self._decode(level, seed, codes, label, sampling, True)

    def _decode(self, level, seed, codes, label, sampling, known):
        """Images for codes, and for labels where decoders are told them: -1 is none, where there is such."""
        import tensorflow as tf

        if label is not None:
            none = self.model.no_label(self.model.decoders[:level])
            known &= (label >= (0 if none is None else NO_LABEL)) & (label < self.model.num_classes)
            label = tf.where(known & (label != NO_LABEL), label, none or 0)
        return self._sample_from(level - 1, seed, codes, label, sampling, known)

    def _sample_from(self, top, seed, codes, label, sampling, known):
        """Samples network `top` and those below, where the other inputs are `known`: images and PNG files."""
        import tensorflow as tf

        model, own, valid = self.model, self.model.sampling_defaults, known & _valid_sampling(sampling)
        for index in range(top, -1, -1):
            network = model.networks[index]
            noise = draw_noise(seed, index, (*model.grid_shapes[index], network.likelihood.noise_size))
            conditioning = model.conditioning(index, codes, label)
            inputs = {"noise": noise, **{name: x for name, x in conditioning.items() if x is not None}}
            for name in ("temperature", "top_p"):
                inputs[name] = _chosen(sampling[name], own[name][index], valid)
            if network.takes_guidance:
                inputs["guidance"] = _chosen(sampling["guidance"], own["guidance"], valid)
            codes = self._samplers[index](inputs)
        images = tf.reshape(tf.cast(codes, "uint8"), (-1, *model.image_shape))
        files = tf.map_fn(tf.io.encode_png, images, fn_output_signature=tf.string)
        return {
            "image": tf.where(valid[:, None, None, None], images, tf.zeros_like(images)),
            "image_bytes": tf.where(valid, files, ""),
        }

    def encode(self, image: Tensor) -> dict[str, Tensor]:
        with self._reading(self.model.autoencoders):
            codes = self.model._encode(image)
        return {f"codes_{level}": grid for level, grid in enumerate(codes, start=1)}

    def encode_bytes(self, image_bytes: Tensor) -> dict[str, Tensor]:
        import tensorflow as tf

        def decode(file):
            return decode_image(file, self.model.image_shape)

        return self.encode(tf.map_fn(decode, image_bytes, fn_output_signature=tf.uint8))

    def log_prob(self, image: Tensor, label: Tensor | None = None) -> dict[str, Tensor]:
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

    def description(self, dtype: str) -> dict[str, Any]:
        """What a server or a page wants to know of the model, JSON-able."""
        model = self.model
        return {
            "image_shape": list(model.image_shape),
            "num_classes": model.num_classes,
            "class_names": model.class_names,
            "code_grids": [list(shape) for shape in model.grid_shapes[1:]],
            "codebook_sizes": list(model.codebook_sizes),
            "sampling": model.sampling_defaults,
            "decode_without_label": self._decode_without_label(),
            "batch_sizes": self.sizes,
            "dtype": dtype,
            "xla": self.xla,
            "haim_tf_version": __version__,
        }

    def _decode_without_label(self):
        """The signatures that take a label, and -1 for none: no decoder that they run needs one."""
        model, found = self.model, []
        for level in range(1, model.num_levels + 1):
            if model.decodes_by_label(level) and model.no_label(model.decoders[:level]) is not None:
                found += [f"decode_level_{level}", f"reconstruct_level_{level}"]
                found += ["reconstruct"] * (level == 1) + ["decode"] * (level == model.num_levels)
        return found


def _valid_sampling(sampling):
    """Which examples' inputs are in the range that `HierarchicalModel.sample` accepts, or ask for its own."""
    import tensorflow as tf

    valid = []
    for name, asked in sampling.items():
        low, high = SAMPLING[name]
        valid.append((asked == OWN) | ((asked >= low) & (asked <= high)))
    return tf.reduce_all(tf.stack(valid), axis=0)


def _chosen(asked, own, valid):
    """What each example asks for; the model's own value where it asks for that, or is out of range anyway."""
    import tensorflow as tf

    return tf.where(valid & (asked != OWN), asked, own)
