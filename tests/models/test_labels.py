"""The prior under every label: as label by label, in a program and memory that labels do not enlarge."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from haim_tf.models import HierarchicalModel, inference
from haim_tf.networks import PixelCNN

NETWORK = {"width": 4, "blocks": 1}
LEVEL = {"downsampling": 2, "codebook_size": 8, "code_dim": 2, "width": 4, "blocks": 1, "decoder": NETWORK}
CLASSES = 300


def make(levels=1, num_classes=CLASSES, **arguments):
    """A model whose prior heeds the label."""
    model = HierarchicalModel((4, 4, 1), [LEVEL] * levels, NETWORK, num_classes, mixtures=2, **arguments)
    for weight in model.prior.weights:
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


@pytest.mark.parametrize("arguments", [{}, {"levels": 0}, {"levels": 0, "pixel_likelihood": "categorical"}])
@pytest.mark.parametrize("count", [1, 3])
def test_equals_label_by_label(arguments, count):
    model = make(**arguments)
    images = np.random.default_rng(0).integers(256, size=(count, 4, 4, 1)).astype("uint8")
    below, prior = model._run("_log_probs_by_label", images)
    assert below.shape == (count, model.num_levels) and prior.shape == (count, CLASSES)
    each = [model._run("_log_probs", images, np.full(count, label, "int32")) for label in range(CLASSES)]
    expected = np.stack([log_probs[:, -1] for log_probs in each], axis=1)
    np.testing.assert_allclose(prior, expected, rtol=1e-5)
    assert (prior.std(axis=1) > 0.1).all()
    np.testing.assert_allclose(below, each[0][:, :-1], rtol=1e-5)


@pytest.mark.parametrize("count", [5, None])
def test_the_prior_is_traced_once_and_sees_few_pairs_at_a_time(count, calls):
    model = make()
    program = tf.function(model._log_probs_of_top_by_label, autograph=False)
    graph = program.get_concrete_function(tf.TensorSpec((count, 2, 2), "int32")).graph
    assert len(calls) == 1
    assert calls[0][0] == (inference.PAIRS if count else None)
    (loop,) = (op for op in graph.get_operations() if op.type in ("While", "StatelessWhile"))
    assert loop.get_attr("parallel_iterations") == 1


def test_no_more_pairs_at_a_time_than_there_are(calls):
    make(num_classes=3)._log_probs_of_top_by_label(np.zeros((2, 2, 2), "int32"))
    assert [shape[0] for shape in calls] == [6]
    calls.clear()
    make()._log_probs_of_top_by_label(np.zeros((2, 2, 2), "int32"))
    assert {shape[0] for shape in calls} == {inference.PAIRS}


def test_gradients_pass_through():
    """As the TensorFlow Probability view needs them, where no label is given."""
    model = make(num_classes=70)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(tf.function(model._log_probs_of_top_by_label)(np.zeros((1, 2, 2), "int32")))
    gradient = tape.gradient(total, model.prior.embed_label.embeddings.value)
    assert (np.abs(tf.convert_to_tensor(gradient)).max(axis=1) > 0).all()
