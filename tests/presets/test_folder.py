"""Presets: saving and loading keeps everything, the zoo lists, and every damage is one clear error."""

import hashlib
import json
import os
import shutil
import warnings
from functools import partial
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

import haim_tf
from haim_tf import presets
from haim_tf.presets import weights_file

LEVEL = {
    "downsampling": 2,
    "codebook_size": 8,
    "code_dim": 2,
    "width": 4,
    "blocks": 1,
    "decoder": {"width": 4, "blocks": 1, "heads": 1, "condition_width": 4, "condition_blocks": 1},
}


def tiny_model(num_classes=3, **arguments):
    defaults = {
        "image_shape": (8, 8, 1),
        "levels": [LEVEL],
        "prior": {"width": 4, "blocks": 1, "heads": 1, "dropout": 0.1},
        "mixtures": 2,
    }
    return haim_tf.HierarchicalModel(**{**defaults, **arguments}, num_classes=num_classes)


def images_of(model, count=4):
    return np.random.default_rng(0).integers(0, 256, (count, *model.image_shape), "uint8")


def assert_same_weights(model, other):
    for ours, theirs in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    model = tiny_model()
    model.class_names = ["a", "b", "c"]
    # Trained a little: an optimizer is there, and codebook and moving averages hold something.
    model.compile(run_eagerly=True)
    model.fit(images_of(model, 8), np.arange(8) % 3, batch_size=4, verbose=0)
    return model


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("presets") / "saved"
    model.save_to_preset(folder, metadata={"pretrained": True})
    return folder


@pytest.fixture
def preset(saved, tmp_path):
    """A copy of the saved preset to be damaged."""
    return shutil.copytree(saved, tmp_path / "preset")


def edit_json(path, **changes):
    content = json.loads(path.read_text())
    content.update(changes)
    path.write_text(json.dumps(content))


def rewrite_checksum(folder):
    digest = hashlib.sha256((folder / presets.WEIGHTS).read_bytes()).hexdigest()
    edit_json(folder / presets.METADATA, sha256=digest)


# Round trip ---------------------------------------------------------------------------------


def test_round_trip_keeps_every_variable_and_the_class_names(model, saved):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        loaded = haim_tf.load(saved, weights=True)
    assert_same_weights(model, loaded)
    assert loaded.class_names == ["a", "b", "c"]
    assert not loaded.compiled
    images = images_of(model)
    np.testing.assert_allclose(loaded.log_prob(images, 1), model.log_prob(images, 1), rtol=1e-6)


def test_files_of_a_preset(model, saved):
    assert {path.name for path in saved.iterdir()} == {
        "config.json",
        "model.weights.h5",
        "metadata.json",
        "README.md",
    }
    assert [path.name for path in saved.parent.iterdir()] == ["saved"]
    config = json.loads((saved / "config.json").read_text())
    assert config["class_name"] == "HierarchicalModel"
    assert set(config["config"]) == {
        "image_shape",
        "levels",
        "prior",
        "num_classes",
        "pixel_likelihood",
        "mixtures",
    }
    metadata = json.loads((saved / "metadata.json").read_text())
    assert metadata["sha256"] == hashlib.sha256((saved / "model.weights.h5").read_bytes()).hexdigest()
    assert (metadata["name"], metadata["pretrained"], metadata["format_version"]) == ("saved", True, 1)
    assert (metadata["keras_version"], metadata["haim_tf_version"]) == (
        keras.__version__,
        haim_tf.__version__,
    )
    assert set(metadata["parameters_by_part"]) == {"autoencoder_1", "decoder_1", "prior"}
    assert metadata["parameters"] == sum(w.size for w in map(np.asarray, model.get_weights()))


def test_keras_itself_reads_the_weights_file(model, saved):
    fresh = tiny_model()
    fresh.load_weights(saved / "model.weights.h5")
    assert_same_weights(model, fresh)


