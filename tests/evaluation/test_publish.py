"""Publishing: what a training leaves becomes a preset whose card says what was measured."""

import importlib.util
import inspect
import json
import sys
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from absl import flags

import haim_tf
from haim_tf import evaluation, presets
from haim_tf.evaluation import publish_preset as publish
from haim_tf.evaluation.sheets import described

ROOT = Path(__file__).parents[2]
NETWORK = {"width": 4, "blocks": 1, "heads": 1}
ABOUT = {"description": "Noise.", "dataset": {"name": "dice", "terms": "none"}, "limits": ["Only noise."]}

PLAIN = {"temperature": 1.0, "top_p": 1.0, "guidance": 1.0}
SCORE = {
    "accuracy_samples": 0.25,
    "accuracy_real": 0.5,
    "ratio": 0.5,
    "num_samples": 4000,
    "num_train": 10,
    "num_val": 12,
    "num_scored": 300,
    "score_split": "score",
    "classes": [0, 1],
    "frechet_distance": 3.25,
    "frechet_distance_real": 0.125,
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model with an optimizer's state, as a `.keras` file; images to measure on; what to say of it."""
    folder = tmp_path_factory.mktemp("trained")
    model = haim_tf.HierarchicalModel(
        image_shape=(4, 4, 1), levels=[], prior=NETWORK, num_classes=2, mixtures=2
    )
    images = np.random.default_rng(0).integers(0, 256, (12, 4, 4, 1), "uint8")
    labels = np.arange(12) % 2
    model.compile(run_eagerly=True)
    model.fit(images, labels, verbose=0)
    model.save(folder / "model.keras")
    np.savez(folder / "val.npz", images=images, labels=labels)
    (folder / "about.json").write_text(json.dumps(ABOUT))
    return folder


@pytest.fixture
def noise_for_samples(monkeypatch):
    """Samples are noise that depends on all that is asked: where true ones take long and tell no more."""

    def sample(self, num, labels=None, seed=0, temperature=None, top_p=None, guidance=None, **options):
        asked = {"temperature": temperature, "top_p": top_p, "guidance": guidance}
        asked = {name: self.sampling_defaults[name] if x is None else x for name, x in asked.items()}
        count = len(self.networks)
        text = [
            np.round(np.broadcast_to(asked[name], count), 4).tolist() for name in ("temperature", "top_p")
        ]
        text = repr((num, np.asarray(labels).tolist(), seed, text, float(asked["guidance"])))
        rng = np.random.default_rng(zlib.crc32(text.encode()))
        return rng.integers(0, 256, (num, *self.image_shape)).astype("uint8")

    monkeypatch.setattr(haim_tf.HierarchicalModel, "sample", sample)


def test_from_a_keras_file(trained, tmp_path):
    folder = publish(
        trained / "model.keras",
        tmp_path / "dice4",
        precision="float16",
        about=trained / "about.json",
        data=trained / "val.npz",
        samples=5,
    )
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "classes.png",
        "config.json",
        "metadata.json",
        "model.weights.h5",
        "samples.png",
    ]
    model = haim_tf.load(folder)
    metadata = presets.read(folder)[1]
    assert metadata["name"] == "dice4" and metadata["precision"] == "float16" and metadata["pretrained"]
    # The figures are those of the published weights, which are rounded ones.
    report = evaluation.evaluate(model, haim_tf.data.load(trained / "val.npz", "val"))
    assert metadata["evaluation"]["bits_per_dim"] == report["bits_per_dim"]
    for weight in model.prior.weights:
        np.testing.assert_array_equal(weight, np.asarray(weight).astype("float16"))
    card = (folder / "README.md").read_text()
    for text in ("Noise.", "terms: none", "12 images of dice, val", f"{report['bits_per_dim']['total']:.4f}"):
        assert text in card
    assert metadata["sha256"] in card and "samples.png" in card
    assert "copied from" not in card


