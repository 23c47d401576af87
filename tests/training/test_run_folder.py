"""The folder of a run whose files hold something else than what a run writes."""

import json

import keras
import numpy as np
import pytest
from keras import ops

import haim_tf
from haim_tf.training import RunFolder

RECIPE = {"model": {}, "stages": []}
DATA = {"source": "here", "split": "train", "images": 3}
ROW = {"stage": 0, "step": 2, "seconds": 1.5}
META = {"position": {"stage": 0, "step": 2}, "rows": [ROW], "model": {"image_shape": [4, 4, 1]}}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "recipe.json").write_text(json.dumps(RECIPE))
    (tmp_path / "data.json").write_text(json.dumps(DATA))
    write_checkpoint(tmp_path, META)
    return tmp_path


def write_checkpoint(folder, meta):
    np.savez(folder / "checkpoint.npz", meta=np.array(json.dumps(meta)), model0=np.zeros(3))


def test_what_a_run_wrote_is_taken_up(folder):
    with RunFolder(folder, RECIPE, data=DATA) as run:
        assert (run.position, run.rows) == (META["position"], META["rows"])
        assert run.model_arguments == META["model"]


@pytest.mark.parametrize(
    "meta",
    [
        3,
        {**META, "position": 3},
        {**META, "position": {"stage": 0}},
        {**META, "position": {"stage": "0", "step": 2}},
        {**META, "position": {"stage": -1, "step": 2}},
        {**META, "rows": 7},
        {**META, "rows": [0.5]},
        {**META, "rows": [{**ROW, "seconds": "long"}]},
        {**META, "model": [1]},
    ],
)
def test_a_checkpoint_of_other_values_is_damaged(folder, meta):
    write_checkpoint(folder, meta)
    with pytest.raises(ValueError, match="checkpoint.npz is damaged .*: remove it to start the run anew"):
        RunFolder(folder, RECIPE, data=DATA)


@pytest.mark.parametrize("content", ["0.5", '["train"]', "null"])
def test_other_data_files_are_damaged(folder, content):
    (folder / "data.json").write_text(content)
    with pytest.raises(ValueError, match="data.json is damaged, or of another program: name a new folder"):
        RunFolder(folder, RECIPE, data=DATA)


@pytest.mark.parametrize("content", ["[]", "3"])
def test_a_recipe_file_of_something_else_is_damaged(folder, content):
    (folder / "recipe.json").write_text(content)
    with pytest.raises(ValueError, match="recipe.json is damaged, or of another program: name a new folder"):
        RunFolder(folder, RECIPE, data=DATA)


@pytest.mark.parametrize("written", [[], ["recipe.json"], ["recipe.json", "data.json"]])
def test_a_kill_while_a_file_is_written_leaves_a_run_and_no_litter(folder, tmp_path, written):
    run = tmp_path / "run"
    run.mkdir()
    for name in ("lock", ".recipe.json.17", ".checkpoint.npz.1234", ".stage_1.png.5", *written):
        (run / name).write_bytes((folder / name).read_bytes() if name in written else b"half")
    RunFolder(run, RECIPE, data=DATA).close()
    assert sorted(path.name for path in run.iterdir()) == ["data.json", "lock", "recipe.json"]


def test_hidden_files_of_others_stay(tmp_path):
    (tmp_path / ".mine.17").touch()
    with pytest.raises(ValueError, match="exists and is not a training run"):
        RunFolder(tmp_path, RECIPE)
    assert [path.name for path in tmp_path.iterdir()] == [".mine.17"]


def test_a_clock_that_went_back_harms_no_run(folder):
    write_checkpoint(folder, {**META, "rows": [{**ROW, "seconds": -3595.5}]})
    with RunFolder(folder, RECIPE, data=DATA) as run:
        assert run.position == META["position"]


def test_a_preset_that_a_killed_save_took_away_comes_back(folder):
    for name in (".preset.f6vudzr2", ".preset.f6vudzr2.replaced"):
        (folder / name).mkdir()
        (folder / name / "mine.txt").write_text(name)
    with RunFolder(folder, RECIPE, data=DATA):
        assert (folder / "preset" / "mine.txt").read_text().endswith(".replaced")
    (folder / ".preset.f6vudzr2.replaced").mkdir()
    with RunFolder(folder, RECIPE, data=DATA):
        assert sorted(folder.glob(".preset*")) == [] and (folder / "preset").exists()


def test_what_a_killed_save_left_goes_away(folder):
    (folder / ".preset.f6vudzr2" / "preset").mkdir(parents=True)
    (folder / ".checkpoint.npz.123-0a1b2c3d").touch()
    with RunFolder(folder, RECIPE, data=DATA):
        assert not [path.name for path in folder.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("before, after", [(True, False), (False, True), (True, True)])
def test_a_run_goes_on_whether_or_not_losses_are_scaled_there(tmp_path, before, after):
    """As under mixed_float16, which not every machine that goes on with the run may have."""

    def model(scaled):
        network = {"width": 4, "blocks": 1}
        model = haim_tf.HierarchicalModel((4, 4, 1), [], network, mixtures=2)
        optimizer = keras.optimizers.Adam(0.01)
        model.compile(keras.optimizers.LossScaleOptimizer(optimizer) if scaled else optimizer)
        model.optimizer.build(model.trainable_variables)
        for i, variable in enumerate(model.optimizer.variables):
            variable.assign(ops.ones_like(variable) * (i % 7 + 1))
        return model

    saved, fresh = model(before), model(after)
    for variable in fresh.optimizer.variables:
        variable.assign(ops.zeros_like(variable))
    with RunFolder(tmp_path / "run", RECIPE) as run:
        run.save(saved, stage=0, step=2)
        run.restore(fresh)

    def state(model):
        return [np.asarray(v) for v in getattr(model.optimizer, "inner_optimizer", model.optimizer).variables]

    assert all(value.any() for value in state(fresh))
    for mine, theirs in zip(state(fresh), state(saved), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    if before and after:
        assert float(fresh.optimizer.dynamic_scale) == float(saved.optimizer.dynamic_scale)
