"""Networks under every label: as label by label, in a program and memory that labels do not enlarge."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from haim_tf.models import HierarchicalModel, inference
from haim_tf.networks import PixelCNN

NETWORK = {"width": 4, "blocks": 1}
LEVEL = {"downsampling": 2, "codebook_size": 8, "code_dim": 2, "width": 4, "blocks": 1, "decoder": NETWORK}
CLASSES = 300


def make(levels=1, num_classes=CLASSES, told=False, **arguments):
    """A model whose prior heeds the label, and whose decoders do where they are told it."""
    level = {**LEVEL, "decoder": {**NETWORK, "labels": told}}
    model = HierarchicalModel((4, 4, 1), [level] * levels, NETWORK, num_classes, mixtures=2, **arguments)
    for network in model.networks:
        heeding = [*network.label_layers(), network.last] if network.num_classes else []
        for layer in heeding if network is not model.prior else [network]:
            for weight in layer.weights:
                weight.assign(keras.random.normal(weight.shape, stddev=1.0))
    return model


@pytest.fixture
def calls(monkeypatch):
    """The shapes of the grids that `PixelCNN.call` was given, from now on."""
    shapes, call = [], PixelCNN.call

    def counted(self, x, **arguments):
        shapes.append(x.shape)
        return call(self, x, **arguments)

    monkeypatch.setattr(PixelCNN, "call", counted)
    return shapes


@pytest.mark.parametrize(
    "arguments",
    [{}, {"levels": 2, "told": True}, {"levels": 0}, {"levels": 0, "pixel_likelihood": "categorical"}],
)
@pytest.mark.parametrize("count", [1, 3])
def test_equals_label_by_label(arguments, count):
    model = make(**arguments)
    images = np.random.default_rng(0).integers(256, size=(count, 4, 4, 1)).astype("uint8")
    found = model._run("_log_probs_by_label", images)
    assert found.shape == (count, model.num_levels + 1, CLASSES)
    each = [model._run("_log_probs", images, np.full(count, label, "int32")) for label in range(CLASSES)]
    np.testing.assert_allclose(found, np.stack(each, axis=2), rtol=1e-5)
    heeds = [bool(network.num_classes) for network in model.networks]
    assert ((found.std(axis=2) > 0.01).all(axis=0) == heeds).all() and heeds[-1]


@pytest.mark.parametrize("count", [5, None])
def test_the_prior_is_traced_once_and_sees_few_pairs_at_a_time(count, calls):
    model = make()
    program = tf.function(model._log_probs_of_labels, autograph=False)
    graph = program.get_concrete_function(tf.TensorSpec((count, 2, 2), "int32"), None, 1).graph
    assert len(calls) == 1
    assert calls[0][0] == (inference.PAIRS if count else None)
    (loop,) = (op for op in graph.get_operations() if op.type in ("While", "StatelessWhile"))
    assert loop.get_attr("parallel_iterations") == 1


def test_no_more_pairs_at_a_time_than_there_are(calls):
    make(num_classes=3)._log_probs_of_labels(np.zeros((2, 2, 2), "int32"), None, 1)
    assert [shape[0] for shape in calls] == [6]
    calls.clear()
    make()._log_probs_of_labels(np.zeros((2, 2, 2), "int32"), None, 1)
    assert {shape[0] for shape in calls} == {inference.PAIRS}


def test_gradients_pass_through():
    """As the TensorFlow Probability view needs them, where no label is given."""
    model = make(num_classes=70)
    with tf.GradientTape() as tape:
        log_probs = tf.function(model._log_probs_of_labels)(np.zeros((1, 2, 2), "int32"), None, 1)
        total = tf.reduce_sum(log_probs)
    gradient = tape.gradient(total, model.prior.embed_label.embeddings.value)
    assert (np.abs(tf.convert_to_tensor(gradient)).max(axis=1) > 0).all()