def test_float16_refuses_what_does_not_fit_and_leaves_nothing(tmp_path):
    model = tiny_model()
    model.prior.hidden.bias.assign(np.full(4, 1e5, "float32"))
    with pytest.raises(ValueError, match="prior/hidden/bias does not fit float16"):
        model.save_to_preset(tmp_path / "new", precision="float16")
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="precision must be"):
        model.save_to_preset(tmp_path / "new", precision="int8")


# Saving ---------------------------------------------------------------------------------


def test_existing_folder_is_kept_unless_overwritten(model, preset):
    (preset / "recipe.json").write_text("{}")
    (preset / "pictures").mkdir()
    before = (preset / "metadata.json").read_text()
    with pytest.raises(ValueError, match="exists: name another folder"):
        model.save_to_preset(preset)
    assert (preset / "metadata.json").read_text() == before
    model.save_to_preset(preset, metadata={"name": "other"}, overwrite=True)
    assert json.loads((preset / "metadata.json").read_text())["name"] == "other"
    assert (preset / "recipe.json").read_text() == "{}" and (preset / "pictures").is_dir()
    assert [path.name for path in preset.parent.iterdir()] == ["preset"]
    haim_tf.load(preset)
    model.save_to_preset(preset, overwrite=True, weights=False)
    assert not (preset / "model.weights.h5").exists()
    with pytest.warns(UserWarning, match="RANDOM"):
        haim_tf.load(preset)


