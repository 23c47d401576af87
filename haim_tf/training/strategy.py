"""Training on several devices and machines: one step of the global batch is one step, however it is shared.

`fit` is the loop around the steps under any strategy: Keras' own fails under `MultiWorkerMirroredStrategy`.
What the replicas tell each other inside a step is in `haim_tf.layers.collectives`.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import keras

from haim_tf.backend import has_accelerator
from haim_tf.data.prefetched import without_tuning
from haim_tf.models import inputs

if TYPE_CHECKING:
    from haim_tf.data import Batches
    from haim_tf.models import HierarchicalModel

# Of `keras.distribution` or `tf.distribute`.
Strategy = Any

# Under which backend each of them can be had.
STRATEGIES = {"none": None, "data_parallel": "jax", "mirrored": "tensorflow", "multi_worker": "tensorflow"}
# Of training, on an accelerator.
MAX_STEPS_A_PROGRAM = 16


def strategy_named(name: str) -> Strategy | None:
    """The `keras.distribution` or `tf.distribute` strategy of a name of `STRATEGIES`; `None` for "none".

    NOTE: "multi_worker" connects to the other workers and waits for them. TensorFlow wants that before
    anything else is asked of it.

    Raises:
        ValueError: an unknown name, another backend than the strategy's, or "multi_worker" without
            `TF_CONFIG`.
    """
    if name not in STRATEGIES:
        raise ValueError(f"strategy must be one of {', '.join(STRATEGIES)}, got {name!r}")
    if name == "none":
        return None
    if keras.backend.backend() != STRATEGIES[name]:
        here = [other for other, backend in STRATEGIES.items() if backend == keras.backend.backend()]
        raise ValueError(
            f"strategy {name!r} must run under Keras' backend {STRATEGIES[name]!r}, "
            f"got {keras.backend.backend()!r}, which has {', '.join(['none', *here])}"
        )
    if name == "data_parallel":
        return keras.distribution.DataParallel(devices=keras.distribution.list_devices())
    import tensorflow as tf

    if name == "mirrored":
        return tf.distribute.MirroredStrategy()
    config = os.environ.get("TF_CONFIG", "")
    try:
        cluster, task = json.loads(config)["cluster"]["worker"], json.loads(config)["task"]
        known = task["type"] == "worker" and 0 <= task["index"] < len(cluster)
    except (ValueError, TypeError, KeyError):
        known = False
    if not known:
        raise ValueError(
            "strategy 'multi_worker' needs the environment variable TF_CONFIG, such as "
            '{"cluster": {"worker": ["host1:port", "host2:port"]}, "task": {"type": "worker", "index": 0}} '
            f"with this worker's own index; got {config!r}"
        )
    return tf.distribute.MultiWorkerMirroredStrategy()


def scope(strategy: Strategy | None) -> contextlib.AbstractContextManager:
    """Where a model, and its optimizer, of a strategy are made."""
    return strategy.scope() if strategy else contextlib.nullcontext()


def is_chief(strategy: Strategy | None) -> bool:
    """Whether this process is the one that writes files."""
    return _is_one_process(strategy) or strategy.extended.should_checkpoint


def _is_one_process(strategy):
    return strategy is None or isinstance(strategy, keras.distribution.DataParallel)


def _count_replicas(strategy):
    if strategy is None:
        return 1
    return strategy.device_mesh.devices.size if _is_one_process(strategy) else strategy.num_replicas_in_sync


def check_batch_sizes(strategy: Strategy | None, sizes: Iterable[int]) -> None:
    """A ValueError unless the replicas of a strategy can share batches of these sizes."""
    count = _count_replicas(strategy)
    for size in sizes:
        if size % count:
            raise ValueError(f"batch_size must be a multiple of {count}, the number of replicas, got {size}")


def steps_a_program(interval: int) -> int:
    """How many of an interval's steps are one program: several, a divisor of their number, where JAX has an
    accelerator to keep busy."""
    if keras.backend.backend() != "jax" or not has_accelerator():
        return 1
    return max(count for count in range(1, MAX_STEPS_A_PROGRAM + 1) if interval % count == 0)


def check_stops(strategy: Strategy | None, stages: Iterable[dict[str, Any]]) -> None:
    """A ValueError where a stage may stop early and other processes than the chief would not know."""
    if _is_one_process(strategy) or not any("patience" in stage for stage in stages):
        return
    import tensorflow as tf

    if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        raise ValueError(
            "a stage with patience must be trained by one process, got the strategy 'multi_worker'"
        )


def wait(strategy: Strategy | None, position: Iterable[int] = ()) -> None:
    """Waits for all workers, which must be at the same position, a list of ints.

    Raises:
        ValueError: they are not.
    """
    if _is_one_process(strategy) or strategy.num_replicas_in_sync == 1:
        return
    import tensorflow as tf

    mine = tf.constant([[*position, 0]])
    gathered = tf.function(lambda: tf.distribute.get_replica_context().all_gather(mine, axis=0))
    found = strategy.experimental_local_results(strategy.run(gathered))[0].numpy()
    if (found != found[0]).any():
        raise ValueError(
            f"the workers' checkpoints differ (stage and step: {found[:, :-1].tolist()}): the output must be "
            "one folder that all machines share"
        )


def fit(
    model: HierarchicalModel,
    strategy: Strategy,
    batches: Batches,
    steps_per_epoch: int,
    initial_epoch: int,
    epochs: int,
    callbacks: list[keras.callbacks.Callback],
) -> None:
    """`model.fit`, for a model that was made and compiled in a strategy's scope.

    Args:
        model: a `HierarchicalModel`.
        strategy: its strategy, or `None`.
        batches: a `haim_tf.data.Batches` of global batches, of which every replica reads its own part.
        steps_per_epoch, initial_epoch, epochs, callbacks: as for `model.fit`.

    Raises:
        ValueError: a batch size that the number of replicas does not divide.
    """
    if _is_one_process(strategy):
        with scope(strategy):
            model.fit(
                batches,
                shuffle=False,
                verbose=0,
                steps_per_epoch=steps_per_epoch,
                initial_epoch=initial_epoch,
                epochs=epochs,
                callbacks=callbacks,
            )
        return
    import tensorflow as tf

    model.check_batches(batches)
    steps = (epochs - initial_epoch) * steps_per_epoch
    iterator = iter(
        strategy.distribute_datasets_from_function(lambda context: _own_parts(batches, context, steps))
    )

    @tf.function
    def step(batch):
        return strategy.run(model.train_step, args=(batch,))

    callbacks = keras.callbacks.CallbackList(callbacks, model=model)
    model.stop_training = False
    callbacks.on_train_begin()
    for epoch in range(initial_epoch, epochs):
        model.reset_metrics()
        callbacks.on_epoch_begin(epoch)
        for number in range(steps_per_epoch):
            with inputs.value_errors():
                logs = step(next(iterator))
            callbacks.on_train_batch_end(number, _first(strategy, logs))
        logs = {name: strategy.reduce("MEAN", value, axis=None) for name, value in logs.items()}
        callbacks.on_epoch_end(epoch, {name: float(value) for name, value in logs.items()})
        if model.stop_training:
            break
    model.optimizer.finalize_variable_values(model.trainable_variables)
    callbacks.on_train_end()


def _own_parts(batches, context, steps):
    """A worker's data set: for each step, the parts of the batch that belong to its replicas."""
    import tensorflow as tf

    replicas = context.num_replicas_in_sync
    own = replicas // context.num_input_pipelines
    parts = [batches.part(context.input_pipeline_id * own + i, replicas) for i in range(own)]
    specification = keras.tree.map_structure(tf.type_spec_from_value, parts[0][0])
    read = (part[step] for step in itertools.islice(itertools.count(), steps) for part in parts)
    dataset = tf.data.Dataset.from_generator(lambda: read, output_signature=specification)
    return without_tuning(dataset.prefetch(2 * own))


def _first(strategy, logs):
    return {name: strategy.experimental_local_results(value)[0] for name, value in logs.items()}
