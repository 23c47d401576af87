"""`haim_tf train`: by a recipe or from a preset; the trainings themselves are tested in tests/training."""

import numpy as np
import pytest

import haim_tf
from haim_tf.training import outcome


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), "uint8")
    np.savez("data.npz", images=images, labels=np.arange(40) % 2, class_names=np.array(["cat", "dog"]))
    return "data.npz"


def test_from_a_preset(run, data, tmp_path, monkeypatch):
    monkeypatch.setattr(outcome, "save_pictures", lambda *_: None)  # Which take long to compile.
    flags = [f"--data={data}", "--output=run", "--smoke", "--freeze=codes,decoders", "--seed=3"]
    code, output, errors = run("train", "--from=debug", *flags)
    assert (code, output) == (0, "done: run/preset\n")
    assert "held-out bits/dim before the first step" in errors
    model = haim_tf.load(tmp_path / "run/preset")
    assert model.class_names == ["cat", "dog"]
    recipe = haim_tf.files.read_json(tmp_path / "run/recipe.json")
    assert recipe["seed"] == 3 and recipe["stages"][0]["train"] == ["prior"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "name one of --config, a recipe, and --from, a model to fine-tune"),
        (["--config=debug", "--from=debug"], "name one of --config"),
        (["--config=imagenet32", "--steps=5"], "--steps is for --from"),
        (["--from=debug", "--variant=flat"], "--variant is for --config"),
        (["--from=debgu"], "there is no model 'debgu': did you mean 'debug'?"),
        (["--from=debug", "--freeze=code"], "unknown part 'code'"),
        (["--from=debug", "--learning_rate=-1"], "stage 1: learning_rate must be"),
        (["--from=imagenet128"], "there are no weights"),
    ],
)
def test_bad_flags_leave_nothing_behind(run, data, tmp_path, flags, message):
    code, _, errors = run("train", f"--data={data}", "--output=run", *flags)
    assert code == 2
    assert errors.startswith(f"haim_tf train: {message}") and errors.count("\n") == 1
    assert not (tmp_path / "run").exists()