def test_saving_is_all_or_nothing(model, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"metadata.json cannot be written as JSON"):
        model.save_to_preset(tmp_path / "new", metadata={"training": {"cost": float("nan")}})
    with pytest.raises(ValueError, match="class_names must be 3 names"):
        model.save_to_preset(tmp_path / "new", metadata={"class_names": ["a"]})
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        model.save_to_preset(tmp_path / "missing" / "new")

    def full_disk(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(weights_file, "write", full_disk)
    with pytest.raises(ValueError, match="cannot write .*new: No space left on device"):
        model.save_to_preset(tmp_path / "new")
    assert not list(tmp_path.iterdir())


def test_a_preset_whose_successor_cannot_take_its_place_is_back(model, preset, monkeypatch):
    before = {path.name: path.read_bytes() for path in preset.iterdir()}
    rename = Path.rename

    def fail(self, target):
        if target == preset and not self.name.endswith(".replaced"):
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(ValueError, match="cannot write .*preset: Input/output error"):
        model.save_to_preset(preset, overwrite=True)
    assert {path.name: path.read_bytes() for path in preset.iterdir()} == before
    assert os.listdir(preset.parent) == [preset.name]


def test_saved_folder_is_as_readable_as_any_other(saved, tmp_path):
    (tmp_path / "plain").mkdir()
    assert saved.stat().st_mode | os.umask(os.umask(0)) | 0o022 == (tmp_path / "plain").stat().st_mode | 0o022


# The zoo ---------------------------------------------------------------------------------


def test_debug_loads_as_it_was_saved():
    """Figures from the day that the weights were written: the file format and the model still agree."""
    model = haim_tf.load("debug", weights=True)
    bits = model.bits_per_dim(images_of(model, 2), labels=[3, 8], per_level=True)
    np.testing.assert_allclose(bits["level_1"], [11.11063, 11.266663], rtol=1e-4)
    np.testing.assert_allclose(bits["level_2"], [0.33336636, 0.33282489], rtol=1e-4)
    np.testing.assert_allclose(bits["prior"], [0.083172925, 0.082908951], rtol=1e-4)
    assert model.class_names[3] == "three"


def test_debug_is_marked_as_random_and_small():
    folder = presets.find("debug")
    _, metadata = presets.read(folder)
    assert metadata["pretrained"] is False
    assert "not trained" in (folder / "README.md").read_text()
    assert (folder / "model.weights.h5").stat().st_size < 100_000


def test_a_preset_without_weights_says_so_loudly(model, tmp_path):
    model.save_to_preset(tmp_path / "bare", weights=False)
    assert not (tmp_path / "bare" / presets.WEIGHTS).exists()
    assert "not pretrained" in (tmp_path / "bare" / presets.CARD).read_text()
    with pytest.warns(UserWarning, match="RANDOM"):
        haim_tf.load(str(tmp_path / "bare"))
    with pytest.raises(FileNotFoundError, match="no weights"):
        haim_tf.load(str(tmp_path / "bare"), weights=True)


@pytest.mark.parametrize("name", ["imagenet128", "imagenet256"])
def test_models_at_the_papers_scale_are_listed_as_not_pretrained(name):
    assert name in haim_tf.list_models(pretrained=False)
    with pytest.raises(FileNotFoundError, match="no weights"):
        haim_tf.load(name, weights=True)


@pytest.mark.slow(reason="takes a training step of the two largest models")
@pytest.mark.parametrize("name", ["imagenet128", "imagenet256"])
def test_models_at_the_papers_scale_train(name):
    with pytest.warns(UserWarning, match="RANDOM"):
        model = haim_tf.load(name)
    assert model.count_params() == presets.read(presets.find(name))[1]["parameters"]
    model.compile()
    history = model.fit(images_of(model, 1), np.zeros(1, "int32"), verbose=0).history
    assert np.isfinite(history["loss"]).all()


@pytest.mark.parametrize("name", haim_tf.list_models(pretrained=True))
def test_every_trained_model_has_what_a_card_needs(name):
    folder = presets.find(name)
    _, metadata = presets.read(folder)
    assert {"dataset", "training", "evaluation"} <= set(metadata)
    assert metadata["dataset"]["terms"] and metadata["training"]["command"]
    for picture in metadata.get("pictures", {"samples.png": ""}):
        assert (folder / picture).is_file()


def test_list_models(saved, tmp_path, monkeypatch):
    for name in ("trained", "without_weights", "untrained"):
        shutil.copytree(saved, tmp_path / name)
    (tmp_path / "without_weights" / "model.weights.h5").unlink()
    edit_json(tmp_path / "untrained" / "metadata.json", pretrained=False)
    (tmp_path / "no_model").mkdir()
    assert "debug" in haim_tf.list_models()
    monkeypatch.setattr(presets.folder, "zoo", lambda: tmp_path)
    assert haim_tf.list_models() == ["trained", "untrained", "without_weights"]
    assert haim_tf.list_models("*with*") == ["without_weights"]
    assert haim_tf.list_models(pretrained=True) == ["trained"]
    assert haim_tf.list_models(pretrained=False) == ["untrained", "without_weights"]


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("debgu", ValueError, "there is no model 'debgu': did you mean 'debug'.*a preset folder"),
        ("qqq", ValueError, "there is no model 'qqq': the models are .*debug"),
        ("./debgu", FileNotFoundError, "there is no preset folder './debgu'"),
        ("", ValueError, "there is no model ''"),
        (3, ValueError, "a name or a preset folder, got 3"),
    ],
)
def test_unknown_names(name, error, message):
    with pytest.raises(error, match=message):
        haim_tf.load(name)


# Weights ---------------------------------------------------------------------------------


def test_missing_weights(preset):
    (preset / "model.weights.h5").unlink()
    with pytest.warns(UserWarning, match="RANDOM"):
        haim_tf.load(preset)
    with pytest.raises(FileNotFoundError, match="there are no weights .*model.weights.h5"):
        haim_tf.load(preset, weights=True)
    with pytest.raises(ValueError, match="weights must be"):
        haim_tf.load(preset, weights="yes")


def test_random_weights_where_asked(model, preset):
    (preset / "model.weights.h5").write_text("not even read")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        loaded = haim_tf.load(preset, weights=False)
    assert not np.array_equal(loaded.prior.first.kernel_above, model.prior.first.kernel_above)


def flip_byte(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "damage",
    [
        flip_byte,
        lambda path: path.write_bytes(path.read_bytes()[:-100]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"a page that says 404"),
    ],
)
def test_damaged_weights(preset, damage):
    damage(preset / "model.weights.h5")
    with pytest.raises(ValueError, match="damaged, or not the file that belongs here: its sha256"):
        haim_tf.load(preset)


