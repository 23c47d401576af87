"""Training by recipe: the real path at toy size, and resuming as if nothing had happened."""

import csv
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

import haim_tf
from haim_tf import processor, training
from haim_tf.data import ImageData
from haim_tf.training import code_cache
from haim_tf.training.recipe import START

RECIPE = {
    "model": {
        "image_shape": [8, 8, 1],
        "num_classes": 3,
        "levels": [
            {
                "downsampling": 2,
                "codebook_size": 8,
                "code_dim": 4,
                "width": 8,
                "blocks": 1,
                "decoder": {
                    "width": 8,
                    "blocks": 1,
                    "dropout": 0.1,
                    "condition_width": 8,
                    "condition_blocks": 1,
                },
            }
        ],
        "prior": {"width": 8, "blocks": 1, "attention": [0]},
    },
    "batch_size": 8,
    "flip": True,
    "holdout": 16,
    "interval": 3,
    "ema": 0.9,
    "stages": [
        {"train": ["codes"], "steps": 6, "learning_rate": 0.01},
        {"train": ["decoders", "prior"], "steps": 9, "learning_rate": 0.01, "warmup": 2},
    ],
    "variants": {
        "flat": {
            "model": {
                "image_shape": [8, 8, 1],
                "num_classes": 3,
                "levels": [],
                "prior": {"width": 8, "blocks": 1},
            },
            "stages": [{"steps": 3, "learning_rate": 0.01}],
        }
    },
}


# A step each, where it matters only which stages there are.
STEP = {"steps": 1, "learning_rate": 0.01}
# As few intervals as there are places to stop at: the end of a stage's steps, between stages, within one.
SHORT = {
    **RECIPE,
    "interval": 1,
    "stages": [
        {"train": ["codes"], **STEP},
        {"train": ["decoders", "prior"], "steps": 2, "learning_rate": 0.01},
    ],
}


class KilledError(Exception):
    pass


@pytest.fixture(scope="module")
def data(small_images):
    return small_images


@pytest.fixture(scope="module")
def whole_run(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    model = training.train(training.read_recipe(RECIPE), data, folder, verbose=False)
    return folder, model


@pytest.fixture(scope="module")
def eager_run(data, tmp_path_factory):
    """The model of a whole short run without programs, as the runs that are compared with it."""
    tf.config.run_functions_eagerly(True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.outcome, "save_pictures", lambda *arguments: None)
        folder = tmp_path_factory.mktemp("eager") / "run"
        model = training.train(training.read_recipe(SHORT), data, folder, verbose=False)
    tf.config.run_functions_eagerly(False)
    return model


@pytest.fixture(autouse=True)
def _quickly(eagerly, monkeypatch):
    """A few steps are quickest without a program, and pictures need one for each network; `whole_run`, which
    is made before this applies, has both."""
    monkeypatch.setattr(training.outcome, "save_pictures", lambda *arguments: None)


def rows_of(folder):
    with open(folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_leaves_a_preset_a_log_and_pictures(whole_run, data):
    folder, model = whole_run
    loaded = haim_tf.load(str(folder / "preset"))
    images, labels = np.load(data)["images"][:8], np.load(data)["labels"][:8]
    np.testing.assert_allclose(loaded.log_prob(images, labels), model.log_prob(images, labels), rtol=1e-6)
    assert (folder / "samples.png").stat().st_size > 100
    assert (folder / "reconstructions.png").stat().st_size > 100
    rows = rows_of(folder)
    assert [(row["stage"], row["step"]) for row in rows] == [
        ("0", "3"), ("0", "6"), ("1", "3"), ("1", "6"), ("1", "9"),
    ]  # fmt: skip
    assert float(rows[1]["holdout_loss_autoencoder_1"]) < float(rows[0]["holdout_loss_autoencoder_1"])
    assert float(rows[-1]["holdout_bits_per_dim_total"]) < float(rows[2]["holdout_bits_per_dim_total"])
    parts = [float(rows[-1][f"holdout_bits_per_dim_{name}"]) for name in ("level_1", "prior", "total")]
    np.testing.assert_allclose(parts[0] + parts[1], parts[2], rtol=1e-6)
    metadata = json.loads((folder / "preset" / "metadata.json").read_text())
    assert metadata["pretrained"] and metadata["training"]["images_seen"] == [48, 72]
    # Called after the run, not after the preset's folder in it.
    assert metadata["name"] == folder.name
    assert (folder / "preset" / "README.md").read_text().startswith(f"# {folder.name}\n")
    assert not [name for name in os.listdir(folder) if name.startswith(".")]


@pytest.mark.parametrize("stop_after", [1, 2, 3])
def test_an_interrupted_run_goes_on_as_if_it_never_stopped(
    eager_run, data, tmp_path, monkeypatch, stop_after
):
    saves = []
    save = training.RunFolder.save

    def save_then_die(self, model, stage, step, row=None):
        save(self, model, stage, step, row)
        saves.append((stage, step))
        if len(saves) == stop_after:
            raise KilledError

    recipe = training.read_recipe(SHORT)
    with monkeypatch.context() as patch:
        patch.setattr(training.RunFolder, "save", save_then_die)
        with pytest.raises(KilledError):
            training.train(recipe, data, tmp_path / "run", verbose=False)
    assert not (tmp_path / "run" / "preset").exists()
    model = training.train(recipe, data, tmp_path / "run", verbose=False)
    for mine, other in zip(model.weights, eager_run.weights, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-6, err_msg=mine.path)
    assert len(rows_of(tmp_path / "run")) == 3


def test_a_finished_run_is_not_trained_again(whole_run, data):
    folder, expected = whole_run
    before = (folder / "checkpoint.npz").read_bytes()
    weights = folder / "preset" / "model.weights.h5"
    saved = weights.read_bytes()
    weights.write_bytes(saved[:-1])
    model = training.train(training.read_recipe(RECIPE), data, folder, verbose=False)
    assert (folder / "checkpoint.npz").read_bytes() == before and weights.read_bytes() == saved
    np.testing.assert_array_equal(model.prior.last.kernel, expected.prior.last.kernel)


def test_kill_9_in_the_middle_then_resume(eager_run, data, tmp_path):
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps(SHORT))
    command = [sys.executable, "-m", "haim_tf", "train", f"--config={recipe}", f"--data={data}"]
    command.append(f"--output={tmp_path / 'run'}")
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.time() + 600
    while not (tmp_path / "run" / "checkpoint.npz").exists():
        assert process.poll() is None and time.time() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "run" / "preset").exists()
    model = training.train(training.read_recipe(recipe), data, tmp_path / "run", verbose=False)
    for mine, other in zip(model.weights, eager_run.weights, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-5, err_msg=mine.path)


