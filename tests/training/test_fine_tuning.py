"""Fine-tuning by one call: classes by name, parts that stay, the best weights kept, told in the card."""

import csv
import json
import shutil

import numpy as np
import pytest

import haim_tf
from haim_tf import training
from haim_tf.training import fine_tuning, outcome

CLASSES = ["rust", "moss", "sky"]


class KilledError(Exception):
    pass


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A preset of one small level and five classes."""
    level = {"downsampling": 2, "codebook_size": 8, "code_dim": 2, "width": 4, "blocks": 1}
    model = haim_tf.HierarchicalModel(
        image_shape=(8, 8, 1),
        levels=[{**level, "decoder": {"width": 4, "blocks": 1}}],
        prior={"width": 4, "blocks": 1},
        num_classes=5,
        mixtures=2,
    )
    model.class_names = list("abcde")
    model.sampling_defaults = {"temperature": [0.5, 0.9]}
    folder = tmp_path_factory.mktemp("presets") / "start"
    about = {"pretrained": True, "dataset": {"name": "Noise", "terms": "free"}}
    model.save_to_preset(folder, metadata=about)
    return folder


@pytest.fixture(scope="module")
def pictures():
    """Each class a grey, with stripes."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 80)
    images = np.array([70, 120, 200])[labels][:, None, None, None] + rng.integers(-4, 5, (80, 8, 8, 1))
    images[:, ::3] += 25
    return images.clip(0, 255).astype("uint8"), labels