def delete_variable(path):
    with h5py.File(path, "a") as file:
        del file["decoders/pixel_cnn/hidden/vars/1"]


def add_variable(path):
    with h5py.File(path, "a") as file:
        file["decoders/pixel_cnn_1/hidden/vars/0"] = np.zeros(3)


def reshape_variable(path):
    with h5py.File(path, "a") as file:
        del file["decoders/pixel_cnn/hidden/vars/1"]
        file["decoders/pixel_cnn/hidden/vars/1"] = np.zeros(7, "float32")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (delete_variable, r"decoders/pixel_cnn/hidden/vars/1 is missing in the file and \(4,\)"),
        (add_variable, r"decoders/pixel_cnn_1/hidden/vars/0 is \(3,\) in the file and unknown to the model"),
        (reshape_variable, r"decoders/pixel_cnn/hidden/vars/1 is \(7,\) in the file and \(4,\)"),
        (lambda path: path.write_bytes(b"a page that says 404"), "it cannot be read as HDF5"),
    ],
)
def test_weights_that_do_not_fit_the_configuration(preset, damage, message):
    damage(preset / "model.weights.h5")
    rewrite_checksum(preset)
    with pytest.raises(ValueError, match=f"does not fit its config.json: .*{message}"):
        haim_tf.load(preset)


def test_weights_of_another_configuration(preset):
    config = json.loads((preset / "config.json").read_text())
    config["config"]["prior"]["blocks"] = 2
    (preset / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="block_1.*is missing in the file"):
        haim_tf.load(preset)


# Other numbers of classes ---------------------------------------------------------------------------------


def test_other_number_of_classes_keeps_all_but_the_class_embedding(model, saved):
    loaded = haim_tf.load(saved, num_classes=5)
    assert loaded.num_classes == 5 and loaded.class_names is None
    for ours, theirs in zip(model.weights, loaded.weights, strict=True):
        if "embed_label" in ours.path:
            assert theirs.shape == (5, ours.shape[1])
        else:
            np.testing.assert_array_equal(ours, theirs)
    assert haim_tf.load(saved, num_classes=3).class_names == ["a", "b", "c"]


def test_classes_that_the_preset_knows_keep_their_rows(model, saved):
    loaded = haim_tf.load(saved, class_names=["d", "C", "a"])
    old, new = (np.asarray(m.prior.embed_label.embeddings) for m in (model, loaded))
    np.testing.assert_array_equal(new[1:], old[[2, 0]])
    np.testing.assert_allclose(new[0], old.mean(0), rtol=1e-6)


def test_unconditional_preset_becomes_conditional(tmp_path):
    model = tiny_model(num_classes=None)
    model.save_to_preset(tmp_path / "new", metadata={"class_names": ["of", "the", "data"]})
    loaded = haim_tf.load(tmp_path / "new", num_classes=2)
    ours = {v.path.split("/", 1)[1]: v for v in model.prior.weights}
    theirs = {v.path.split("/", 1)[1]: v for v in loaded.prior.weights}
    assert set(theirs) - set(ours) == {"prior/embed_label/embeddings", "prior/block_0/from_vector/kernel"}
    for name, value in ours.items():
        np.testing.assert_array_equal(value, theirs[name])
    assert haim_tf.load(tmp_path / "new").class_names is None
    assert not np.asarray(theirs["prior/embed_label/embeddings"]).any()  # So that nothing changes at first.


def test_misfit_is_found_with_another_number_of_classes(preset):
    delete_variable(preset / "model.weights.h5")
    rewrite_checksum(preset)
    with pytest.raises(ValueError, match="decoders/pixel_cnn/hidden/vars/1 is missing"):
        haim_tf.load(preset, num_classes=5)


@pytest.mark.parametrize("num_classes", [0, -1, 2.0, "3"])
def test_wrong_number_of_classes(saved, num_classes):
    with pytest.raises(ValueError, match="num_classes must be an integer of at least 1"):
        haim_tf.load(saved, num_classes=num_classes)


