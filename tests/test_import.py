"""`import haim_tf`: light, whole, the same whatever the program is called, and known to Keras."""

import importlib
import pkgutil
import subprocess
import sys

import keras
import pytest

import haim_tf
from haim_tf.registered import REGISTERED, registered_class
from haim_tf.training.optimizer import AveragingAdam

# A program called `haim_tf`, as the command is; later it has no arguments at all, not even a name.
PROGRAM = """
import sys
if sys.argv[1] == "keras first":
    import keras
import haim_tf
if sys.argv[1] == "haim_tf first":
    assert not {"keras", "tensorflow", "numpy"} & set(sys.modules)
    import keras
path, names = sys.argv[2], sys.argv[3:]
sys.argv = []
assert dir(haim_tf) == sorted(haim_tf.__all__)
assert all(keras.saving.get_registered_object(f"haim_tf>{name}") is not None for name in names)
model = keras.saving.load_model(path)
print(type(model).__module__, type(model.optimizer).__module__)
assert isinstance(model, haim_tf.HierarchicalModel)
for name in haim_tf.__all__:
    getattr(haim_tf, name)
"""
NAMES = [name for names in REGISTERED.values() for name in names]


@pytest.mark.parametrize("order", ["haim_tf first", "keras first"])
def test_a_fresh_process_loads_a_file(order, tmp_path):
    level = {"downsampling": 2, "codebook_size": 4, "code_dim": 2, "width": 4, "blocks": 1}
    network = {"width": 4, "blocks": 1}
    model = haim_tf.HierarchicalModel((4, 4, 1), [{**level, "decoder": network}], network)
    model.compile(AveragingAdam(use_ema=True))
    model.save(tmp_path / "model.keras")
    (tmp_path / "haim_tf").write_text(PROGRAM)
    command = [sys.executable, tmp_path / "haim_tf", order, tmp_path / "model.keras", *NAMES]
    process = subprocess.run(command, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert process.stdout.split() == [type(model).__module__, AveragingAdam.__module__]


def test_every_registered_class_has_its_place():
    """All modules imported, Keras knows the same names, and each class lies where its name is looked for."""
    for module in pkgutil.walk_packages(haim_tf.__path__, "haim_tf."):
        if not module.name.startswith(("haim_tf.cli", "haim_tf.__main__", "haim_tf.zoo")):
            importlib.import_module(module.name)
    registered = {
        name.removeprefix("haim_tf>"): known.__module__.split(".")[1]
        for name, known in keras.saving.get_custom_objects().items()
        if name.startswith("haim_tf>")
    }
    assert registered == {name: home for home, names in REGISTERED.items() for name in names}
    assert registered_class("HierarchicalModel") is haim_tf.HierarchicalModel


def test_attributes():
    assert "haim_tf" not in dir(haim_tf) and haim_tf.training.train
    with pytest.raises(AttributeError, match="module 'haim_tf' has no attribute 'lod'"):
        _ = haim_tf.lod