def test_training_in_stages_moves_only_what_the_stage_names(data, tmp_path):
    recipe = training.read_recipe({**SHORT, "stages": SHORT["stages"][1:]})
    keras.utils.set_random_seed(recipe["seed"])
    fresh = haim_tf.HierarchicalModel(**recipe["model"])
    trained = training.train(recipe, data, tmp_path / "run", verbose=False)
    for mine, start in zip(trained.autoencoders[0].weights, fresh.autoencoders[0].weights, strict=True):
        np.testing.assert_array_equal(mine, start, err_msg=mine.path)
    moved = [
        np.abs(np.asarray(a) - np.asarray(b)).max() > 0
        for a, b in zip(trained.prior.weights, fresh.prior.weights, strict=True)
    ]
    assert all(moved)


@pytest.mark.parametrize(
    "stages, named",
    [
        # Together with the codes, then on: nothing is fresh by then but the prior.
        ([["codes", "decoders"], ["decoders", "prior"]], [set(), {"prior"}]),
        ([["codes"], ["prior"], ["decoder_1", "prior"]], [set(), {"prior"}, {"decoder_1"}]),
        # Codes that nobody has trained have nothing to say.
        ([["prior"], ["codes"]], [set(), set()]),
    ],
)
def test_networks_first_trained_on_finished_codes_start_from_the_codebooks(
    data, tmp_path, monkeypatch, stages, named
):
    seen = []
    monkeypatch.setattr(haim_tf.HierarchicalModel, "embed_by_codebooks", lambda self, *n: seen.append({*n}))
    stages = [{"train": names, **STEP} for names in stages]
    recipe = training.read_recipe({**SHORT, "stages": stages})
    training.train(recipe, data, tmp_path / "run", verbose=False)
    assert seen == named


def test_decoders_learn_on_crops_and_kept_codes(data, tmp_path, monkeypatch):
    stages = [
        {"train": ["codes"], **STEP},
        {"train": ["prior"], **STEP},
        {"train": ["decoder_1"], **STEP, "crop": 4},
    ]
    seen, encoded = [], []
    losses = haim_tf.HierarchicalModel.losses_and_statistics
    encode_all = code_cache._encode_all

    def spy(self, images, labels=None, codes=None, corner=None, training=False):
        seen.append((images.shape[1:3], None if codes is None else [c.shape[1:] for c in codes]))
        return losses(self, images, labels, codes, corner, training)

    monkeypatch.setattr(haim_tf.HierarchicalModel, "losses_and_statistics", spy)
    monkeypatch.setattr(code_cache, "_encode_all", lambda *args: encoded.append(1) or encode_all(*args))
    recipe = training.read_recipe({**SHORT, "stages": stages})
    training.train(recipe, data, tmp_path / "run", verbose=False)
    assert [s for s, _ in itertools.groupby(seen)] == [
        ((8, 8), None),
        ((8, 8), [(4, 4)]),
        ((4, 4), [(4, 4)]),
    ]
    assert len(encoded) == 1
    # Each row holds what its stage trains, and nothing else.
    held = [{name for name, x in row.items() if x and "holdout" in name} for row in rows_of(tmp_path / "run")]
    assert held == [
        {"holdout_loss_autoencoder_1"},
        {"holdout_bits_per_dim_prior"},
        {"holdout_bits_per_dim_level_1"},
    ]


def test_a_flat_model_learns_on_crops(data, tmp_path, monkeypatch):
    model = {**RECIPE["model"], "levels": [], "prior": {"width": 8, "blocks": 2}}
    stages = [{"train": ["prior"], **STEP, "crop": 4}]
    losses, seen = haim_tf.HierarchicalModel.losses_and_statistics, []

    def spy(self, images, *args, **kwargs):
        seen.append(images.shape[1:3])
        return losses(self, images, *args, **kwargs)

    monkeypatch.setattr(haim_tf.HierarchicalModel, "losses_and_statistics", spy)
    training.train(
        training.read_recipe({**SHORT, "model": model, "stages": stages}),
        data,
        tmp_path / "run",
        verbose=False,
    )
    assert set(seen) == {(4, 4)}
    assert haim_tf.load(tmp_path / "run" / "preset").sample(1, labels=0).shape == (1, 8, 8, 1)