# Damaged presets ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["config.json", "metadata.json"])
def test_damaged_json(preset, name):
    path = preset / name
    for text in ("{", "\x00"):
        path.write_text(text)
        with pytest.raises(ValueError, match=f"{name} is damaged or no JSON"):
            haim_tf.load(preset)
    path.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ValueError, match=f"{name} is damaged or no JSON"):
        haim_tf.load(preset)
    path.write_text("[1]")
    with pytest.raises(ValueError, match=f"{name} must hold a JSON object"):
        haim_tf.load(preset)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=f"is no preset folder: it has no {name}"):
        haim_tf.load(preset)


@pytest.mark.parametrize("version", [None, 0, 2, "1"])
def test_other_format_version(preset, version):
    edit_json(preset / "metadata.json", format_version=version)
    with pytest.raises(ValueError, match=f"has the preset format {version!r}; .* reads format 1"):
        haim_tf.load(preset)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_names": 0.5}, "must have a list as class_names, got 0.5"),
        ({"class_names": "abc"}, "must have a list as class_names, got 'abc'"),
        ({"class_names": ["a", "b"]}, r"must have 3 texts as class_names, got \['a', 'b'\]"),
        ({"class_names": ["a", "b", None]}, r"must have 3 texts as class_names, got \['a', 'b', None\]"),
        ({"dataset": ["a"]}, r"must have an object as dataset, got \['a'\]"),
        ({"sampling": 3}, "must have an object as sampling, got 3"),
        ({"sampling": {"temperature": "0.9"}}, "does not fit the model: temperature must be one number or"),
        ({"sha256": 7}, "must have a text as sha256, got 7"),
        ({"name": {}}, "must have a text as name, got {}"),
        ({"pictures": ["a.png"]}, r"must have an object as pictures, got \['a.png'\]"),
        ({"metrics": {"a": 1}}, "must have a list as metrics, got {'a': 1}"),
        ({"license": 2}, "must have a text as license, got 2"),
    ],
)
def test_metadata_of_other_kinds(preset, changes, message):
    edit_json(preset / "metadata.json", **changes)
    with pytest.raises(ValueError, match=f"metadata.json {message}"):
        presets.read(preset)


def test_metadata_that_would_not_load_are_not_written(preset):
    before = (preset / "metadata.json").read_bytes()
    with pytest.raises(ValueError, match="does not fit the model: temperature must be one number or"):
        presets.rewrite_metadata(preset, {"sampling": {"temperature": [1] * 7}})
    assert (preset / "metadata.json").read_bytes() == before


def test_what_could_not_be_read_again_is_not_written(tmp_path):
    model = haim_tf.HierarchicalModel((4, 4, 1), [], {"width": 4, "blocks": 1}, num_classes=1)
    for metadata in ({"name": 3}, {"dataset": "mine"}, {"class_names": [7]}):
        with pytest.raises(ValueError, match="metadata.json must have|must be a list of texts"):
            model.save_to_preset(tmp_path / "new", metadata=metadata)
    assert not list(tmp_path.iterdir())


def test_missing_checksum(preset):
    edit_json(preset / "metadata.json", sha256=None)
    with pytest.raises(ValueError, match="metadata.json says None"):
        haim_tf.load(preset)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_name": "Other"}, "must hold the class_name 'HierarchicalModel'"),
        ({"config": None}, "must hold the class_name"),
        ({"config": {"image_shape": [8, 8, 1]}}, "does not describe a model"),
        ({"config": {"image_shape": [8, 8], "levels": [], "prior": {}}}, "does not describe a model"),
    ],
)
def test_configuration_of_something_else(preset, changes, message):
    edit_json(preset / "config.json", **changes)
    edit_json(preset / "metadata.json", class_names=None)
    with pytest.raises(ValueError, match=message):
        haim_tf.load(preset)


def test_names_of_classes_that_the_model_does_not_have(preset):
    config = json.loads((preset / "config.json").read_text())["config"]
    edit_json(preset / "config.json", config=config | {"num_classes": None})
    with pytest.raises(ValueError, match="must have no class_names where the model has no classes, got"):
        haim_tf.load(preset)