def test_the_card_compares_with_a_model_without_codes(trained, tmp_path):
    (tmp_path / "score.json").write_text(json.dumps(SCORE))
    folder = publish(
        trained / "model.keras",
        tmp_path / "dice4",
        data=trained / "val.npz",
        samples=2,
        baseline=trained / "model.keras",
        score=tmp_path / "score.json",
        baseline_score=tmp_path / "score.json",
    )
    card = (folder / "README.md").read_text()
    total = presets.read(folder)[1]["evaluation"]["bits_per_dim"]["total"]
    for text in (
        f"without codes ({haim_tf.load(folder).count_params():,} parameters) | {total:.4f} | val | 12 |",
        "the whole bound against it | +0.0% |",
        "2 classes trained on 4,000 samples | 0.2500 ± 0.0250 (50.0% of the 0.5000 ± 0.0289 of one trained "
        "on 10 real images) | score | 300 |",
        "samples of the model without codes, in the features of the latter | 3.250 (of real training images "
        "0.125) | val | 12 |",
    ):
        assert text in card, text


def test_samples_as_the_model_samples_and_plain_ones_beside_them(trained, tmp_path):
    sampling = {"temperature": 0.5, "top_p": [0.9]}
    (tmp_path / "about.json").write_text(json.dumps({**ABOUT, "sampling": sampling}))
    folder = publish(
        trained / "model.keras", tmp_path / "dice4", about=tmp_path / "about.json", seed=3, samples=41
    )
    model = haim_tf.load(folder)
    assert model.sampling_defaults["temperature"] == [0.5]
    assert model.sampling_defaults["top_p"] == pytest.approx([0.9])
    pictures = presets.read(folder)[1]["pictures"]
    assert pictures == {
        "samples.png": "Samples, a column per class, seed 3, temperature 0.5, top_p 0.9, none left out.",
        "samples_plain.png": "Samples, a column per class, seed 3, temperature 1, none left out.",
        "classes.png": "Samples, a row per class (0, 1), seed 3, temperature 0.5, top_p 0.9, none left out.",
    }
    card = (folder / "README.md").read_text()
    for file, labels, columns, asked in (
        ("samples.png", [0, 1] * 20, 2, sampling),
        ("samples_plain.png", [0, 1] * 16, 2, PLAIN),
        ("classes.png", [0] * 8 + [1] * 8, 8, sampling),
    ):
        images = model.sample(len(labels), labels, seed=3, **asked)
        haim_tf.data.save_grid(images, tmp_path / "expected.png", columns=columns)
        assert (folder / file).read_bytes() == (tmp_path / "expected.png").read_bytes()
        assert f"![{pictures[file]}]({file})" in card
    # A preset that is published again keeps how it samples, and its score says how its samples were drawn.
    (tmp_path / "score.json").write_text(json.dumps({**SCORE, "sampling": model.sampling_defaults}))
    chosen = {"split": "train", "images": 3, "samples": 2, "draws": [{"distance": 1.0}]}
    presets.rewrite_metadata(folder, {"sampling_chosen": chosen})
    (tmp_path / "plain.json").write_text(json.dumps(SCORE))
    scores = [tmp_path / "score.json", tmp_path / "plain.json"]
    again = publish(folder, tmp_path / "again4", samples=2, score=scores)
    assert presets.read(again)[1]["sampling"] == sampling
    assert presets.read(again)[1]["sampling_chosen"] == chosen
    card = (again / "README.md").read_text()
    default = card.index("trained on 4,000 samples (temperature 0.5, top_p 0.9) | 0.2500")
    assert default < card.index("trained on 4,000 samples | 0.2500")


