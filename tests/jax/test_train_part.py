"""Parts trained one by one with their data on the device, and joined: as `haim_tf train` trains them."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from absl import flags

from haim_tf import presets, training

ROOT = Path(__file__).parents[2]
START = {"model": "start", "origin": {"name": "start", "sha256": None}, "class_names": None, "sampling": None}
pytestmark = [pytest.mark.jax, pytest.mark.usefixtures("compiles_quickly")]


@pytest.fixture
def script(monkeypatch):
    """Runs the script with flags, by name, in this process."""

    def run(**given):
        specification = importlib.util.spec_from_file_location("train_part", ROOT / "export/train_part.py")
        module = importlib.util.module_from_spec(specification)
        # By which absl tells whose flags are whose.
        monkeypatch.setitem(sys.modules, "train_part", module)
        # As Python does with a script's own folder.
        monkeypatch.syspath_prepend(ROOT / "export")
        specification.loader.exec_module(module)
        try:
            flags.FLAGS(["train_part", *(f"--{name}={value}" for name, value in given.items())])
            module.main(["train_part"])
        finally:
            for flag in flags.FLAGS.get_flags_for_module(module):
                delattr(flags.FLAGS, flag.name)

    return run


@pytest.fixture
def recipe(small_recipe):
    """Codes, then the prior, then the decoder on crops."""
    stage = {"steps": 8, "learning_rate": 0.01, "warmup": 2}
    stages = [{"train": ["codes"], **stage}, {"train": ["prior"], **stage}]
    stages.append({"train": ["decoder_1"], **stage, "crop": 4})
    return small_recipe(4) | {"turns": True, "balance": 0.5, "stages": stages}


def test_parts_are_as_train_makes_them(script, recipe, small_images, tmp_path):
    """Averages, symmetries, crops, the classes' balance and the learning rate's course among them."""
    together = training.train(recipe, small_images, tmp_path / "together", verbose=False)

    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    given = {"config": tmp_path / "recipe.json", "data": small_images, "chunk": 4}
    codes, cache, parts = tmp_path / "codes.npz", tmp_path / "cache.npz", []
    script(**given, stage=1, output=codes)
    for stage in (2, 3):
        parts.append(tmp_path / f"stage_{stage}.npz")
        script(**given, codes=codes, cache=cache, stage=stage, output=parts[-1])
    joined = {"join": ",".join(map(str, parts)), "output": tmp_path / "joined"}
    script(**given, codes=codes, **joined)

    found = presets.load(tmp_path / "joined" / "preset")
    for mine, theirs in zip(found.weights, together.weights, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=2e-4, err_msg=mine.path)
    rows, others = (
        np.genfromtxt(tmp_path / name / "metrics.csv", delimiter=",", names=True)
        for name in ("joined", "together")
    )
    held_out = {name for name in others.dtype.names if name.startswith("holdout")}
    assert held_out and held_out <= set(rows.dtype.names) <= set(others.dtype.names)
    for name in ("stage", "step", "loss"):
        np.testing.assert_allclose(rows[name], others[name], rtol=1e-3, err_msg=name)


def test_without_held_out_images_the_averages_are_kept_as_train_keeps_them(
    script, recipe, small_images, tmp_path
):
    flat_recipe = {**recipe, **flat(recipe, steps=8), "holdout": 0}
    together = training.train(flat_recipe, small_images, tmp_path / "together", verbose=False)
    (tmp_path / "recipe.json").write_text(json.dumps(flat_recipe))
    given = {"config": tmp_path / "recipe.json", "data": small_images}
    script(**given, stage=1, chunk=8, output=tmp_path / "flat.npz")
    script(**given, join=tmp_path / "flat.npz", output=tmp_path / "joined")
    found = presets.load(tmp_path / "joined" / "preset")
    for mine, theirs in zip(found.weights, together.weights, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=2e-4, err_msg=mine.path)


def test_parts_of_other_codes_are_not_joined(script, recipe, small_images, tmp_path, capsys):
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    given = {"config": tmp_path / "recipe.json", "data": small_images, "chunk": 8}
    codes = [tmp_path / "codes.npz", tmp_path / "others.npz"]
    script(**given, stage=1, output=codes[0])
    with np.load(codes[0]) as saved:
        arrays = {name: saved[name] for name in saved.files}
    arrays["autoencoder_1/0"] = arrays["autoencoder_1/0"] + 1
    np.savez(codes[1], **arrays)
    script(**given, codes=codes[0], cache=tmp_path / "cache.npz", stage=2, output=tmp_path / "prior.npz")
    with pytest.raises(SystemExit):
        script(**given, codes=codes[1], join=tmp_path / "prior.npz", output=tmp_path / "joined")
    assert "prior.npz has learned on other codes than those of" in capsys.readouterr().err


def test_networks_learn_on_the_codes_that_are_left(script, recipe, small_images, tmp_path):
    (tmp_path / "recipe.json").write_text(json.dumps(recipe | {"rare_codes_below": 0.9}))
    given = {"config": tmp_path / "recipe.json", "data": small_images, "chunk": 8}
    script(**given, stage=1, output=tmp_path / "codes.npz")
    given |= {"codes": tmp_path / "codes.npz", "cache": tmp_path / "cache.npz"}
    script(**given, stage=2, output=tmp_path / "prior.npz")
    with np.load(tmp_path / "codes.npz") as codes, np.load(tmp_path / "prior.npz") as prior:
        (left,) = json.loads(str(codes["meta"]))["sizes"]
        assert 1 < left < recipe["model"]["levels"][0]["codebook_size"]
        assert left in {length for name in prior.files for length in prior[name].shape}


def test_a_stage_out_of_time_ends_and_says_how_far_it_came(script, recipe, small_images, tmp_path):
    (tmp_path / "recipe.json").write_text(json.dumps(recipe | {"variants": {"flat": flat(recipe)}}))
    given = {"config": tmp_path / "recipe.json", "variant": "flat", "data": small_images}
    script(**given, stage=1, chunk=5, seconds=1e-9, output=tmp_path / "flat.npz")
    script(**given, join=tmp_path / "flat.npz", output=tmp_path / "joined")
    assert training.read_recipe(tmp_path / "joined" / "recipe.json")["stages"][0]["steps"] == 10


def flat(recipe, steps=400):
    model = {**recipe["model"], "levels": []}
    return {"model": model, "stages": [{**recipe["stages"][1], "steps": steps, "crop": 4}]}


def test_what_cannot_be_is_said_first(script, recipe, small_images, tmp_path, capsys):
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    given = {"config": tmp_path / "recipe.json", "data": small_images, "output": tmp_path / "out.npz"}
    for wrong, message in (
        ({}, "one of --stage and --join must be given"),
        ({"stage": 2, "chunk": 4}, "a stage must train codes, or one network on the codes"),
        ({"stage": 4}, "--stage must be one of the recipe's 3 stages, got 4"),
        ({"stage": 1, "chunk": 3}, "--chunk must divide the stage's 8 steps, got 3"),
        ({"join": "prior.npz"}, "--codes must be given with --join"),
        ({"stage": 2, "codes": small_images}, "images.npz must be what a stage has written, and whole"),
    ):
        with pytest.raises(SystemExit):
            script(**given, **wrong)
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out.npz").exists()


@pytest.mark.parametrize(
    "change, message",
    [
        (
            lambda recipe: recipe["stages"][0].update(patience=1),
            "a stage must be without patience here, got 1",
        ),
        (
            lambda recipe: recipe.update({"from": START}),
            "a recipe must begin from scratch here",
        ),
    ],
)
def test_what_train_alone_does_is_not_left_out_in_silence(
    script, recipe, small_images, tmp_path, capsys, change, message
):
    recipe = {**recipe, "ema": None}
    change(recipe)
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    given = {"config": tmp_path / "recipe.json", "data": small_images, "output": tmp_path / "out.npz"}
    with pytest.raises(SystemExit):
        script(**given, stage=1, chunk=4)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "trained, number, message",
    [
        (
            [["codes"], ["prior"], ["decoder_1"], ["prior"]],
            4,
            "a network must learn in one stage here, got prior",
        ),
        ([None], 1, "a stage must train codes, or one network"),
        ([["codes", "decoders"]], 1, "a stage must train codes, or one network"),
    ],
)
def test_no_network_is_lost_or_begun_anew(
    script, recipe, small_images, tmp_path, capsys, trained, number, message
):
    stages = [{**recipe["stages"][0], "train": parts} for parts in trained]
    (tmp_path / "recipe.json").write_text(json.dumps({**recipe, "stages": stages}))
    given = {"config": tmp_path / "recipe.json", "data": small_images, "chunk": 4}
    if number > 1:
        script(**given, stage=1, output=tmp_path / "codes.npz")
        given |= {"codes": tmp_path / "codes.npz", "cache": tmp_path / "cache.npz"}
    with pytest.raises(SystemExit):
        script(**given, stage=number, output=tmp_path / "out.npz")
    assert message in capsys.readouterr().err


def test_pictures_are_brought_to_the_models_size(script, recipe, tmp_path):
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "large.npz",
        images=rng.integers(0, 256, (40, 16, 16, 1)).astype("uint8"),
        labels=[0, 1] * 20,
    )
    (tmp_path / "recipe.json").write_text(json.dumps({**recipe, "stages": recipe["stages"][:1]}))
    output = tmp_path / "codes.npz"
    script(config=tmp_path / "recipe.json", data=tmp_path / "large.npz", output=output, stage=1, chunk=4)
    assert output.is_file()