@pytest.mark.parametrize("train", [["prior"], ["decoder_1", "codes"], None])
def test_crops_are_for_main_decoders(data, tmp_path, train):
    stage = {"train": train, "steps": 3, "learning_rate": 0.01, "crop": 4}
    with pytest.raises(ValueError, match="crop is for"):
        training.train(training.read_recipe({**RECIPE, "stages": [stage]}), data, tmp_path / "run")


def test_turned_images_meet_their_own_codes_and_balance_is_told(data, tmp_path, monkeypatch):
    recipe = training.read_recipe({**SHORT, "turns": True, "balance": 0.5})
    batches, seen = haim_tf.data.Batches, []

    def spy(data, batch_size, **options):
        seen.append(batches(data, batch_size, **options))
        return seen[-1]

    monkeypatch.setattr(haim_tf.data, "Batches", spy)
    model = training.train(recipe, data, tmp_path / "run", verbose=False)
    first, last = seen
    assert all((b.flip, b.turns, b.balance) == (True, True, 0.5) for b in seen)
    assert first.codes is None and last.codes[0].shape == (8, 80, 4, 4)
    for step in range(3):
        batch = last[step][0]
        np.testing.assert_array_equal(batch["codes"][0], model.encode(batch["images"])[0])
    told = json.loads((tmp_path / "run" / "preset" / "metadata.json").read_text())["training"]
    assert told["augmentation"] == "flips and quarter turns"
    assert told["classes"] == "drawn more evenly: an image of a class of n by n ** -0.5"
    card = (tmp_path / "run" / "preset" / "README.md").read_text()
    assert "- classes: drawn more evenly" in card and "- augmentation: flips and quarter turns" in card


def test_turns_and_balance_that_the_data_cannot_have_are_known_before_step_1(tmp_path):
    images = np.zeros((20, 8, 8, 1), "uint8")
    np.savez(tmp_path / "unlabelled.npz", images=images)
    np.savez(tmp_path / "labelled.npz", images=images, labels=np.arange(20) % 3)
    model, wide = ({**RECIPE["model"], "num_classes": None, "image_shape": [8, w, 1]} for w in (8, 12))
    for change, source, message in (
        ({"model": model, "balance": 1}, "unlabelled.npz", "balance must be 0 unless images have labels"),
        ({"model": wide, "turns": True}, "labelled.npz", "turns must be false unless .* got 8x12"),
    ):
        recipe = training.read_recipe({**RECIPE, "holdout": 0, **change})
        with pytest.raises(ValueError, match=message):
            training.train(recipe, tmp_path / source, tmp_path / "run", verbose=False)
        assert not (tmp_path / "run").exists()


def test_the_classes_of_the_data(data, tmp_path):
    model = {**RECIPE["model"], "num_classes": "data"}
    recipe = training.read_recipe({**SHORT, "model": model, "stages": [{"train": ["prior"], **STEP}]})
    names = with_names(data, tmp_path, ["a", "b", "c", "d"])
    for source, classes in ((data, 3), (names, 4)):
        folder = tmp_path / str(classes)
        for _ in range(2):  # The second time it is there already.
            assert training.train(recipe, source, folder, verbose=False).num_classes == classes
        assert json.loads((folder / "recipe.json").read_text())["model"]["num_classes"] == classes
    assert haim_tf.load(folder / "preset").class_names == ["a", "b", "c", "d"]
    np.savez(tmp_path / "unlabelled.npz", images=np.zeros((40, 8, 8, 1), "uint8"))
    with pytest.raises(ValueError, match="has the classes of its data, but .*unlabelled.npz has no labels"):
        training.train(recipe, tmp_path / "unlabelled.npz", tmp_path / "none", verbose=False)


def test_a_run_of_before_there_was_balance_goes_on(whole_run, data, tmp_path):
    recipe = training.read_recipe(RECIPE)
    old = {key: value for key, value in recipe.items() if key not in ("balance", "turns")}
    (tmp_path / "recipe.json").write_text(json.dumps(old))
    training.RunFolder(tmp_path, recipe).close()
    with pytest.raises(ValueError, match="another recipe"):
        training.RunFolder(tmp_path, {**recipe, "balance": 0.5})


def test_the_zoo_recipes_own_path_in_smoke_mode(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "images.npz",
        images=rng.integers(0, 255, (40, 28, 28, 1)).astype("uint8"),
        labels=np.arange(40) % 10,
    )
    for variant in (None, "flat"):
        recipe = training.read_recipe("fashion_mnist28", variant=variant, smoke=True)
        folder = tmp_path / (variant or "hierarchy")
        model = training.train(recipe, tmp_path / "images.npz", folder, verbose=False)
        assert model.num_levels == (0 if variant else 2)
        assert (folder / "preset" / "model.weights.h5").exists()