@pytest.mark.parametrize(
    "change",
    [
        {"levels": [], "prior": {"width": 10**6, "blocks": 1}},
        pytest.param(
            {"num_classes": 10**12},
            marks=pytest.mark.slow(reason="waits ten seconds for memory, as the other does"),
        ),
    ],
)
def test_a_model_larger_than_the_memory_is_not_described(preset, change):
    config = json.loads((preset / "config.json").read_text())["config"]
    edit_json(preset / "config.json", config=config | change)
    edit_json(preset / "metadata.json", class_names=None)
    with pytest.raises(ValueError, match="config.json does not describe a model: (?s:.*)(OOM|allocate)"):
        haim_tf.load(preset)


def test_numbers_of_numpy_s_types_are_as_good(tmp_path):
    level = {
        "downsampling": np.int64(2),
        "codebook_size": np.int32(4),
        "code_dim": 2,
        "width": 4,
        "blocks": 1,
    }
    level |= {"width": 4, "blocks": 1}
    level["decoder"] = {"width": np.int64(4), "blocks": 1, "dropout": np.float32(0.5)}
    prior = {"width": np.int64(4), "blocks": 1}
    shape = np.array([4, 4, 1])
    model = haim_tf.HierarchicalModel(shape, [level], prior, num_classes=np.int64(3), mixtures=np.int64(2))
    model.save_to_preset(tmp_path / "new")
    loaded = haim_tf.load(tmp_path / "new", num_classes=np.int64(3))
    assert loaded.arguments == model.arguments and type(loaded.num_classes) is int


def test_home_and_links(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    model = haim_tf.HierarchicalModel((4, 4, 1), [], {"width": 4, "blocks": 1})
    model.save_to_preset("~/new")
    assert haim_tf.load("~/new").arguments == model.arguments
    (tmp_path / "linked").symlink_to("new")
    before = (tmp_path / "new" / "config.json").stat().st_ino
    model.save_to_preset(tmp_path / "linked", overwrite=True)
    assert (tmp_path / "linked").is_symlink() and (tmp_path / "new" / "config.json").stat().st_ino != before
    assert presets.read(tmp_path / "new")[1]["name"] == "linked"
    with pytest.raises(ValueError, match="must be a path without ~"):
        model.save_to_preset("~nobody-is-called-so/new")


def test_what_a_card_cannot_hold_is_known_before_anything_is_written(tmp_path):
    model = haim_tf.HierarchicalModel((4, 4, 1), [], {"width": 4, "blocks": 1}, num_classes=1)
    for metadata in ({"description": "caf\udce9"}, {"class_names": ["caf\udce9"]}):
        for call in (model.save_to_preset, partial(presets.check_savable, model)):
            with pytest.raises(ValueError, match=r"must be UTF-8, got .*caf.*udce9"):
                call(tmp_path / "new", metadata=metadata)
    with pytest.raises(ValueError, match="must be UTF-8"):
        model.save_to_preset(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (["a"], "metadata must be a dict, got"),
        ({"limits": 5}, "must have a list as limits, got 5"),
        ({"description": 5}, "must have a text as description, got 5"),
        ({"evaluation": {"a": 1}}, "metadata must be as save_to_preset takes it, got KeyError"),
        ({"metrics": [5]}, "metadata must be as save_to_preset takes it, got TypeError"),
        ({"class_names": "a"}, "class_names must be a list of texts, got 'a'"),
    ],
)
def test_metadata_that_makes_no_card_is_refused(tmp_path, metadata, message):
    model = haim_tf.HierarchicalModel((4, 4, 1), [], {"width": 4, "blocks": 1}, num_classes=1)
    with pytest.raises(ValueError, match=message):
        model.save_to_preset(tmp_path / "new", metadata=metadata)
    assert not list(tmp_path.iterdir())