def test_classes_that_are_shown_and_guidance(noise_for_samples, tmp_path):
    level = {"downsampling": 2, "codebook_size": 4, "code_dim": 2, "width": 4, "blocks": 1}
    model = haim_tf.HierarchicalModel(
        image_shape=(4, 4, 1),
        levels=[{**level, "decoder": {"width": 4, "blocks": 1}}],
        prior={**NETWORK, "label_dropout": 0.1},
        num_classes=12,
        mixtures=2,
    )
    for weight in model.prior.weights:
        if weight.dtype == "float32":
            weight.assign(np.random.default_rng(0).normal(size=weight.shape))
    model.save(tmp_path / "model.keras")
    told = tmp_path / "about.json"
    names = [f"thing {i}" for i in range(12)]
    told.write_text(
        json.dumps({"shown_classes": [11, 3], "class_names": names, "sampling": {"guidance": 2.0}})
    )
    folder = publish(tmp_path / "model.keras", tmp_path / "things", about=told, samples=1)
    metadata = presets.read(folder)[1]
    assert metadata["shown_classes"] == [11, 3]
    assert metadata["pictures"]["classes.png"] == (
        "Samples, a row per class (thing 11, thing 3), seed 0, temperature 1, guidance 2, none left out."
    )
    assert "under guidance 1, 2, 4, one" in metadata["pictures"]["guidance.png"]
    model = haim_tf.load(folder)
    rows = [model.sample(16, [11] * 8 + [3] * 8, seed=0, guidance=value) for value in (1.0, 2.0, 4.0)]
    assert (rows[0] != rows[2]).any()
    for file, images in (("classes.png", rows[1]), ("guidance.png", np.concatenate(rows))):
        haim_tf.data.save_grid(images, tmp_path / "expected.png", columns=8)
        assert (folder / file).read_bytes() == (tmp_path / "expected.png").read_bytes()
    for wrong in ([12], [], 3, ["thing 3"]):
        told.write_text(json.dumps({"shown_classes": wrong}))
        with pytest.raises(ValueError, match="shown_classes must be labels of the model's 12 classes"):
            publish(folder, tmp_path / "other", about=told)


def test_the_ten_first_classes_are_shown_by_default():
    model = haim_tf.HierarchicalModel((4, 4, 1), [], NETWORK, num_classes=11, mixtures=2)
    sheet, columns, caption = evaluation.sheets.make_sheets(model, 1, 0)["classes.png"]
    assert len(sheet) == 80 and columns == 8 and "(0, 1, 2, 3, 4, 5, 6, 7, 8, 9)" in caption


def test_the_accuracy_of_labels_where_asked(trained, tmp_path):
    folder = publish(
        trained / "model.keras", tmp_path / "dice4", data=trained / "val.npz", samples=1, label_posterior=True
    )
    data = haim_tf.data.load(trained / "val.npz", "val")
    log_probs = evaluation.label_log_probs(haim_tf.load(folder), data.images)
    share = np.mean(log_probs.argmax(axis=1) == data.labels)
    (row,) = presets.read(folder)[1]["metrics"]
    assert row == {
        "name": "accuracy of the label by Bayes' rule from the model's likelihoods",
        "value": f"{share:.4f} ± {np.sqrt(share * (1 - share) / 12):.4f}",
        "split": "val",
        "count": "12",
    }


# The zoo's models without training ---------------------------------------------------------------------


def test_a_configuration_alone_is_a_preset_without_weights(tmp_path):
    zoo = ROOT / "zoo/debug"
    folder = publish(zoo / "config.json", tmp_path / "empty", about=zoo / "about.json")
    assert {path.name for path in folder.iterdir()} == {"README.md", "config.json", "metadata.json"}
    assert (folder / "config.json").read_bytes() == (zoo / "config.json").read_bytes()
    metadata = presets.read(folder)[1]
    assert metadata["pretrained"] is False and metadata["sha256"] is None
    assert "there are no weights, only the configuration" in (folder / "README.md").read_text()
    with pytest.raises(ValueError, match="without weights there is nothing to measure"):
        publish(zoo / "config.json", tmp_path / "other", data="val.npz")
    with pytest.raises(ValueError, match="random weights are for a config.json"):
        publish(zoo, tmp_path / "other", random_weights=True)
    with pytest.raises(ValueError, match="must be a preset's config.json"):
        publish(zoo / "about.json", tmp_path / "other")


