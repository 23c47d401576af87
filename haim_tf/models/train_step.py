"""Training of a hierarchy part by part: losses behind stop-gradients, clipping and metrics of each part."""

import contextlib
import copy
import types
import warnings
from collections.abc import Sequence
from typing import Any, Literal

import keras

from haim_tf.backend import has_accelerator, is_tensorflow
from haim_tf.checks import require_number
from haim_tf.class_names import relabelled
from haim_tf.data import Batches
from haim_tf.data.prefetched import prefetched
from haim_tf.layers.types import Tensor
from haim_tf.models import inputs, steps
from haim_tf.models.losses import Losses
from haim_tf.models.monitoring import Trackers, readied
from haim_tf.models.parts import Parts
from haim_tf.models.steps import variables_kept
from haim_tf.models.warm_up import WarmUp
from haim_tf.processor import keep_freed_memory


class PartwiseTraining(Losses, Parts):
    """Mixin that gives `HierarchicalModel` its `compile`, `fit` and custom `train_step`.

    All parts are trained at once by default, each by its own loss: codes go through `stop_gradient` to the
    main decoder, to the next level and to the prior, so that no part's loss moves another part. Gradients are
    clipped part by part (`haim_tf.models.steps`) under TensorFlow and JAX; elsewhere Keras' own
    step takes the same sum of losses.

    `fitted_on` is the name of the data that `fit` has trained the model on, where they have one.

    NOTE: only where a level is trained end to end, for comparison, does the gradient of its main decoder pass
    to its autoencoder, whose own loss is the commitment alone.
    """

    fitted_on = None
    _fitted, _steps_before = False, None

    @property
    def fitted(self) -> bool:
        """Whether the model was trained by `fit`, be it one that is still under way, or has got weights from
        a file."""
        return self._fitted or self._fit_has_stepped()

    @fitted.setter
    def fitted(self, value: bool) -> None:
        self._fitted = bool(value)

    def _prepare_training(self):
        self._clip_norm = None
        names = ["loss", "bits_per_dim"]
        for i in range(1, self.num_levels + 1):
            names += [f"perplexity_{i}", f"active_fraction_{i}"]
        for part in self.parts:
            names += [f"loss_{part}", f"gradient_norm_{part}"]
        self._trackers = Trackers(names)

    def compile(
        self,
        optimizer: keras.Optimizer | None = None,
        clip_norm: float | None = 1.0,
        jit_compile: bool | Literal["auto"] | None = None,
        **kwargs: Any,
    ) -> None:
        """Readies the model for `fit`; without arguments, Adam with clipped gradients at 5e-4, which it rises
        to over 100 steps so that a trained model is not thrown out of its place.

        Args:
            optimizer: a Keras optimizer.
            clip_norm: largest gradient norm of each part; `None` does not clip.
            jit_compile: XLA for the training step; `None`: Keras' choice with a GPU or TPU, and none on a
                CPU, where XLA makes convolutions slower.
            **kwargs: to `keras.Model.compile`; with `steps_per_execution` so many steps are one program,
                which keeps an accelerator busy.

        Raises:
            ValueError: a `clip_norm` that is no number above 0.
        """
        if optimizer is None:
            optimizer = keras.optimizers.Adam(WarmUp(5e-4, 100))
        if clip_norm is not None:
            clip_norm = require_number("clip_norm", clip_norm, above=0)
        if jit_compile is None:
            jit_compile = False if is_tensorflow() and not has_accelerator() else "auto"
        self._clip_norm = clip_norm
        self._compile_arguments = {"clip_norm": clip_norm, "jit_compile": jit_compile, **kwargs}
        super().compile(optimizer=optimizer, jit_compile=jit_compile, **kwargs)
        if keras.backend.backend() not in ("tensorflow", "jax") and not self.optimizer.global_clipnorm:
            self.optimizer.global_clipnorm = clip_norm

    def get_compile_config(self) -> dict | None:
        """What a saved model keeps of `compile`, the clipping with it."""
        config = super().get_compile_config()
        return {**config, "clip_norm": self._clip_norm} if config else config

    def compile_from_config(self, config: dict) -> None:
        config = keras.saving.deserialize_keras_object(config)
        self.freeze(*config.pop("frozen", ()))  # Earlier files have it here.
        self.compile(**config)
        self.optimizer.build(self.trainable_variables)

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: int | str = "auto",
        callbacks: keras.callbacks.Callback | Sequence[keras.callbacks.Callback] | None = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        **kwargs: Any,
    ) -> keras.callbacks.History:
        """`keras.Model.fit` on images, or images and labels.

        Labels are integers, `(B,)` or `(B, 1)`, or, but for a `tf.data.Dataset`, names of classes. Labels of
        a `haim_tf.data.Batches` with class names go by these names. Progress, on standard error, shows loss
        and bits/dim; the `History` that is returned has every part's loss and gradient norm.

        Args:
            x: images as an array (uint8, or float in 0..255; `(B, H, W, C)`), a pair (images, labels), or
                a `tf.data.Dataset`, `PyDataset` or generator of such batches.
            y: labels, where x is an array.
            callbacks: Keras callbacks; those that monitor a loss or bits/dim need no `mode`.
            validation_data: as `x`, or a pair (x, y).
            batch_size, epochs, verbose, validation_split, **kwargs: to `keras.Model.fit`.

        Raises:
            ValueError: images or labels of a wrong shape, dtype or range; labels missing or not wanted.
        """
        _check_weights(kwargs)
        if not self.trainable_variables:
            raise ValueError(f"nothing to train: all parts are frozen ({', '.join(self.parts)})")
        data = x.data if isinstance(x, Batches) else None
        shuffled = kwargs.get("shuffle", True) and getattr(x, "num_batches", None) is not None
        x, y = self._checked(x, y, ahead=not shuffled)
        names = data.class_names if data is not None else None
        if self.class_names is None and names and len(names) == self.num_classes:
            self.class_names = list(names)
        if validation_data is not None:
            pair = isinstance(validation_data, (tuple, list)) and len(validation_data) <= 3
            images, labels = inputs.unpack(validation_data) if pair else (validation_data, None)
            _check_end(images, kwargs.get("validation_steps"), "validation_data", "validation_steps")
            images, labels = self._checked(images, labels, ahead=True)
            validation_data = images if labels is None and not hasattr(images, "shape") else (images, labels)
        if self.origin or self.fitted:
            trained = [name for name, part in self.parts.items() if part.trainable_variables]
            for sentence in self.left_behind(trained):
                warnings.warn(sentence, stacklevel=2)
        options = {"callbacks": readied(callbacks, verbose), "verbose": verbose, **kwargs}
        options |= {"validation_split": validation_split, "validation_data": validation_data}
        keep_freed_memory()
        before, self._steps_before = self.fitted_on, self._steps_taken()
        self.fitted_on = before if data is None else data.name  # Also in what is saved meanwhile.
        try:
            with inputs.value_errors(), variables_kept(self):
                return super().fit(x, y, batch_size, epochs, **options)
        finally:  # Interrupted or not: what was trained is trained.
            if self._fit_has_stepped():
                self._fitted = True  # TensorFlow sets no attribute to what it is, as `fitted` is by now.
            else:
                self.fitted_on = before
            self._steps_before = None

    def _fit_has_stepped(self):
        """Whether a `fit` is under way that has taken a step."""
        if self._steps_before is None:
            return False
        with contextlib.suppress(RuntimeError, TypeError):  # JAX, interrupted, takes the state along.
            return self._steps_taken() > self._steps_before
        return False

    def _steps_taken(self):
        optimizer = getattr(self, "optimizer", None)
        return 0 if optimizer is None else int(keras.ops.convert_to_numpy(optimizer.iterations))

    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        verbose: int | str = "auto",
        sample_weight: None = None,
        steps: int | None = None,
        callbacks: keras.callbacks.Callback | Sequence[keras.callbacks.Callback] | None = None,
        return_dict: bool = False,
        **kwargs: Any,
    ) -> Any:
        """`keras.Model.evaluate`: every part's loss and the bits/dim, on what `fit` takes."""
        _check_weights({"sample_weight": sample_weight})
        _check_end(x, steps, "what is evaluated", "steps")
        x, y = self._checked(x, y, ahead=True)
        options = {"verbose": verbose, "steps": steps, "return_dict": return_dict, **kwargs}
        options["callbacks"] = readied(callbacks, verbose)
        with inputs.value_errors(), variables_kept(self):
            return super().evaluate(x, y, batch_size, **options)

    def predict(self, *arguments: Any, **kwargs: Any) -> Any:
        """Not for these models, which have several things to tell: an error that names them.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            "predict says nothing of a HierarchicalModel: it has encode, reconstruct, sample, log_prob, "
            "bits_per_dim and evaluate"
        )

    predict_on_batch = predict

    def train_on_batch(
        self,
        x: Any,
        y: Any = None,
        sample_weight: None = None,
        class_weight: None = None,
        return_dict: bool = False,
    ) -> Any:
        """`keras.Model.train_on_batch`, on images or images and labels."""
        _check_weights({"sample_weight": sample_weight, "class_weight": class_weight})
        arrays = self._checked_arrays(x, y)
        with variables_kept(self):
            found = super().train_on_batch(*arrays, return_dict=return_dict)
        self.fitted = True
        return found

    def test_on_batch(
        self,
        x: Any,
        y: Any = None,
        sample_weight: None = None,
        return_dict: bool = False,
    ) -> Any:
        """`keras.Model.test_on_batch`, on images or images and labels."""
        _check_weights({"sample_weight": sample_weight})
        arrays = self._checked_arrays(x, y)
        with variables_kept(self):
            return super().test_on_batch(*arrays, return_dict=return_dict)

    def check_batches(self, batches: keras.utils.PyDataset) -> None:
        """A ValueError where the batches of a `PyDataset` do not fit the model.

        Raises:
            ValueError: images or labels of a wrong shape, dtype or range; labels missing or not wanted.

        Example:
            >>> data = haim_tf.data.ImageData(np.zeros((4, 16, 16, 3), "uint8"), labels=[0, 1, 2, 3])
            >>> haim_tf.load("debug").check_batches(haim_tf.data.Batches(data, batch_size=2))
        """
        self._checked(batches, None)

    def _checked(self, x, y, ahead=False):
        """Images and labels as Keras takes them; a ValueError where they do not fit the model. `ahead`: a
        `Batches`, whose order is to stay, is read ahead."""
        check = self._batch_check()
        ahead = ahead and isinstance(x, Batches)
        if hasattr(x, "element_spec") and hasattr(x, "map"):  # An iterator over a data set has no `map`.
            specification = inputs.unpack(x.element_spec)
            inputs.check_specification(*specification, self.image_shape, self.num_classes)
            x = inputs.checked_batches(x, check)
        elif isinstance(x, keras.utils.PyDataset):
            if isinstance(x, Batches):
                if x.data.class_names and self.class_names:
                    x = copy.copy(x)
                    x.data = relabelled(x.data, self)
                inputs.check_batches(x, self)
            if not isinstance(inputs.unpack(x[0])[0], dict):  # Cut, or with codes.
                check.batch(x[0])
                x = inputs.CheckedDataset(x, check)
            x = prefetched(x) if ahead else x
        elif isinstance(x, types.GeneratorType):  # Whose batches Keras wants as tuples.
            checked = (check.batch(batch) for batch in x)
            x = (batch if isinstance(batch, tuple) else (batch,) for batch in checked)
        else:
            x, y = self._checked_arrays(x, y)
        return x, y

    def _checked_arrays(self, x, y):
        """The same, of arrays alone, at least one image."""
        if isinstance(x, (tuple, list)) and len(x) == 2 and y is None:
            x, y = x
        if not (isinstance(x, (list, tuple)) or hasattr(x, "__array__")):
            raise ValueError(
                "images must be an array, or, in fit and evaluate, a tf.data.Dataset, PyDataset (such as "
                f"haim_tf.data.Batches) or generator of batches, got {type(x).__name__}"
            )
        x, y = self._batch_check()(x, y)
        if not len(x):
            raise ValueError(f"images must be at least one, got the shape {x.shape}")
        return x, y

    def _batch_check(self):
        return inputs.BatchCheck(self.image_shape, self.num_classes, self.class_names)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: dict[str, dict[str, Tensor]] | None = None,
        sample_weight: Tensor | None = None,
        training: bool = True,
    ) -> Tensor:
        return sum(y_pred["losses"].values())

    def compute_metrics(
        self,
        x: dict[str, Any],
        y: Any,
        y_pred: dict[str, dict[str, Tensor]],
        sample_weight: Tensor | None = None,
    ) -> dict[str, Tensor]:
        values = {f"loss_{name}": value for name, value in y_pred["losses"].items()}
        total = sum(y_pred["losses"].values())
        return self._trackers.update({"loss": total, **values, **y_pred["statistics"]}, x["images"])

    @property
    def metrics(self) -> list[keras.Metric]:
        return list(self._trackers.means.values())

    def train_step(self, *state_and_data: Any) -> Any:
        *state, data = state_and_data
        packed = _pack(*inputs.unpack(data))
        if is_tensorflow():
            return steps.tensorflow_step(self, packed)
        if keras.backend.backend() == "jax":
            return steps.jax_step(self, *state, packed)
        return super().train_step(*state, (packed,))

    def make_train_function(self, force: bool = False) -> Any:
        if is_tensorflow() and not self.optimizer.built:
            # The first step would be traced twice, once for the variables that it makes.
            with self.distribute_strategy.scope():
                self.optimizer.build(self.trainable_variables)
        compiles = keras.backend.backend() == "jax" and self.jit_compile and not self.run_eagerly
        if not compiles or self.steps_per_execution == 1:
            return super().make_train_function(force)
        if self.train_function is None or force:
            self.train_function = steps.several_jax_steps(self)
        return self.train_function

    def test_step(self, *state_and_data: Any) -> Any:
        *state, data = state_and_data
        packed = _pack(*inputs.unpack(data))
        if not is_tensorflow():
            return super().test_step(*state, (packed,))
        return self.compute_metrics(packed, None, self.call(packed, training=False))


def _check_weights(arguments):
    for name in ("sample_weight", "class_weight"):
        if arguments.get(name) is not None:
            raise ValueError(f"{name} is not supported: every image of a batch counts alike")


def _check_end(batches, steps, what, argument):
    """A ValueError for a `PyDataset` without an end where none of so many steps is given either."""
    endless = isinstance(batches, keras.utils.PyDataset) and batches.num_batches is None
    if endless and steps is None:
        raise ValueError(f"{what} must have an end: give Batches `steps`, or fit or evaluate `{argument}`")


def _pack(images, labels):
    """A batch as one dict; images that come with their codes are one already."""
    batch = dict(images) if isinstance(images, dict) else {"images": images}
    return batch if labels is None else {**batch, "labels": labels}