def test_a_recipe_runs_on_a_tfds_set_by_name_with_its_classes(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")
    model = {**RECIPE["model"], "image_shape": [8, 8, 3], "num_classes": "data"}
    change = {"model": model, "turns": True, "balance": 0.5, "holdout": 4}
    with tfds.testing.mock_data(num_examples=20):  # Of random sizes, each with a label of its own.
        trained = training.train(
            training.read_recipe({**SHORT, **change}), "plant_village", tmp_path / "run", verbose=False
        )
    assert trained.num_classes == 38 and trained.class_names[1] == "Apple___Black_rot"
    assert trained.image_shape == (8, 8, 3)
    known = json.loads((tmp_path / "run" / "data.json").read_text())
    assert (known["source"], known["images"]) == ("plant_village", 20)
    assert haim_tf.load(tmp_path / "run" / "preset").sample(1, labels="Apple___Black_rot").shape == (
        1,
        8,
        8,
        3,
    )


def test_the_leaves_recipe_keeps_its_promises():
    recipe, flat, masked = (
        training.read_recipe("plant_village128", variant=variant) for variant in (None, "flat", "masked")
    )
    model, plain, other = (
        haim_tf.HierarchicalModel(**{**each["model"], "num_classes": 15}) for each in (recipe, flat, masked)
    )
    assert model.grid_shapes == [(128, 128), (32, 32), (16, 16), (8, 8)]
    for network, (height, _) in zip(model.networks, model.grid_shapes, strict=True):
        assert height <= 16 or not network.attention
    assert model.prior.label_dropout
    assert (haim_tf.presets.find("plant_village128") / haim_tf.presets.WEIGHTS).stat().st_size <= 20e6
    assert plain.prior.count_params() == pytest.approx(model.decoders[0].count_params(), rel=0.03)
    last, only = recipe["stages"][-1], flat["stages"][0]
    assert {**last, "train": ["prior"]} == only
    assert other.autoencoders[0].decoder.teacher is not None
    same = [{k: v for k, v in level.items() if k != "auxiliary"} for level in masked["model"]["levels"]]
    assert {**masked["model"], "levels": same} == recipe["model"]


@pytest.mark.slow(reason="three levels at 128 pixels, and samples of them")
@pytest.mark.parametrize("variant", [None, "flat", "masked"])
def test_the_leaves_recipe_s_own_path_in_smoke_mode(tmp_path, variant):
    tfds = pytest.importorskip("tensorflow_datasets")
    recipe = training.read_recipe("plant_village128", variant=variant, smoke=True)
    with tfds.testing.mock_data(num_examples=24):
        model = training.train(recipe, "plant_village", tmp_path / "run", verbose=False)
    assert model.num_classes == 38 and model.num_levels == (0 if variant == "flat" else 3)
    assert haim_tf.load(tmp_path / "run" / "preset").class_names == model.class_names


@pytest.mark.parametrize(
    "change, message",
    [
        ({"batchsize": 3}, "batchsize"),
        ({"stages": []}, "stages"),
        ({"stages": [{"steps": 3}]}, "learning_rate"),
        ({"stages": True}, "a recipe's stages must be a list, got True"),
        ({"variants": 5}, "a recipe's variants must be JSON objects by name, got 5"),
        ({"variants": {"flat": 3}}, "a recipe's variants must be JSON objects by name, got .'flat': 3"),
        ({"stages": [{"steps": 4, "learning_rate": 1.0}]}, "multiple of interval 3, got .*'steps': 4"),
        (
            {"stages": [{"steps": 0, "learning_rate": 1.0}]},
            r"stage 1: steps must be an integer in 1\.\.2147483647, got 0",
        ),
    ],
)
def test_a_wrong_recipe_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        training.read_recipe({**RECIPE, **change})


@pytest.mark.parametrize(
    "change, message",
    [
        ({"batch_size": 0}, r"a recipe's batch_size must be an integer in 1\.\.1048576, got 0"),
        ({"interval": 0}, r"a recipe's interval must be an integer in 1\.\.2147483647, got 0"),
        ({"flip": "yes"}, "a recipe's flip must be true or false, got 'yes'"),
        ({"turns": 1}, "a recipe's turns must be true or false, got 1"),
        ({"balance": -1}, "a recipe's balance must be a number of at least 0 and at most 1, got -1"),
        ({"rare_codes_below": 2}, "a recipe's rare_codes_below must be .* got 2"),
        ({"precision": "float8"}, "a recipe's precision must be one of float32, .*, got 'float8'"),
        ({"model": {"mixtures": float("nan")}}, "the recipe.model.mixtures must be a finite number, got nan"),
        ({"last": {"learning_rate": float("inf")}}, "stages.1.learning_rate must be a finite"),
        ({"clip_norm": 0}, "a recipe's clip_norm must be a number above 0, got 0"),
        ({"ema": 1.0}, "stage 1: ema must be .* got 1.0"),
        ({"last": {"learning_rate": "fast"}}, "stage 2: learning_rate must be .* got 'fast'"),
        ({"last": {"warmup": 10}}, r"stage 2: warmup must be an integer in 0\.\.9, got 10"),
        ({"last": {"batch_size": 2.5}}, r"stage 2: batch_size must be an integer in 1\.\.1048576, got 2.5"),
        ({"last": {"steps": 10**40}}, r"stage 2: steps must be an integer in 1\.\.2147483647, got 1000"),
        ({"from": "debug"}, "a recipe's from must be as haim_tf train --from writes it, .* got 'debug'"),
        ({"from": {"model": "debug"}}, "a recipe's from must be .* class_names, sampling, got {'model'"),
        ({"from": dict.fromkeys(START)}, "a recipe's from must be .* got {'model': None"),
        ({"last": {"train": "prior"}}, "stage 2: train must be a list of part names, .*, got 'prior'"),
    ],
)
def test_what_the_last_stage_would_fail_at_is_known_before_step_1(change, message):
    change = dict(change)
    last = change.pop("last", {})
    stages = [RECIPE["stages"][0], {**RECIPE["stages"][1], **last}]
    with pytest.raises(ValueError, match=message):
        training.read_recipe({**RECIPE, "stages": stages, **change})


def test_integers_of_numpy_s_types_are_as_good():
    model = {**RECIPE["model"], "image_shape": np.array([8, 8, 1]), "mixtures": np.int64(3)}
    given = {**RECIPE, "seed": np.int64(3), "batch_size": np.int32(8), "model": model}
    recipe = training.read_recipe(given)
    assert json.loads(json.dumps(recipe)) == recipe
    assert (recipe["seed"], recipe["model"]["image_shape"], recipe["model"]["mixtures"]) == (3, [8, 8, 1], 3)
    with pytest.raises(ValueError, match="a recipe must hold what JSON can"):
        training.read_recipe({**RECIPE, "model": {"levels": {1}}})


def test_a_recipe_may_be_handed_over_as_it_is(data, tmp_path, monkeypatch):
    monkeypatch.setattr("haim_tf.training.whole_run.train_on", lambda images, source, recipe, *rest: recipe)
    expected = training.read_recipe(RECIPE)
    assert training.train(RECIPE, data, tmp_path) == training.train(expected, data, tmp_path) == expected
    with pytest.raises(ValueError, match="a recipe must be a dict, a JSON file or a zoo entry's name"):
        training.train(None, data, tmp_path)


@pytest.mark.parametrize("crop", [3, 10])
def test_crops_that_do_not_fit_are_known_before_step_1(data, tmp_path, crop):
    decoder = {"train": ["decoder_1"], "steps": 3, "learning_rate": 0.01, "crop": crop}
    recipe = training.read_recipe({**RECIPE, "stages": [RECIPE["stages"][0], decoder]})
    with pytest.raises(ValueError, match=f"crop must be a multiple of 2, .* up to 8, got .*'crop': {crop}"):
        training.train(recipe, data, tmp_path / "run", verbose=False)
    assert not (tmp_path / "run").exists()


def test_a_model_that_the_recipe_cannot_have_is_named(data, tmp_path):
    for change in ({"depth": 3}, {"image_shape": None}):
        recipe = training.read_recipe({**RECIPE, "model": {**RECIPE["model"], **change}})
        with pytest.raises(ValueError, match="a recipe's model must be arguments of HierarchicalModel: "):
            training.train(recipe, data, tmp_path / "run", verbose=False)


def test_a_preset_that_could_not_be_written_is_known_before_step_1(data, tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    recipe = training.read_recipe(RECIPE)
    with training.RunFolder(tmp_path / "run", recipe):
        (tmp_path / "run" / "preset").write_text("no folder")
    monkeypatch.setattr(training.stages, "train_stage", lambda *args: pytest.fail("it began"))
    with pytest.raises(ValueError, match="preset exists"):
        training.train(recipe, data, tmp_path / "run", verbose=False)


def test_one_training_at_a_time_in_a_folder(data, tmp_path):
    recipe, folder = training.read_recipe(RECIPE), tmp_path / "run"
    heard, said = os.pipe()
    process = os.fork()
    if not process:
        try:
            with training.RunFolder(folder, recipe):
                os.write(said, b"held")
                signal.pause()
        finally:
            os._exit(1)
    os.close(said)
    assert os.read(heard, 4) == b"held"
    with pytest.raises(ValueError, match="that no other training writes to, got .*run, where one is running"):
        training.train(recipe, data, folder, verbose=False)
    assert not (folder / "data.json").exists()
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    os.close(heard)
    training.RunFolder(folder, recipe).close()
    with training.RunFolder(folder, recipe):
        with pytest.raises(ValueError, match="where one is running"):
            training.RunFolder(folder, recipe)
    training.RunFolder(folder, recipe).close()


def test_a_disk_that_fills_up_in_training_is_one_line(data, tmp_path, full_disk):
    recipe = training.read_recipe(RECIPE)
    with full_disk(20_000), pytest.raises(ValueError, match="cannot write .*checkpoint.npz: .") as caught:
        training.train(recipe, data, tmp_path / "run", verbose=False)
    assert "\n" not in str(caught.value)
    assert not {"checkpoint.npz", "preset"} & set(os.listdir(tmp_path / "run"))
    assert not [name for name in os.listdir(tmp_path / "run") if name.startswith(".")]


def test_a_run_s_folder_may_be_a_link_and_its_data_relative(data, tmp_path, monkeypatch):
    (tmp_path / "far").mkdir()
    (tmp_path / "run").symlink_to("far")
    monkeypatch.chdir(data.parent)
    monkeypatch.setenv("HOME", str(tmp_path))
    recipe = training.read_recipe({**SHORT, "stages": [STEP]})
    training.train(recipe, data.name, "~/run", verbose=False)
    assert (tmp_path / "run").is_symlink() and (tmp_path / "far" / "preset" / "model.weights.h5").exists()
    assert json.loads((tmp_path / "far" / "data.json").read_text())["source"] == str(data)


@pytest.mark.parametrize("source", [None, 3, True, [{}]])
def test_a_recipe_of_another_type(source):
    with pytest.raises(ValueError, match="a recipe must be a dict, a JSON file or a zoo entry's name, got"):
        training.read_recipe(source)


def test_unknown_variant_or_recipe():
    with pytest.raises(ValueError, match="flat"):
        training.read_recipe(RECIPE, variant="flatt")
    with pytest.raises(FileNotFoundError, match="neither a file nor a zoo entry"):
        training.read_recipe("no_such_model")


def test_a_folder_that_holds_something_else_is_left_alone(whole_run, data, tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    recipe = training.read_recipe(RECIPE)
    with pytest.raises(ValueError, match="not a training run"):
        training.train(recipe, data, tmp_path, verbose=False)
    assert os.listdir(tmp_path) == ["precious.txt"]
    folder, _ = whole_run
    with pytest.raises(ValueError, match="another recipe"):
        training.train({**recipe, "seed": 1}, data, folder, verbose=False)
    with pytest.raises(ValueError, match="resume"):
        training.train(recipe, data, folder, resume=False, verbose=False)


def test_a_damaged_checkpoint_is_named(whole_run, data, tmp_path):
    recipe = training.read_recipe(RECIPE)
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    whole = (whole_run[0] / "checkpoint.npz").read_bytes()
    (tmp_path / "checkpoint.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="damaged"):
        training.train(recipe, data, tmp_path, verbose=False)


def test_crops_are_not_for_attention(data, tmp_path):
    level = {**RECIPE["model"]["levels"][0], "decoder": {"width": 8, "blocks": 1, "attention": [0]}}
    model = {**RECIPE["model"], "levels": [level]}
    stage = {"train": ["decoder_1"], "steps": 3, "learning_rate": 0.01, "crop": 4}
    with pytest.raises(ValueError, match="without attention"):
        training.train(
            training.read_recipe({**RECIPE, "model": model, "stages": [stage]}), data, tmp_path / "run"
        )
    assert not (tmp_path / "run").exists()


def test_rare_codes_go_before_networks_learn(data, tmp_path, monkeypatch):
    stages = [{**SHORT["stages"][0], "steps": 2}, SHORT["stages"][1]]
    recipe = training.read_recipe({**SHORT, "stages": stages, "rare_codes_below": 0.9})
    saves, save = [], training.RunFolder.save

    def spy(self, model, stage, step, row=None):
        save(self, model, stage, step, row)
        saves.append((stage, model.codebook_sizes[0]))
        if len(saves) == 4:
            raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(training.RunFolder, "save", spy)
        with pytest.raises(KilledError):
            training.train(recipe, data, tmp_path / "run", verbose=False)
    size = saves[-1][1]
    # Two intervals with all codes, the end of the stage without the rare ones, and on with these.
    assert 2 <= size < 8 and saves == [(0, 8), (0, 8), (1, size), (1, size)]
    model = training.train(recipe, data, tmp_path / "run", verbose=False)
    assert model.codebook_sizes == [size]
    assert haim_tf.load(tmp_path / "run" / "preset").codebook_sizes == [size]


def test_batch_sizes_and_averages_are_a_stage_s_own(data, tmp_path, monkeypatch):
    stages = [
        {"train": ["codes"], **STEP},
        {"train": ["prior"], **STEP, "batch_size": 16, "ema": 0.5},
        {"train": ["decoder_1"], **STEP, "ema": None},
    ]
    seen, compiled = [], []
    batches, compile_ = haim_tf.data.Batches, haim_tf.HierarchicalModel.compile

    def spy(data, batch_size, **kwargs):
        seen.append(batch_size)
        return batches(data, batch_size, **kwargs)

    def spy_compile(self, optimizer, **kwargs):
        compiled.append(optimizer.ema_momentum if optimizer.use_ema else None)
        compile_(self, optimizer, **kwargs)

    monkeypatch.setattr(haim_tf.data, "Batches", spy)
    monkeypatch.setattr(haim_tf.HierarchicalModel, "compile", spy_compile)
    training.train(training.read_recipe({**SHORT, "stages": stages}), data, tmp_path / "run", verbose=False)
    assert seen == [8, 16, 8]
    assert compiled == [None, 0.5, None]
    metadata = json.loads((tmp_path / "run" / "preset" / "metadata.json").read_text())
    assert metadata["training"]["images_seen"] == [8, 16, 8]


@pytest.mark.parametrize("seconds, precision", [(3.0, "float32"), (0.7, "mixed_bfloat16")])
def test_a_precision_that_the_processor_is_slow_at_is_float32_s_turn(
    data, tmp_path, monkeypatch, capsys, seconds, precision
):
    monkeypatch.setattr(processor, "_seconds", {"bfloat16": seconds, "float32": 1.0}.__getitem__)
    processor.quick_precision.cache_clear()
    monkeypatch.setattr(training.outcome, "save_pictures", lambda *arguments: None)
    policies = []
    monkeypatch.setattr(
        training.stages, "train_stage", lambda model, *arguments: policies.append(model.dtype_policy.name)
    )
    recipe = {**SHORT, "precision": "mixed_bfloat16"}
    training.train(training.read_recipe(recipe), data, tmp_path / "run")
    processor.quick_precision.cache_clear()
    assert policies == [precision] * 2
    assert haim_tf.presets.read(tmp_path / "run/preset")[1]["training"]["precision"] == precision
    told = "in float32: this processor is slow at mixed_bfloat16" in capsys.readouterr().err
    assert told == (precision == "float32")


def test_the_learning_rate_rises_then_falls_along_a_cosine(data, tmp_path, monkeypatch):
    losses, rates = haim_tf.HierarchicalModel.losses_and_statistics, []

    def spy(self, *args, training=False, **kwargs):
        if training:
            rates.append(float(self.optimizer.learning_rate))
        return losses(self, *args, training=training, **kwargs)

    monkeypatch.setattr(haim_tf.HierarchicalModel, "losses_and_statistics", spy)
    stages = [{"steps": 9, "learning_rate": 0.02, "warmup": 4}, {"steps": 3, "learning_rate": 0.01}]
    recipe = {**RECIPE, "model": RECIPE["variants"]["flat"]["model"], "stages": stages}
    training.train(training.read_recipe(recipe), data, tmp_path / "run", verbose=False)

    def cosine(peak, steps):
        return [peak * (0.01 + 0.99 * (1 + np.cos(np.pi * i / steps)) / 2) for i in range(steps)]

    expected = [0.0, 0.005, 0.01, 0.015, *cosine(0.02, 5), *cosine(0.01, 3)]
    np.testing.assert_allclose(rates, expected, rtol=1e-5)


def test_an_average_reaches_back_a_tenth_of_the_steps_at_most():
    variable = keras.Variable([0.0])
    optimizer = training.optimizer.AveragingAdam(1.0, use_ema=True, ema_momentum=0.99)
    optimizer.build([variable])
    values, average = [], 0.0
    for step in range(1, 300):
        optimizer.apply([keras.ops.ones((1,))], [variable])
        values.append(float(variable[0]))
        momentum = min(0.99, (1 + step) / (10 + step)) if step > 1 else 0.0
        average = momentum * average + (1 - momentum) * values[-1]
    optimizer.finalize_variable_values([variable])
    np.testing.assert_allclose(float(variable[0]), average, rtol=0.02)
    again = type(optimizer).from_config(optimizer.get_config())
    assert again.get_config()["ema_momentum"] == 0.99


@pytest.mark.parametrize(
    "worse, precision", [("averaged", "float32"), ("last", "float32"), ("averaged", "mixed_float16")]
)
def test_the_better_of_average_and_last_weights_is_kept(data, tmp_path, monkeypatch, worse, precision):
    for module in (training.whole_run, training.outcome, training.stages):
        monkeypatch.setattr(module, "quick_precision", lambda precision: precision)
    figures = training.held_out.HeldOut.figures
    calls = []

    def rigged(self, model):
        calls.append(model.prior.last.bias.numpy().copy())
        found = figures(self, model)
        # The last call of a stage is that of the averaged weights.
        return {name: (len(calls) == 2) == (worse == "averaged") and 2.0 or 1.0 for name in found}

    monkeypatch.setattr(training.held_out.HeldOut, "figures", rigged)
    stage = {"train": ["prior"], "steps": 2, "learning_rate": 0.05}
    changes = {"interval": 2, "ema": 0.9, "precision": precision, "stages": [stage]}
    model = training.train(training.read_recipe({**RECIPE, **changes}), data, tmp_path / "run", verbose=False)
    last, averaged = calls
    assert np.abs(last - averaged).max() > 0
    np.testing.assert_allclose(model.prior.last.bias, last if worse == "averaged" else averaged, rtol=1e-6)


def test_a_class_that_is_only_held_out_is_warned_of(tmp_path, capsys):
    images, labels = np.zeros((24, 8, 8, 1), "uint8"), np.repeat([0, 1], [16, 8])
    np.savez(tmp_path / "sorted.npz", images=images, labels=labels)
    recipe = {**SHORT, "holdout": 8}
    training.train(training.read_recipe(recipe), tmp_path / "sorted.npz", tmp_path / "run")
    told = "warning: the last 8 images of"
    assert told in capsys.readouterr().err
    np.savez(tmp_path / "mixed.npz", images=images, labels=labels[np.arange(24) * 7 % 24])
    training.train(training.read_recipe(recipe), tmp_path / "mixed.npz", tmp_path / "other")
    assert told not in capsys.readouterr().err


def test_a_diverging_run_stops_with_its_last_finite_checkpoint(data, tmp_path):
    stages = [
        {"train": ["codes"], "steps": 2, "learning_rate": 0.01},
        {"train": ["decoder_1"], "steps": 2, "learning_rate": 1e18},
    ]
    recipe = training.read_recipe({**RECIPE, "interval": 2, "ema": None, "clip_norm": None, "stages": stages})
    with pytest.raises(ValueError, match="out of bounds in stage 2, by step 2.*lower learning_rate"):
        training.train(recipe, data, tmp_path / "run", verbose=False)
    assert not (tmp_path / "run" / "preset").exists()
    with np.load(tmp_path / "run" / "checkpoint.npz") as saved:
        assert json.loads(str(saved["meta"]))["position"] == {"stage": 1, "step": 0}
        assert all(np.isfinite(saved[name]).all() for name in saved.files if name != "meta")


def with_names(path, tmp_path, names, labels=None):
    with np.load(path) as saved:
        images, known = saved["images"], saved["labels"]
    np.savez(
        tmp_path / "named.npz", images=images, labels=known if labels is None else labels, class_names=names
    )
    return tmp_path / "named.npz"


@pytest.mark.parametrize(
    "names, labels, message",
    [
        (["a", "b"], 0, "num_classes=3, but .* has 2 classes: a, b"),
        (["a", "b", "c", "d"], 3, "num_classes=3, but .* has 4 classes"),
    ],
)
def test_other_classes_than_the_recipe_s_are_refused_before_step_1(data, tmp_path, names, labels, message):
    source = with_names(data, tmp_path, names, np.full(96, labels))
    with pytest.raises(ValueError, match=message):
        training.train(training.read_recipe(RECIPE), source, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_unconditional_recipe_leaves_labels_out(data, tmp_path):
    model = {**RECIPE["model"], "num_classes": None}
    recipe = training.read_recipe({**SHORT, "model": model, "stages": [STEP]})
    model = training.train(recipe, with_names(data, tmp_path, ["a", "b", "c"]), tmp_path / "run")
    assert model.num_classes is None and model.class_names is None
    assert "holdout_bits_per_dim_total" in rows_of(tmp_path / "run")[0]


def test_a_run_stays_with_its_data(whole_run, data, tmp_path):
    folder, _ = whole_run
    recipe = training.read_recipe(RECIPE)
    with np.load(data) as saved:
        images, labels = saved["images"].copy(), saved["labels"]
    np.savez(tmp_path / "moved.npz", images=images, labels=labels)
    before = (folder / "preset" / "metadata.json").read_bytes()
    training.train(recipe, tmp_path / "moved.npz", folder, verbose=False)
    images[5] = 255 - images[5]
    np.savez(tmp_path / "other.npz", images=images, labels=labels)
    for source in (tmp_path / "other.npz", with_names(data, tmp_path, ["a", "b", "c"])):
        with pytest.raises(ValueError, match="run on other data"):
            training.train(recipe, source, folder, verbose=False)
    assert (folder / "preset" / "metadata.json").read_bytes() == before


@pytest.mark.parametrize("seed", [-1, 3_000_000_000, 1.5, True])
def test_a_seed_that_nothing_can_draw_with_is_refused(seed):
    with pytest.raises(ValueError, match="seed must be an integer in 0..2147483647"):
        training.read_recipe({**RECIPE, "seed": seed})


@pytest.mark.parametrize(
    "change, message",
    [
        ({"stages": [{**RECIPE["stages"][0], "train": ["prio"]}]}, "unknown part 'prio'"),
        (
            {"holdout": 0, "stages": [{**RECIPE["stages"][0], "patience": 1}], "ema": None},
            "holdout must be 1",
        ),
        ({"model": {**RECIPE["model"], "num_classes": "data", "depth": 3}}, "arguments of HierarchicalModel"),
    ],
)
def test_what_is_wrong_is_said_before_data_is_read(data, tmp_path, monkeypatch, change, message):
    monkeypatch.setattr("haim_tf.data.load", lambda *args, **options: pytest.fail("data was read"))
    with pytest.raises(ValueError, match=message):
        training.train({**RECIPE, **change}, data, tmp_path / "run")
    (tmp_path / "other.txt").touch()
    with pytest.raises(ValueError, match="exists and is not a training run"):
        training.train(RECIPE, data, tmp_path)


def test_few_classes_among_the_held_out_images_are_warned_of(tmp_path, capsys):
    images, labels = np.zeros((24, 8, 8, 1), "uint8"), np.repeat([0, 1, 2], 8)
    np.savez(tmp_path / "sorted.npz", images=images, labels=labels)
    recipe = training.read_recipe({**SHORT, "holdout": 4})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.stages, "train_stage", lambda *args: None)
        training.train(recipe, tmp_path / "sorted.npz", tmp_path / "run")
    assert "which are held out, have 1 of the 3 classes: mix the images" in capsys.readouterr().err


def test_the_card_says_of_patience_what_is_so():
    """The best weights of a stage are the run's only where it is the last; "as loaded" is of a preset's."""
    model = training.whole_run._model(training.read_recipe(RECIPE))
    images = ImageData(np.zeros((24, 8, 8, 1), "uint8"), np.zeros(24, "int32"), name="images")
    stages = [{"train": ["codes"], "steps": 2, "learning_rate": 0.01}]
    stages += [
        {"train": [part], "steps": 2, "learning_rate": 0.01, "patience": 1} for part in ("prior", "decoders")
    ]
    recipe = training.read_recipe({**RECIPE, "ema": None, "interval": 2, "stages": stages})

    def told(stage):
        rows = [{"stage": 1, "step": 0, "seconds": 0.0, "holdout_bits_per_dim_total": 3.0}]
        rows += [{**rows[0], "stage": 2}]
        run = SimpleNamespace(
            folder=Path("mine"), rows=rows, best={"stage": stage, "step": 2, "score": 2.0}, recipe=recipe
        )
        return training.outcome.run_metadata(run, recipe, images, model)

    assert "kept" not in told(1)["training"] and "metrics" not in told(1)
    assert told(2)["training"]["kept"] == "the weights of step 2, the best of the held-out images"
    assert [metric["name"] for metric in told(2)["metrics"]] == ["bits/dim before stage 3", "bits/dim after"]


@pytest.mark.parametrize(
    "kind, stages, message",
    [
        (
            "feed_forward",
            [["codes"], ["teachers"]],
            "must train parts that this model has and that can learn",
        ),
        ("end_to_end", [["prior"], ["codes"]], r"must train both of \['autoencoder_1', 'decoder_1'\]"),
    ],
)
def test_stages_that_cannot_train_are_known_before_step_1(data, tmp_path, kind, stages, message):
    level = {**RECIPE["model"]["levels"][0], "auxiliary": {"kind": kind}}
    model = {**RECIPE["model"], "levels": [level]}
    stages = [{"train": train, "steps": 3, "learning_rate": 0.01} for train in stages]
    with pytest.raises(ValueError, match=message):
        training.train({**RECIPE, "model": model, "stages": stages}, data, tmp_path / "run", verbose=False)
    assert not (tmp_path / "run").exists()
