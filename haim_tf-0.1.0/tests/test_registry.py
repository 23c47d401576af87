"""Every public layer, network, likelihood and model: config, saving, fresh objects, mixed precision.

A class that is exported and not in `CASES` fails `test_every_public_class_has_a_case`.
"""

import inspect
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from haim_tf import layers, likelihoods, models, networks
from haim_tf.likelihoods import Categorical, DiscretizedLogisticMixture

RNG = np.random.default_rng(0)


def floats(*shape):
    return RNG.normal(size=shape).astype("float32")


def ints(high, *shape):
    return RNG.integers(high, size=shape).astype("int32")


LEVEL = {
    "downsampling": 2,
    "codebook_size": 5,
    "code_dim": 2,
    "width": 4,
    "blocks": 1,
    "commitment": 0.5,
    "decoder": {"width": 4, "blocks": 1, "heads": 2, "kernel_size": [2, 3], "dropout": 0.1},
}
MASKED = {
    "kind": "masked_self_prediction",
    "window": 3,
    "bins": 8,
    "positions": 5,
    "teacher_width": 4,
    "teacher_blocks": 1,
}
HIERARCHY = {
    "image_shape": [4, 8, 1],
    "levels": [LEVEL],
    "prior": {"width": 4, "blocks": 1, "heads": 2, "attention": [0]},
    "num_classes": 3,
    "mixtures": 2,
}

# By case: the class, constructor arguments (none at its default where another value works) and call
# arguments, by name where there are several.
CASES = {
    "MaskedConv2D": (
        layers.MaskedConv2D,
        {"filters": 3, "kernel_size": [2, 3], "include_center": False, "wrap": True},
        floats(2, 4, 5, 3),
    ),
    "CausalAttention2D": (
        layers.CausalAttention2D,
        {"heads": 2, "key_dim": 3},
        floats(2, 3, 4, 5),
    ),
    "GatedResidualBlock": (
        layers.GatedResidualBlock,
        {"width": 4, "kernel_size": [2, 3], "condition_width": 3, "vector_width": 2, "dropout": 0.5},
        {"inputs": floats(2, 4, 5, 4), "condition": floats(2, 4, 5, 3), "vector": floats(2, 2)},
    ),
    "ResidualBlock": (
        layers.ResidualBlock,
        {"width": 4},
        floats(2, 4, 5, 4),
    ),
    "ResidualStack": (
        layers.ResidualStack,
        {"width": 4, "blocks": 2},
        floats(2, 4, 5, 4),
    ),
    "VectorQuantizer": (
        layers.VectorQuantizer,
        {"codebook_size": 5, "code_dim": 3, "decay": 0.9, "epsilon": 1e-4, "revive_below": 0.2, "seed": 1},
        floats(2, 4, 5, 3),
    ),
    "Encoder": (
        networks.Encoder,
        {"downsampling": 2, "width": 4, "blocks": 1, "code_dim": 3, "codebook_size": None},
        floats(2, 4, 6, 3),
    ),
    "Encoder of codes": (
        networks.Encoder,
        {"downsampling": 2, "width": 4, "blocks": 1, "code_dim": 3, "codebook_size": 5},
        ints(5, 2, 4, 6),
    ),
    "FeedForwardDecoder": (
        networks.FeedForwardDecoder,
        {"upsampling": 2, "width": 4, "blocks": 1, "channels": 3, "codebook_size": None},
        floats(2, 2, 3, 4),
    ),
    "FeedForwardDecoder of codes": (
        networks.FeedForwardDecoder,
        {"upsampling": 2, "width": 4, "blocks": 1, "channels": None, "codebook_size": 5},
        floats(2, 2, 3, 4),
    ),
    "MaskedSelfPredictionDecoder": (
        networks.MaskedSelfPredictionDecoder,
        {
            "upsampling": 2,
            "width": 4,
            "blocks": 1,
            "channels": 3,
            "codebook_size": None,
            "window": 3,
            "bins": 8,
            "positions": 5,
            "teacher": True,
            "teacher_width": 4,
            "teacher_blocks": 1,
            "seed": 1,
        },
        floats(2, 2, 3, 4),
    ),
    "MaskedSelfPredictionTeacher": (
        networks.MaskedSelfPredictionTeacher,
        {"window": 3, "width": 4, "blocks": 1, "channels": 3, "bins": 8},
        floats(2, 4, 6, 3),
    ),
    "MaskedSelfPredictionTeacher of codes": (
        networks.MaskedSelfPredictionTeacher,
        {"window": 1, "width": 4, "blocks": 1, "codebook_size": 5},
        ints(5, 2, 4, 6),
    ),
    "PixelCNN": (
        networks.PixelCNN,
        {
            "likelihood": DiscretizedLogisticMixture(3, mixtures=2, levels=100),
            "width": 6,
            "blocks": 2,
            "kernel_size": [2, 3],
            "attention": [1],
            "heads": 3,
            "dropout": 0.5,
            "codebook_size": 5,
            "upsampling": 2,
            "condition_width": 3,
            "condition_blocks": 1,
            "condition_overlap": True,
            "num_classes": 3,
            "label_dropout": 0.1,
        },
        {"x": ints(100, 2, 4, 6, 3), "codes": ints(5, 2, 2, 3), "labels": ints(3, 2)},
    ),
    "PixelCNN of code vectors": (
        networks.PixelCNN,
        {
            "likelihood": Categorical(5),
            "width": 4,
            "blocks": 1,
            "codebook_size": 5,
            "condition_width": 3,
            "code_dim": 2,
        },
        {"x": ints(5, 2, 4, 6), "codes": floats(2, 4, 6, 2)},
    ),
    "PixelCNN of codes": (
        networks.PixelCNN,
        {"likelihood": Categorical(5), "width": 4, "blocks": 1},
        ints(5, 2, 4, 6),
    ),
    "DiscreteAutoencoder": (
        models.DiscreteAutoencoder,
        {k: v for k, v in LEVEL.items() if k != "decoder"} | {"channels": 3, "lower_codebook_size": None},
        floats(2, 4, 6, 3),
    ),
    "DiscreteAutoencoder of codes": (
        models.DiscreteAutoencoder,
        {k: v for k, v in LEVEL.items() if k != "decoder"} | {"channels": None, "lower_codebook_size": 5},
        ints(5, 2, 4, 6),
    ),
    "DiscreteAutoencoder with a teacher": (
        models.DiscreteAutoencoder,
        {k: v for k, v in LEVEL.items() if k != "decoder"}
        | {"channels": 3, "lower_codebook_size": None, "auxiliary": MASKED},
        floats(2, 4, 6, 3),
    ),
    "HierarchicalModel with a teacher, and end to end": (
        models.HierarchicalModel,
        HIERARCHY
        | {"levels": [LEVEL | {"auxiliary": MASKED}, LEVEL | {"auxiliary": {"kind": "end_to_end"}}]},
        {"images": ints(256, 2, 4, 8, 1).astype("uint8"), "labels": ints(3, 2)},
    ),
    "HierarchicalModel": (
        models.HierarchicalModel,
        HIERARCHY | {"pixel_likelihood": "logistic_mixture"},
        {"images": ints(256, 2, 4, 8, 1).astype("uint8"), "labels": ints(3, 2)},
    ),
    "HierarchicalModel of categories": (
        models.HierarchicalModel,
        HIERARCHY | {"pixel_likelihood": "categorical", "num_classes": None, "levels": []},
        ints(256, 2, 4, 8, 1).astype("uint8"),
    ),
}

