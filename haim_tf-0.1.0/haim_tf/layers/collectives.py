"""What the replicas that share a batch tell each other inside a step.

`mean`, `total` and `gathered` are over the replicas of the `tf.distribute` strategy that runs the step; where
none does (one device, another backend) they give back what they get.
"""

import keras
from keras import ops

from haim_tf.layers.types import Tensor


def place() -> tuple[Tensor | int, int]:
    """This replica's number and how many there are."""
    context = _context()
    return (context.replica_id_in_sync_group, context.num_replicas_in_sync) if context else (0, 1)


def mean(tensors: list[Tensor]) -> list[Tensor]:
    """Each tensor's mean over the replicas, for a list of tensors."""
    context = _context()
    return context.all_reduce("mean", tensors) if context else tensors


def total(tensor: Tensor) -> Tensor:
    """A tensor's sum over the replicas."""
    context = _context()
    return context.all_reduce("sum", tensor) if context else tensor


def gathered(tensor: Tensor) -> Tensor:
    """The replicas' tensors, concatenated along the first axis."""
    context = _context()
    return context.all_gather(ops.convert_to_tensor(tensor), axis=0) if context else tensor


def _context():
    """The replica's context, or `None` where there is one replica only."""
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    return context if context is not None and context.num_replicas_in_sync > 1 else None
