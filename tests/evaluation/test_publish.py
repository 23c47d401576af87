"""`export/publish_preset.py`: what a training leaves becomes a preset whose card says what was measured."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

import haim_tf
from haim_tf import evaluation, presets

SCRIPT = Path(__file__).resolve().parents[2] / "export/publish_preset.py"
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
    "classes": [0, 1],
    "frechet_distance": 3.25,
    "frechet_distance_real": 0.125,
}


@pytest.fixture(scope="module")
def publish():
    from absl import flags

    spec = importlib.util.spec_from_file_location("publish_preset", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module.publish
    for flag in flags.FLAGS.get_flags_for_module(module):
        delattr(flags.FLAGS, flag.name)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model with an optimizer's state, as a `.keras` file; images to measure on; what to say of it."""
    folder = tmp_path_factory.mktemp("trained")
    model = haim_tf.HierarchicalModel(
        image_shape=(4, 4, 1), levels=[], prior=NETWORK, num_classes=2, mixtures=2
    )
    images = np.random.default_rng(0).integers(0, 256, (12, 4, 4, 1), "uint8")
    labels = np.arange(12) % 2
    model.compile()
    model.fit(images, labels, verbose=0)
    model.save(folder / "model.keras")
    np.savez(folder / "val.npz", images=images, labels=labels)
    (folder / "about.json").write_text(json.dumps(ABOUT))
    return folder


def test_from_a_keras_file(publish, trained, tmp_path):
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


def test_the_card_compares_with_a_model_without_codes(publish, trained, tmp_path):
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
        "2 classes trained on 4,000 samples | 0.2500 (50.0% of the 0.5000 of one trained on 10 real",
        "samples of the model without codes, in the features of the latter | 3.250 (of real training",
    ):
        assert text in card, text


def test_samples_as_the_model_samples_and_plain_ones_beside_them(publish, trained, tmp_path):
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
        "samples.png": "Samples, a column a class, seed 3, temperature 0.5, top_p 0.9, none left out.",
        "samples_plain.png": "Samples, a column a class, seed 3, temperature 1, none left out.",
    }
    card = (folder / "README.md").read_text()
    for file, count, asked in (("samples.png", 40, sampling), ("samples_plain.png", 32, PLAIN)):
        images = model.sample(count, [0, 1] * (count // 2), seed=3, **asked)
        haim_tf.data.save_grid(images, tmp_path / "expected.png", columns=2)
        assert (folder / file).read_bytes() == (tmp_path / "expected.png").read_bytes()
        assert f"![{pictures[file]}]({file})" in card
    # A preset that is published again keeps how it samples, and its score says how its samples were drawn.
    (tmp_path / "score.json").write_text(json.dumps({**SCORE, "sampling": model.sampling_defaults}))
    again = publish(folder, tmp_path / "again4", samples=2, score=tmp_path / "score.json")
    assert presets.read(again)[1]["sampling"] == sampling
    assert (
        "trained on 4,000 samples (temperature 0.5, top_p 0.9) | 0.2500" in (again / "README.md").read_text()
    )


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
def test_captions_say_how_a_model_samples(publish, sampling, words):
    assert publish.__globals__["described"](sampling) == words


def test_codes_are_pictured_level_by_level(publish, tmp_path):
    model = haim_tf.load("debug")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (12, *model.image_shape), "uint8")
    np.savez(tmp_path / "val.npz", images=images, labels=np.zeros(12, "int64"))
    folder = publish(presets.find("debug"), tmp_path / "small", data=tmp_path / "val.npz", samples=1)
    assert "reconstructions.png" in (folder / "README.md").read_text()
    with PIL.Image.open(folder / "reconstructions.png") as sheet:
        assert sheet.height > 7 * 16  # The images, and three rows a level.


def test_from_a_run_folder_and_what_is_no_run(publish, trained, tmp_path):
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
    folder = publish(run, tmp_path / "published", about=told, samples=1)
    metadata = presets.read(folder)[1]
    assert metadata["pretrained"] is True  # As the preset itself says.
    assert metadata["training"] == {**training, "command": "haim_tf train"}
    assert metadata["dataset"] == {"name": "dice"} and "evaluation" not in metadata
    with pytest.raises(ValueError, match="published exists"):
        publish(run, tmp_path / "published")
    told.write_text('{"licence": "MIT"}')
    with pytest.raises(ValueError, match="keys among description"):
        publish(run, tmp_path / "other", about=told)
    with pytest.raises(FileNotFoundError, match="neither a training's output folder"):
        publish(tmp_path, tmp_path / "other")


def test_a_disk_that_fills_up_leaves_nothing(publish, trained, tmp_path, monkeypatch):
    def full(images, path, columns=None):
        raise ValueError(f"cannot write {path}: No space left on device")

    monkeypatch.setattr(haim_tf.data, "save_grid", full)
    with pytest.raises(ValueError, match="No space left"):
        publish(trained / "model.keras", tmp_path / "dice4", samples=5)
    assert not list(tmp_path.iterdir())
