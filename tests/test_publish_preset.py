"""`export/publish_preset.py`: what a training leaves becomes a preset whose card says what was measured."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

import haim_tf
from haim_tf import evaluation, presets

SCRIPT = Path(__file__).resolve().parents[1] / "export/publish_preset.py"
NETWORK = {"width": 4, "blocks": 1, "heads": 1}
ABOUT = {"description": "Noise.", "dataset": {"name": "dice", "terms": "none"}, "limits": ["Only noise."]}


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
    score = {
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
    (tmp_path / "score.json").write_text(json.dumps(score))
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
    assert metadata["pretrained"] is False  # As the preset itself says.
    assert metadata["training"] == {**training, "command": "haim_tf train"}
    assert metadata["dataset"] == {"name": "dice"} and "evaluation" not in metadata
    with pytest.raises(ValueError, match="published exists"):
        publish(run, tmp_path / "published")
    told.write_text('{"licence": "MIT"}')
    with pytest.raises(ValueError, match="keys among description"):
        publish(run, tmp_path / "other", about=told)
    with pytest.raises(FileNotFoundError, match="neither a training's output folder"):
        publish(tmp_path, tmp_path / "other")