@pytest.fixture(scope="module")
def data(pictures, tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "stripes.npz"
    np.savez(path, images=pictures[0], labels=pictures[1], class_names=np.array(CLASSES))
    return path


@pytest.fixture(autouse=True, scope="module")
def no_pictures():
    """What they take to compile is more than all the training here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outcome, "save_pictures", lambda *_: None)
        yield


OPTIONS = {"steps": 100, "learning_rate": 0.01, "batch_size": 8, "verbose": False}


@pytest.fixture(scope="module")
def run(start, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fine_tuned") / "run"
    return folder, training.fine_tune(start, data, folder, **OPTIONS)


def rows_of(folder):
    with open(folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def held_out(pictures, count=8, mixed=True):
    rows = np.random.default_rng(0).permutation(len(pictures[0])) if mixed else np.arange(len(pictures[0]))
    return pictures[0][rows[-count:]], pictures[1][rows[-count:]]


def test_it_learns_and_keeps_what_is_frozen(start, run, pictures):
    folder, model = run
    before = haim_tf.load(start, class_names=CLASSES)
    assert model.class_names == CLASSES
    after = model.bits_per_dim(*held_out(pictures)).mean()
    rows = rows_of(folder)
    assert [row["step"] for row in rows] == ["0", "50", "100"]
    figures = [float(row["holdout_bits_per_dim_total"]) for row in rows]
    assert after == pytest.approx(min(figures), abs=1e-4) and after < figures[0] - 0.5
    assert min(figures) == pytest.approx(
        sum(float(rows[np.argmin(figures)][f"holdout_bits_per_dim_{name}"]) for name in ("level_1", "prior")),
        abs=1e-6,
    )
    for name, part in model.parts.items():
        same = all(
            np.array_equal(ours, theirs)
            for ours, theirs in zip(part.weights, before.parts[name].weights, strict=True)
        )
        assert same == name.startswith("autoencoder"), name


def test_the_preset_says_where_it_comes_from(start, run, data):
    folder, model = run
    loaded = haim_tf.load(folder / "preset")
    for ours, theirs in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    metadata = json.loads((folder / "preset/metadata.json").read_text())
    sha256 = haim_tf.presets.read(start)[1]["sha256"]
    told = f"start (sha256 {sha256[:12]}), trained on Noise; terms: free"
    assert metadata["training"]["fine-tuned from"] == told
    assert metadata["sampling"] == {"temperature": [0.5, 0.9]}
    assert metadata["dataset"] == {"name": str(data)} and metadata["pretrained"]
    assert metadata["training"]["steps"] == [100] and metadata["class_names"] == CLASSES
    before, after = (row["value"] for row in metadata["metrics"])
    assert after < before
    card = (folder / "preset/README.md").read_text()
    assert "fine-tuned from: start" in card and "| bits/dim as loaded |" in card and "0 rust, 1 moss" in card


SHORT = {**OPTIONS, "steps": 2}


@pytest.fixture
def each_step(eagerly, monkeypatch):
    """The model is asked after each step."""
    monkeypatch.setattr(fine_tuning, "INTERVAL", 1)


RUINOUS = {**OPTIONS, "learning_rate": 3.0, "steps": 3}


def test_nothing_worse_than_as_loaded_is_kept(each_step, run, data, tmp_path, pictures):
    """At a rate that ruins the model at once: training ends early, with the weights that it began with."""
    model = training.fine_tune(run[0] / "preset", data, tmp_path / "run", **RUINOUS, patience=2)
    rows = rows_of(tmp_path / "run")
    figures = [float(row["holdout_bits_per_dim_total"]) for row in rows]
    assert len(rows) == 3 and figures[0] == min(figures)
    assert model.bits_per_dim(*held_out(pictures)).mean() == pytest.approx(figures[0], abs=1e-4)
    for ours, theirs in zip(model.get_weights(), run[1].get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    metadata = json.loads((tmp_path / "run/preset/metadata.json").read_text())
    assert "copied from" in metadata["training"] and metadata["dataset"]["name"] == str(data)
    assert metadata["metrics"][0]["value"] == metadata["metrics"][1]["value"]


@pytest.mark.parametrize("stop_after", [1, 2])
def test_an_interrupted_run_goes_on(each_step, start, data, tmp_path, monkeypatch, stop_after):
    whole = training.fine_tune(start, data, tmp_path / "whole", **SHORT)
    saves, save = [], training.RunFolder.save

    def save_then_die(self, *arguments):
        save(self, *arguments)
        saves.append(arguments[1:3])
        if len(saves) == stop_after:
            raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(training.RunFolder, "save", save_then_die)
        with pytest.raises(KilledError):
            training.fine_tune(start, data, tmp_path / "run", **SHORT)
    model = training.fine_tune(start, data, tmp_path / "run", **SHORT)
    for ours, theirs in zip(model.weights, whole.weights, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5, err_msg=ours.path)
    assert len(rows_of(tmp_path / "run")) == 3


def test_a_run_that_ended_early_is_not_gone_on_with(each_step, run, data, tmp_path, monkeypatch):
    """Killed between its last step and its end."""
    options = {**RUINOUS, "patience": 1}
    with monkeypatch.context() as patch:
        patch.setattr(training.RunFolder, "restore_best", lambda *_: (_ for _ in ()).throw(KilledError()))
        with pytest.raises(KilledError):
            training.fine_tune(run[0] / "preset", data, tmp_path / "run", **options)
    training.fine_tune(run[0] / "preset", data, tmp_path / "run", **options)
    assert [row["step"] for row in rows_of(tmp_path / "run")] == ["0", "1"]


def test_another_preset_is_another_run(start, run, data, tmp_path):
    other = haim_tf.load(start)
    other.prior.last.bias.assign(other.prior.last.bias + 1)
    preset = tmp_path / "other"
    other.save_to_preset(preset)
    with pytest.raises(ValueError, match="another recipe"):
        training.fine_tune(preset, data, run[0], **OPTIONS)


def test_the_same_classes_keep_their_embedding(eagerly, start, pictures, tmp_path):
    names = list("abcde")
    np.savez(tmp_path / "data.npz", images=pictures[0], labels=pictures[1], class_names=np.array(names))
    model = training.fine_tune(start, tmp_path / "data.npz", tmp_path / "run", smoke=True, verbose=False)
    recipe = json.loads((tmp_path / "run/recipe.json").read_text())
    assert recipe["stages"][0]["steps"] == 2 and model.class_names == names
    table, own = model.prior.embed_label.embeddings, haim_tf.load(start).prior.embed_label.embeddings
    unused = np.setdiff1d(np.arange(5), pictures[1])
    np.testing.assert_array_equal(np.asarray(table)[unused], np.asarray(own)[unused])


def test_pictures_without_classes_are_one_class(eagerly, start, pictures, tmp_path):
    np.save(tmp_path / "boats.npy", pictures[0])
    model = training.fine_tune(start, tmp_path / "boats.npy", tmp_path / "run", smoke=True, verbose=False)
    assert model.class_names == ["boats"] and haim_tf.load(tmp_path / "run/preset").class_names == ["boats"]


def test_codes_may_be_trained_and_those_left_behind_are_warned_of(eagerly, start, data, tmp_path, capsys):
    options = {**OPTIONS, "smoke": True, "verbose": True}
    training.fine_tune(start, data, tmp_path / "all", freeze=[], **options)
    assert "warning" not in capsys.readouterr().err
    assert rows_of(tmp_path / "all")[-1]["holdout_bits_per_dim_prior"]
    training.fine_tune(start, data, tmp_path / "codes", freeze=["decoders", "prior"], **options)
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert len(errors) == 1 and "codes of level 1 are trained, and decoder_1 and prior" in errors[0]
    assert rows_of(tmp_path / "codes")[-1]["holdout_bits_per_dim_total"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"freeze": ["codes", "decoders", "prior"]}, "freeze must leave a part to train"),
        ({"freeze": ["code"]}, "unknown part 'code'"),
        ({"holdout": 80}, "holdout must leave images"),
        ({"holdout": 0}, "a stage with patience must have held-out images"),
        ({"patience": 0}, "stage 1: patience must be"),
        ({"steps": 0}, "steps must be"),
        ({"learning_rate": 0}, "learning_rate must be"),
        ({"strategy": "multi_worker"}, "TF_CONFIG"),
    ],
)
def test_what_cannot_be_is_named_before_step_1(start, data, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        training.fine_tune(start, data, tmp_path / "run", **{**OPTIONS, **options})
    assert not (tmp_path / "run").exists()


def test_a_preset_without_weights_cannot_be_fine_tuned(start, data, tmp_path):
    haim_tf.load(start).save_to_preset(tmp_path / "bare", weights=False)
    with pytest.raises(FileNotFoundError, match="there are no weights"):
        training.fine_tune(tmp_path / "bare", data, tmp_path / "run", **OPTIONS)


def test_pictures_sorted_by_class_are_mixed_before_some_are_held_out(start, pictures, data, tmp_path):
    order = np.argsort(pictures[1], kind="stable")
    names = np.array(CLASSES)
    np.savez(tmp_path / "sorted.npz", images=pictures[0][order], labels=pictures[1][order], class_names=names)
    seen = []

    def kept(images, source, recipe, *rest):
        seen.append(images.split_off(recipe["holdout"]))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fine_tuning, "train_on", kept)
        training.fine_tune(start, tmp_path / "sorted.npz", tmp_path / "run", **OPTIONS)
    ((most, rest),) = seen
    assert set(most.labels) == {0, 1, 2} and len(set(rest.labels)) > 1
    for part in (most, rest):  # Each picture has kept its label.
        greys = np.asarray(part.images[:]).mean((1, 2, 3))
        assert (np.digitize(greys, [110, 180]) == part.labels).all()


def test_a_few_pictures_are_enough_to_try_it(start, pictures, tmp_path):
    np.savez(tmp_path / "few.npz", images=pictures[0][:3], labels=[0, 1, 1])
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fine_tuning, "train_on", lambda images, source, recipe, *rest: seen.append(recipe))
        training.fine_tune(start, tmp_path / "few.npz", tmp_path / "run", smoke=True, verbose=False)
    assert seen[0]["holdout"] == 2


def test_patience_in_a_recipe(eagerly, start, pictures, data, tmp_path):
    """Any stage may have it; averages may not be had with it."""
    model = haim_tf.load(start, class_names=CLASSES).arguments
    stages = [{"train": ["codes"], "steps": 4, "learning_rate": 0.01}]
    stages.append({"train": ["decoders", "prior"], "steps": 8, "learning_rate": 5.0, "patience": 1})
    recipe = {"model": model, "batch_size": 8, "holdout": 8, "interval": 2, "stages": stages}
    trained = training.train(training.read_recipe(recipe), data, tmp_path / "run", verbose=False)
    rows = rows_of(tmp_path / "run")
    assert [(row["stage"], row["step"]) for row in rows] == [("0", "2"), ("0", "4"), ("1", "0"), ("1", "2")]
    assert trained.bits_per_dim(*held_out(pictures, mixed=False)).mean() == pytest.approx(
        float(rows[2]["holdout_bits_per_dim_total"]), abs=1e-4
    )
    with pytest.raises(ValueError, match="patience and ema"):
        training.read_recipe({**recipe, "ema": 0.9})


def test_killed_as_patience_begins_a_run_goes_on(eagerly, start, data, tmp_path, monkeypatch):
    """Between the best weights, as they were, and the checkpoint with the row that they are of."""
    model = haim_tf.load(start, class_names=CLASSES).arguments
    stages = [{"train": ["codes"], "steps": 2, "learning_rate": 0.01}]
    stages.append({"train": ["prior"], "steps": 2, "learning_rate": 0.01, "patience": 2})
    recipe = {"model": model, "batch_size": 8, "holdout": 8, "interval": 2, "stages": stages}
    save_best = training.run_folder.RunFolder.save_best

    def killed(*arguments):
        save_best(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training.run_folder.RunFolder, "save_best", killed)
        training.train(training.read_recipe(recipe), data, tmp_path / "run", verbose=False)
    training.train(training.read_recipe(recipe), data, tmp_path / "run", verbose=False)
    assert [(row["stage"], row["step"]) for row in rows_of(tmp_path / "run")] == [
        ("0", "2"),
        ("1", "0"),
        ("1", "2"),
    ]


def test_labels_without_names_stand_for_the_preset_s_classes_and_that_is_said(start, tmp_path, capsys):
    names = haim_tf.load(start).class_names
    labels = np.arange(24) % len(names)
    np.savez(tmp_path / "numbers.npz", images=np.zeros((24, 16, 16, 3), "uint8"), labels=labels)
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fine_tuning, "train_on", lambda images, *rest: seen.append(images))
        training.fine_tune(start, tmp_path / "numbers.npz", tmp_path / "run", split="all", verbose=False)
    assert seen[0].class_names == names
    assert "has no class names: labels stand for each other by their numbers" in capsys.readouterr().err


def test_a_recipe_of_another_model_than_its_preset_is_refused(start, data, tmp_path):
    model = haim_tf.load(start, num_classes=3)
    recipe = {
        "from": {"model": str(start), "origin": model.origin, "class_names": None, "sampling": None},
        "model": {**model.arguments, "prior": {"width": 8, "blocks": 1}},
        "interval": 2,
        "stages": [{"train": ["prior"], "steps": 2, "learning_rate": 0.001}],
    }
    with pytest.raises(ValueError, match=f"the recipe's model must be that of {start}, got another"):
        training.train(training.read_recipe(recipe), data, tmp_path / "run")


def test_a_run_goes_on_where_its_preset_has_moved(start, data, tmp_path, each_step, monkeypatch):
    shutil.copytree(start, tmp_path / "start")
    training.fine_tune(tmp_path / "start", data, tmp_path / "run", **SHORT)
    (tmp_path / "start").rename(tmp_path / "moved")
    training.fine_tune(tmp_path / "moved", data, tmp_path / "run", **SHORT)
    recipe = json.loads((tmp_path / "run/recipe.json").read_text())
    assert recipe["from"]["model"] == str(tmp_path / "moved")
    with pytest.raises(ValueError, match="holds the run of another recipe"):
        training.fine_tune("debug", data, tmp_path / "run", **SHORT)


def test_its_recipe_is_not_for_other_classes(run, pictures, tmp_path):
    others = np.array([*reversed(CLASSES)])
    np.savez(tmp_path / "other.npz", images=pictures[0], labels=pictures[1], class_names=others)
    with pytest.raises(ValueError, match="fine-tunes a model on the classes rust, moss, sky, but .* has sky"):
        training.train(run[0] / "recipe.json", tmp_path / "other.npz", tmp_path / "run", verbose=False)
    assert not (tmp_path / "run").exists()
