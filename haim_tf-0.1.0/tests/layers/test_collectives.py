"""What replicas tell each other, where there is one only (`tests/training/test_strategy.py` has two)."""

import keras

from haim_tf.layers import collectives


def test_alone_they_give_back_what_they_get():
    tensor = keras.ops.ones((2, 3))
    assert collectives.total(tensor) is tensor and collectives.gathered(tensor) is tensor
    assert collectives.mean([tensor])[0] is tensor
    assert collectives.place() == (0, 1)
