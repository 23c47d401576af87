"""One step of training under each backend: one forward pass, gradients clipped part by part, an update."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from haim_tf.layers import collectives
from haim_tf.layers.types import Tensor

if TYPE_CHECKING:
    from haim_tf.models import HierarchicalModel

# Of the trainable and other variables, of the optimizer's and of the metrics', lists of tensors.
State = tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]


def tensorflow_step(model: HierarchicalModel, batch: dict[str, Any]) -> dict[str, Tensor]:
    """Trains on a batch, a dict as `losses_and_statistics` takes it; returns the metrics' values by name."""
    import tensorflow as tf

    variables = model.trainable_variables
    # Not 1 only under mixed_float16, whose gradients are scaled up so as not to vanish.
    scale = model.optimizer.scale_loss(1.0)
    with tf.GradientTape() as tape:
        losses, statistics = model.losses_and_statistics(**batch, training=True)
        scaled = sum(losses.values()) * scale
    gradients = tape.gradient(scaled, [v.value for v in variables])
    # An embedding's sparse gradient holds one row per occurrence, whose norm is not the gradient's.
    known = {
        v.path: tf.convert_to_tensor(g) for v, g in zip(variables, gradients, strict=True) if g is not None
    }
    # Of the global batch before they are clipped: each image counts alike, and the last batch may leave a
    # replica with fewer images, or none.
    replicas = collectives.place()[1]
    if replicas > 1:
        count = ops.cast(ops.shape(batch["images"])[0], "float32")
        part = count * replicas / collectives.total(count)
        known = {path: ops.where(count > 0, g * ops.cast(part, g.dtype), 0) for path, g in known.items()}
    known = dict(zip(known, collectives.mean(list(known.values())), strict=True))
    clipped, norms = _clip_by_part(model, losses, known, scale)
    # Keras' optimizer sums over the replicas, whose gradients are alike by now.
    share = 1 / replicas
    gradients = [clipped[v.path] * share if v.path in clipped else None for v in variables]
    model.optimizer.apply(gradients, variables)
    return model._trackers.update(_values(losses, statistics, norms), batch["images"])


def jax_step(
    model: HierarchicalModel, state: State, batch: dict[str, Any]
) -> tuple[dict[str, Tensor], State]:
    """The same as a pure function, as Keras' JAX trainer calls it; returns the values and the new state."""
    import jax

    trainable, others, optimizer, metrics = state
    variables = model.trainable_variables
    with _holding(model.optimizer.variables, optimizer):
        scale = model.optimizer.scale_loss(1.0)

    def scaled_loss(trainable):
        held = [*variables, *model.non_trainable_variables]
        with _holding(held, [*trainable, *others]) as scope:
            losses, statistics = model.losses_and_statistics(**batch, training=True)
        changed = [scope.get_current_value(v) for v in model.non_trainable_variables]
        return sum(losses.values()) * scale, (losses, statistics, changed)

    gradients, (losses, statistics, others) = jax.grad(scaled_loss, has_aux=True)(trainable)
    paths = [v.path for v in variables]
    clipped, norms = _clip_by_part(model, losses, dict(zip(paths, gradients, strict=True)), scale)
    trainable, optimizer = model.optimizer.stateless_apply(optimizer, [clipped[p] for p in paths], trainable)
    with _holding(model.metrics_variables, metrics) as scope:
        logs = model._trackers.update(_values(losses, statistics, norms), batch["images"])
    metrics = [scope.get_current_value(v) for v in model.metrics_variables]
    return logs, (list(trainable), others, list(optimizer), metrics)


@contextlib.contextmanager
def variables_kept(model: HierarchicalModel) -> Iterator[None]:
    """Keras' JAX trainer takes a model's variables away for its first step, and with them the weights where
    that fails: here they come back, and the failure is not that of Keras' own cleaning up. Averages that
    became the weights are copied, for the next training gives the memory of either away."""
    if keras.backend.backend() != "jax":
        yield
        return
    variables = [*model.variables, *model.metrics_variables]
    if optimizer := getattr(model, "optimizer", None):
        if not optimizer.built:
            optimizer.build(model.trainable_variables)
        variables += optimizer.variables
    values = [variable._value for variable in variables]
    try:
        yield
    except TypeError as error:
        # Keras, cleaning up, calls what it took away.
        taken = "'NoneType' object is not callable" in str(error)
        if taken and (cause := error.__context__) is not None:
            raise cause from None
        raise
    finally:
        if getattr(model, "_jax_state", None) is not None:  # Of the steps that went well.
            model.jax_state_sync()
            model._jax_state = None
        for variable, value in zip(variables, values, strict=True):
            if variable._value is None:
                variable._value = value
        weights = {id(variable._value) for variable in model.variables}
        for variable in getattr(getattr(model, "optimizer", None), "variables", ()):
            if id(variable._value) in weights:
                variable._value = variable._value.copy()


def several_jax_steps(model: HierarchicalModel) -> Callable[[State, Iterator], tuple[dict, State]]:
    """Keras' `train_function` of a model: `steps_per_execution` steps in one program, batches put together on
    the device, so that nothing waits for Python between them."""
    import jax

    groups = (
        model.trainable_variables,
        model.non_trainable_variables,
        model.optimizer.variables,
        model.metrics_variables,
    )
    shardings = None
    if keras.distribution.distribution() is not None:
        shardings = (None, tuple([v.value.sharding for v in group] for group in groups))

    def step(state, batch):
        logs, state = model.train_step(state, batch)
        return state, logs

    @functools.partial(jax.jit, donate_argnums=0, out_shardings=shardings)
    def program(state, batches):
        stacked = jax.tree.map(lambda *parts: ops.stack(parts), *batches)
        state, logs = jax.lax.scan(step, state, stacked)
        return jax.tree.map(lambda values: values[-1], logs), state

    def run(state, iterator):
        batches = list(itertools.islice(iterator, model.steps_per_execution))
        if not batches:
            raise StopIteration
        # The last of all may hold fewer images, and those of a generator of one's own any number.
        for _, alike in itertools.groupby(batches, lambda batch: str(jax.tree.map(lambda x: x.shape, batch))):
            logs, state = program(state, list(alike))
        return logs, state

    return run


def _holding(variables, values):
    """A scope in which Keras' variables have these values, and keep what is assigned to them to the scope."""
    return keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True)))


def _clip_by_part(
    model: HierarchicalModel, names: Iterable[str], gradients: dict[str, Tensor], scale: Tensor | float
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Gradients by path, those of each named part scaled down to the norm allowed; the norms by part.

    Gradients are those of a loss times `scale`; norms are without it.
    """
    gradients, norms = dict(gradients), {}
    for name in names:
        paths = [v.path for v in model.parts[name].trainable_variables if v.path in gradients]
        norm = ops.sqrt(sum(ops.sum(ops.square(ops.cast(gradients[path], "float32"))) for path in paths))
        if model._clip_norm:
            limit = model._clip_norm * scale
            factor = limit / ops.maximum(norm, limit)
            gradients.update({path: gradients[path] * factor for path in paths})
        norms[name] = norm / scale
    if isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer):
        # It leaves a step out whose scaled gradients overflow, and then scales less: no sign of divergence.
        norms = {name: ops.where(ops.isfinite(norm), norm, 0.0) for name, norm in norms.items()}
    return gradients, norms


def _values(losses, statistics, norms):
    """What a step is watched by, by the metrics' names."""
    named = {f"loss_{name}": loss for name, loss in losses.items()}
    norms = {f"gradient_norm_{name}": norm for name, norm in norms.items()}
    return {"loss": sum(losses.values()), **named, **statistics, **norms}