def test_the_debug_model_can_be_made_again(noise_for_samples, tmp_path):
    """Its description and its very weights: what the command on its card gives."""
    zoo = ROOT / "zoo/debug"
    folder = publish(
        zoo / "config.json", tmp_path / "debug", about=zoo / "about.json", samples=8, random_weights=True
    )
    again, known = (presets.read(path)[1] for path in (folder, zoo))
    for ours, theirs in zip(haim_tf.load(folder).weights, haim_tf.load(zoo).weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for key in ("pretrained", "parameters", "description", "dataset", "limits", "training"):
        assert again[key] == known[key], key
    assert again["class_names"] == known["class_names"]
    assert "--random_weights" in known["training"]["command"]


@pytest.mark.parametrize("name", ["imagenet128", "imagenet256"])
def test_what_is_told_of_configurations_is_on_their_cards(name):
    zoo = ROOT / "zoo" / name
    told, metadata = json.loads((zoo / "about.json").read_text()), presets.read(zoo)[1]
    assert told.items() <= metadata.items()
    assert told["description"] in (zoo / "README.md").read_text()


@pytest.mark.parametrize("path", sorted(ROOT.glob("zoo/*/about.json")), ids=lambda path: path.parent.name)
def test_what_the_zoo_tells_can_be_published(path):
    told = evaluation.publish.merged({}, path)
    arguments, _ = presets.read(path.parent)
    assert told["description"] and told["dataset"]["terms"] and told["limits"]
    assert all(label in range(arguments["num_classes"]) for label in told.get("shown_classes", ()))
    assert len(told.get("class_names", range(arguments["num_classes"]))) == arguments["num_classes"]


def test_the_script_passes_everything_on(monkeypatch, tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("publish_preset", ROOT / "export/publish_preset.py")
    module = importlib.util.module_from_spec(spec)
    # By which absl tells whose flags are whose.
    monkeypatch.setitem(sys.modules, "publish_preset", module)
    spec.loader.exec_module(module)
    asked = []
    monkeypatch.setattr(evaluation, "publish_preset", lambda *args, **kwargs: asked.append((args, kwargs)))
    try:
        assert {"run", "output", *module.OPTIONS} == set(inspect.signature(publish).parameters)
        flags.FLAGS(["publish_preset", "--run=a", "--output=b", "--num=3", "--label_posterior"])
        module.main(["publish_preset"])
        defaults = {
            name: parameter.default
            for name, parameter in inspect.signature(publish).parameters.items()
            if name in module.OPTIONS
        }
        assert asked == [(("a", "b"), {**defaults, "num": 3, "label_posterior": True})]
        with pytest.raises(SystemExit) as error:
            module.main(["publish_preset", "a"])
        assert error.value.code == 2 and "unexpected argument 'a'" in capsys.readouterr().err
    finally:
        for flag in flags.FLAGS.get_flags_for_module(module):
            delattr(flags.FLAGS, flag.name)
        flags.FLAGS.unparse_flags()


@pytest.mark.parametrize(
    ("sampling", "words"),
    [
        ({"temperature": [1.0, 1.0], "top_p": [1.0, 1.0], "guidance": 1.0}, "temperature 1"),
        (
            {"temperature": [1.0, 1.0], "top_p": [0.95, 0.95], "guidance": 2.5},
            "temperature 1, top_p 0.95, guidance 2.5",
        ),
        (
            {"temperature": [np.float32(0.9), 0.8, 1.0], "top_p": [1.0] * 3, "guidance": 1.0},
            "temperature 0.9, 0.8, 1 (level by level, then the prior)",
        ),
    ],
)
def test_captions_say_how_a_model_samples(sampling, words):
    assert described(sampling) == words


def test_codes_are_pictured_level_by_level(noise_for_samples, tmp_path):
    model = haim_tf.load("debug")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (12, *model.image_shape), "uint8")
    np.savez(tmp_path / "val.npz", images=images, labels=np.zeros(12, "int64"))
    folder = publish(presets.find("debug"), tmp_path / "small", data=tmp_path / "val.npz", samples=1)
    assert "reconstructions.png" in (folder / "README.md").read_text()
    with PIL.Image.open(folder / "reconstructions.png") as sheet:
        assert sheet.height > 7 * 16  # The images, and three rows a level.


def test_from_a_run_folder_and_what_is_no_run(trained, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "recipe.json").write_text("{}")
    (run / "checkpoint.npz").touch()
    with pytest.raises(ValueError, match="is not finished"):
        publish(run, tmp_path / "published")
    import keras

    model = keras.saving.load_model(trained / "model.keras")
    training = {"steps": [1], "hours": 0.1}
    model.save_to_preset(run / "preset", metadata={"training": training, "dataset": {"name": "dice"}})
    told = tmp_path / "about.json"
    told.write_text(json.dumps({"training": {"command": "haim_tf train"}}))
    folder = publish(run, tmp_path / "new" / "published", about=told, samples=1)
    metadata = presets.read(folder)[1]
    assert metadata["pretrained"] is True  # As the preset itself says, which was fitted.
    assert metadata["training"] == {**training, "command": "haim_tf train"}
    assert metadata["dataset"] == {"name": "dice"} and "evaluation" not in metadata
    with pytest.raises(ValueError, match="published exists"):
        publish(run, tmp_path / "new" / "published")
    told.write_text('{"licence": "MIT"}')
    with pytest.raises(ValueError, match="keys among description"):
        publish(run, tmp_path / "other", about=told)
    with pytest.raises(FileNotFoundError, match="neither a training's output folder"):
        publish(tmp_path, tmp_path / "other")


def test_a_disk_that_fills_up_leaves_nothing(trained, tmp_path, monkeypatch):
    def full(images, path, columns=None):
        raise ValueError(f"cannot write {path}: No space left on device")

    monkeypatch.setattr(haim_tf.data, "save_grid", full)
    with pytest.raises(ValueError, match="No space left"):
        publish(trained / "model.keras", tmp_path / "dice4", samples=5)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 3_000_000_000}, "seed must be an integer in"),
        ({"samples": 0}, "samples must be an integer of at least 1"),
        ({"baseline": "other"}, r"the models must be of images of one shape, got \(2, 2, 1\)"),
        ({"baseline": "none"}, "neither a training's output folder"),
        ({"score": "about.json"}, "about.json must be what benchmarks/classification_accuracy_score.py"),
        ({"data": "unlabelled.npz"}, "must have labels"),
        ({"about": "lost.json"}, "lost.json cannot be read as JSON"),
        ({"data": None, "label_posterior": True}, "needs data, and a class-conditional model"),
    ],
)
def test_what_would_fail_later_is_known_before_anything_is_measured(
    trained, tmp_path, monkeypatch, options, message
):
    monkeypatch.chdir(tmp_path)
    np.savez("unlabelled.npz", images=np.zeros((3, 4, 4, 1), "uint8"))
    (tmp_path / "about.json").write_text("{}")
    haim_tf.HierarchicalModel((2, 2, 1), [], NETWORK).save_to_preset("other")
    before = sorted(tmp_path.iterdir())
    for name in ("evaluate", "make_sheets"):
        monkeypatch.setattr(f"haim_tf.evaluation.publish.{name}", None)
    options = {"data": trained / "val.npz", **options}
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        publish(trained / "model.keras", "new/folder/published", **options)
    assert sorted(tmp_path.iterdir()) == before
