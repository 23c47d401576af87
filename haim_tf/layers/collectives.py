"""What the replicas that share a batch tell each other inside a step.

`mean`, `total` and `gathered` are over the replicas of the `tf.distribute` strategy that runs the step; where
none does (one device, another backend) they give back what they get.
"""

from keras import ops

from haim_tf.backend import replica_context
from haim_tf.layers.types import Tensor


def place() -> tuple[Tensor | int, int]:
    """This replica's number and how many there are."""
    context = replica_context()
    return (context.replica_id_in_sync_group, context.num_replicas_in_sync) if context else (0, 1)


def mean(tensors: list[Tensor]) -> list[Tensor]:
    """Each tensor's mean over the replicas, for a list of tensors."""
    context = replica_context()
    return context.all_reduce("mean", tensors) if context else tensors


def total(tensor: Tensor) -> Tensor:
    """A tensor's sum over the replicas."""
    context = replica_context()
    return context.all_reduce("sum", tensor) if context else tensor


def gathered(tensor: Tensor) -> Tensor:
    """The replicas' tensors, concatenated along the first axis."""
    context = replica_context()
    return context.all_gather(ops.convert_to_tensor(tensor), axis=0) if context else tensor