def test_values_of_numpy_s_and_weights_that_are_not_finite(tmp_path):
    model = haim_tf.HierarchicalModel((4, 4, 1), [], {"width": 4, "blocks": 1}, num_classes=2)
    model.class_names = np.array(["a", "b"])
    model.sampling_defaults = {"temperature": np.array([0.5]), "top_p": np.float32(1.0)}
    model.save_to_preset(tmp_path / "new")
    _, metadata = presets.read(tmp_path / "new")
    assert metadata["class_names"] == ["a", "b"] and metadata["sampling"]["temperature"] == [0.5]
    weight = model.prior.trainable_variables[0]
    weight.assign(weight * np.nan)
    with pytest.raises(
        ValueError, match="the weights must be finite, got NaN or infinity in layers/pixel_cnn/"
    ):
        model.save_to_preset(tmp_path / "nan")
    assert not (tmp_path / "nan").exists()


def test_a_disk_that_is_full_keeps_the_preset_that_was_there(tmp_path, full_disk):
    model = haim_tf.HierarchicalModel((4, 4, 1), [], {"width": 4, "blocks": 1})
    model.save_to_preset(tmp_path / "new")
    before = {path.name: path.read_bytes() for path in (tmp_path / "new").iterdir()}
    larger = haim_tf.HierarchicalModel((4, 4, 1), [], {"width": 64, "blocks": 1})
    with full_disk(40_000), pytest.raises(ValueError, match="cannot write .*new: .") as caught:
        larger.save_to_preset(tmp_path / "new", overwrite=True)
    assert "\n" not in str(caught.value) and os.listdir(tmp_path) == ["new"]
    assert {path.name: path.read_bytes() for path in (tmp_path / "new").iterdir()} == before


def test_classes_of_one_s_own_by_name(tmp_path):
    base = haim_tf.load("debug")
    own = [f"kind {i}" for i in range(base.num_classes)]
    for names, fresh in ((base.class_names, False), (own, True), (own[:3], True)):
        model = haim_tf.load("debug", class_names=names)
        assert model.class_names == names and model.num_classes == len(names)
        rows = model.prior.embed_label.embeddings.numpy()
        known = base.prior.embed_label.embeddings.numpy()[: len(names)]
        assert (rows != known).any() == fresh
        np.testing.assert_array_equal(model.prior.last.kernel, base.prior.last.kernel)
    with pytest.raises(ValueError, match="class_names must be 4 names, got 3"):
        haim_tf.load("debug", num_classes=4, class_names=own[:3])


def test_a_clone_in_front_of_what_is_installed_has_the_zoo_too(monkeypatch):
    """Where haim_tf is installed from a wheel and Python starts in a clone."""
    expected = presets.list_models()

    def missing(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr("importlib.resources.files", missing)
    assert presets.list_models() == expected


def test_a_folder_of_a_zoo_entry_s_name_is_told_of(saved, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert presets.find("debug") != tmp_path / "debug"
    assert capsys.readouterr().err == ""
    shutil.copytree(saved, tmp_path / "debug")
    assert presets.find("debug") == presets.folder.zoo() / "debug"
    assert capsys.readouterr().err == "debug is the zoo's, not the folder here: that is ./debug\n"
    assert presets.find("./debug").samefile(tmp_path / "debug")


@pytest.mark.skipif(os.name == "nt", reason="modes and links are those of POSIX")
def test_links_and_modes_are_kept(saved, tmp_path):
    model = haim_tf.load(saved)
    old = os.umask(0o027)
    try:
        model.save_to_preset(tmp_path / "mine")
    finally:
        os.umask(old)
    assert (tmp_path / "mine").stat().st_mode & 0o777 == 0o750
    (tmp_path / "mine").chmod(0o770)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "mine" / "data").symlink_to(tmp_path / "pictures")
    (tmp_path / "mine" / "lost").symlink_to(tmp_path / "nowhere")
    model.save_to_preset(tmp_path / "mine", overwrite=True)
    assert (tmp_path / "mine").stat().st_mode & 0o777 == 0o770
    for name in ("data", "lost"):
        assert (tmp_path / "mine" / name).is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "pictures"]