LIKELIHOODS = {
    "Categorical": (Categorical, {"num_values": 7}, ints(7, 2, 3, 4)),
    "DiscretizedLogisticMixture": (
        DiscretizedLogisticMixture,
        {"channels": 3, "mixtures": 2, "levels": 100},
        ints(100, 2, 3, 4, 3),
    ),
}


def make(case, **more):
    cls, arguments, _ = CASES[case]
    return cls(**arguments, **more)


def call(made, case):
    """Outputs as a flat list of arrays."""
    given = CASES[case][2]
    if isinstance(given, dict) and not isinstance(made, keras.Model):
        outputs = made(**given)
    else:
        outputs = made(given)
    # In float32, for NumPy's tests do not know bfloat16.
    return [
        np.array(tf.cast(x, "float32") if x.dtype == "bfloat16" else x) for x in keras.tree.flatten(outputs)
    ]


def as_model(made, case):
    """A layer as a model that can be saved; models as they are."""
    if isinstance(made, keras.Model):
        return made
    given = CASES[case][2]
    if isinstance(given, dict):
        tensors = {k: keras.Input(x.shape[1:], dtype=x.dtype.name, name=k) for k, x in given.items()}
        return keras.Model(tensors, made(**tensors))
    tensor = keras.Input(given.shape[1:], dtype=given.dtype.name)
    return keras.Model(tensor, made(tensor))


def assert_same(found, expected):
    assert len(found) == len(expected) > 0
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def randomize(made):
    rng = np.random.default_rng(0)
    made.set_weights([rng.normal(0, 0.5, w.shape) for w in made.get_weights()])


def public_classes(module):
    """What a package exports, or what a module defines."""
    names = getattr(module, "__all__", None) or [
        name
        for name, value in vars(module).items()
        if inspect.isclass(value) and value.__module__ == module.__name__ and not name.startswith("_")
    ]
    return {getattr(module, name) for name in names if inspect.isclass(getattr(module, name))}


