"""Examples and errors in docstrings: every public function and method has them, and what they show is so."""

import ast
import doctest
import inspect
import re
import textwrap
from pathlib import Path

import keras
import numpy as np
import pytest

import haim_tf
from haim_tf import backend, checks
from haim_tf.models import inputs
from haim_tf.registry import Registry

PACKAGES = [name for name in haim_tf.__all__ if inspect.ismodule(getattr(haim_tf, name))]
PUBLIC = {
    f"{package}.{name}": getattr(getattr(haim_tf, package), name)
    for package in PACKAGES
    for name in getattr(haim_tf, package).__all__
}
# Base classes: docs/parts.md shows one of those at work.
BASES = {"likelihoods.Likelihood", "networks.AutoregressiveNetwork", "networks.AuxiliaryDecoder"}
# Functions that raise what a wrong value is.
CHECKS = {
    name
    for module in (backend, checks, inputs)
    for name, value in vars(module).items()
    if inspect.isfunction(value) and name.startswith(("check_", "require_"))
}


def methods(cls):
    """Public methods by name, each as the classes of the package define it, the nearest first; none that
    Keras knows by that name."""
    found = {}
    for owner in cls.__mro__:
        if owner.__module__.startswith("haim_tf"):
            for name, value in vars(owner).items():
                function = getattr(value, "__func__", value)
                if inspect.isfunction(function) and not name.startswith("_"):
                    found.setdefault(name, []).append(function)
    known = {"get_config", "from_config", "save_assets", "load_assets"}  # What Keras itself calls.
    known |= {name for owner in cls.__mro__ if owner.__module__.startswith("keras") for name in vars(owner)}
    return {name: functions for name, functions in found.items() if name not in known}


def documented():
    """`(name, [the object, what it overrides, ...])` of every public class, function and method."""
    classes = {name: value for name, value in PUBLIC.items() if inspect.isclass(value)}
    classes |= {"registry.Registry": Registry}
    for name, value in PUBLIC.items():
        if inspect.isfunction(value):
            yield name, [value]
    for name, cls in classes.items():
        yield name, [cls]
        for method, functions in methods(cls).items():
            yield f"{name}.{method}", functions


DOCUMENTED = dict(documented())


def has(title, objects):
    return any(re.search(rf"^ *{title}:\n +\S", each.__doc__ or "", re.M) for each in objects)


def raises(value):
    """Whether the body of a function, or of a class' constructor, refuses what users hand over."""
    if inspect.isclass(value):
        value = vars(value).get("__init__")
    if value is None or value.__code__.co_filename == "<string>":  # None of its own, or a data class'.
        return False
    tree = ast.parse(textwrap.dedent(inspect.getsource(value)))
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            if getattr(node.exc.func, "id", "") in ("ValueError", "FileNotFoundError"):
                return True
        if isinstance(node, ast.Call):
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if called in CHECKS:
                return True
    return False


def test_every_public_function_and_method_has_an_example():
    lacking = {name for name, objects in DOCUMENTED.items() if not has("Example", objects)}
    assert lacking == BASES


def test_errors_are_told_where_they_are_raised():
    lacking = {
        name for name, objects in DOCUMENTED.items() if raises(objects[0]) and not has("Raises", objects)
    }
    assert lacking == set()


# Examples: those that need data, files or packages that are not at hand are not run ------------------------

NOT_RUN = {
    "data.load",
    "data.read_image",
    "evaluation.Judge",
    "evaluation.Judge.distances",
    "evaluation.Judge.score_real",
    "evaluation.Judge.score_samples",
    "evaluation.accuracy",
    "evaluation.classification_accuracy_score",
    "evaluation.inception_features",
    "evaluation.publish_preset",
    "evaluation.train_classifier",
    "presets.upload",
    "saved_model.export",
    "training.fine_tune",
    "training.train",
}
# Those that sample, code or train step by step.
SLOW = {
    *(name for name in PUBLIC if name.startswith("compression.")),
    "evaluation.choose_sampling",
    "evaluation.evaluate",
    "evaluation.evaluate_and_score",
    "models.HierarchicalModel",
    "models.HierarchicalModel.complete",
    "models.without_rare_codes",
}


def examples():
    """`(name, docstring, globals)` of everything that has an example, each once."""
    seen = set()
    for name, objects in DOCUMENTED.items():
        for value in objects:
            if id(value) not in seen and has("Example", [value]):
                seen.add(id(value))
                yield name, value


EXAMPLES = dict(examples())


@pytest.fixture(scope="module")
def debug():
    return haim_tf.load("debug")


@pytest.fixture
def names(tmp_path, monkeypatch, debug):
    """What examples take for granted: everything public by its name, in an empty folder. They share one
    model, and so what was compiled for it."""
    monkeypatch.chdir(tmp_path)
    load = haim_tf.load
    monkeypatch.setattr(haim_tf, "load", lambda name: debug if name == "debug" else load(name))
    debug.unfreeze()
    everything = {name.partition(".")[2]: value for name, value in PUBLIC.items()}
    return {**everything, "Path": Path, "Registry": Registry, "haim_tf": haim_tf, "keras": keras, "np": np}


@pytest.mark.parametrize("name", sorted(set(EXAMPLES) - NOT_RUN - SLOW))
def test_examples_show_what_is_so(name, names):
    check_example(name, names)


@pytest.mark.slow(reason="compiles samplers and coders")
@pytest.mark.parametrize("name", sorted(SLOW))
def test_slow_examples_show_what_is_so(name, names):
    check_example(name, names)


def check_example(name, names):
    value = EXAMPLES[name]
    own = vars(inspect.getmodule(value))
    test = doctest.DocTestParser().get_doctest(value.__doc__, {**names, **own}, name, None, 0)
    told = []
    doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test, out=told.append)
    assert not told, "".join(told)


def test_what_is_set_apart_is_there():
    assert NOT_RUN | SLOW <= set(EXAMPLES)