def test_every_public_class_has_a_case():
    public = set().union(*map(public_classes, (layers, networks, models)))
    # What others are derived from is tried by tests/test_kinds.py, the schedule by test_provenance.py.
    bases = {models.WarmUp, networks.AutoregressiveNetwork, networks.AuxiliaryDecoder, likelihoods.Likelihood}
    assert public - bases == {cls for cls, *_ in CASES.values()}
    assert public_classes(likelihoods) - bases == {cls for cls, *_ in LIKELIHOODS.values()}


@pytest.mark.parametrize("case", CASES)
def test_config_round_trip(case):
    cls, arguments, _ = CASES[case]
    made = make(case)
    config = made.get_config()
    parameters = set(inspect.signature(cls.__init__).parameters) - {"self", "kwargs"}
    assert parameters <= set(config), "the config lacks constructor arguments"
    for name, value in arguments.items():
        if name != "likelihood":
            assert config[name] == value
    assert cls.from_config(config).get_config() == config
    serialized = keras.saving.serialize_keras_object(made)
    assert keras.saving.deserialize_keras_object(serialized).get_config() == config


def as_numpy(value):
    """Arguments as they come out of arrays."""
    if isinstance(value, list):
        return [as_numpy(item) for item in value]
    kinds = {bool: np.bool_, int: np.int64, float: np.float64}
    return kinds.get(type(value), lambda same: same)(value)


@pytest.mark.parametrize(
    "case",
    [
        case
        for case, (cls, *_) in CASES.items()
        if cls.__module__.startswith(
            ("haim_tf.layers", "haim_tf.networks.encoder", "haim_tf.networks.teacher")
        )
    ],
)
def test_numpy_numbers_become_python_ones_in_the_config(case):
    cls, arguments, _ = CASES[case]
    made = cls(**{name: as_numpy(value) for name, value in arguments.items()})
    config = {**make(case).get_config(), "name": made.name}
    assert json.dumps(made.get_config()) == json.dumps(config)
    call(made, case)


@pytest.mark.parametrize("case", CASES)
def test_a_file_gives_back_the_outputs(case, tmp_path):
    made = make(case)
    model = as_model(made, case)
    randomize(made)
    expected = call(made, case)
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    given = CASES[case][2]
    assert_same([np.array(x) for x in keras.tree.flatten(loaded(given))], expected)


@pytest.mark.parametrize("case", CASES)
def test_weights_go_into_a_fresh_object(case, tmp_path):
    made, fresh = make(case), make(case)
    model, fresh_model = as_model(made, case), as_model(fresh, case)
    randomize(made)
    expected = call(made, case)
    assert any((a != b).any() for a, b in zip(call(fresh, case), expected, strict=True))
    model.save_weights(tmp_path / "m.weights.h5")
    fresh_model.load_weights(tmp_path / "m.weights.h5")
    assert_same(call(fresh, case), expected)


@pytest.mark.parametrize("case", CASES)
def test_build_alone_creates_every_variable(case):
    """Without it, loading weights into an object that was never called would restore nothing."""
    made, called = make(case), make(case)
    given = CASES[case][2]
    if not made.built:
        first = next(iter(given.values())) if isinstance(given, dict) else given
        made.build(first.shape)
    call(called, case)
    assert [w.shape for w in made.weights] == [w.shape for w in called.weights]
    assert len(made.weights) > 0


@pytest.mark.parametrize("case", CASES)
def test_mixed_precision(case):
    made = make(case, dtype="mixed_bfloat16")
    outputs = call(made, case)
    assert all(np.isfinite(x).all() for x in outputs)
    assert {keras.backend.standardize_dtype(w.dtype) for w in made.weights} == {"float32"}
    plain = make(case)
    call(plain, case)
    plain.set_weights(made.get_weights())
    for half, full in zip(outputs, call(plain, case), strict=True):
        if np.issubdtype(full.dtype, np.floating):
            np.testing.assert_allclose(half, full, rtol=0.1, atol=0.1)
        else:
            np.testing.assert_array_equal(half, full)


@pytest.mark.parametrize("case", LIKELIHOODS)
def test_likelihood_config_round_trip_and_half_precision(case):
    cls, arguments, x = LIKELIHOODS[case]
    head = cls(**arguments)
    assert head.get_config() == arguments
    restored = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(head))
    assert type(restored) is cls and restored.get_config() == arguments
    outputs = tf.cast(floats(2, 3, 4, head.params_size), "bfloat16")
    log_prob = head.log_prob(head.parameters(outputs, x), x)
    assert log_prob.dtype == "float32" and np.isfinite(log_prob).all()
    np.testing.assert_array_equal(restored.log_prob(restored.parameters(outputs, x), x), log_prob)
