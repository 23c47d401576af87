"""Presets on the hub: one on this machine, which cuts connections and damages files; and a stand-in's."""

import json
import os
import subprocess
import sys

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub import constants

import haim_tf
from haim_tf import presets
from haim_tf.presets import hub

sys.path.insert(0, os.path.dirname(__file__))
from hub_server import Hub

OTHER = {"description": "Another one."}


@pytest.fixture(scope="module")
def files():
    folder = presets.find("debug")
    return {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if path.is_file() and path.name != "about.json"
    }


@pytest.fixture
def server(files, tmp_path, monkeypatch):
    server = Hub()
    other = {**files, "metadata.json": json.dumps({**json.loads(files["metadata.json"]), **OTHER}).encode()}
    server.repositories["me/mine"] = {"main": dict(files), "v2": other}
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.delenv("HAIM_TF_OFFLINE", raising=False)
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # Between tries.
    yield server
    server.close()


def same_weights(model):
    wanted = haim_tf.load("debug").get_weights()
    return all(np.array_equal(ours, theirs) for ours, theirs in zip(model.get_weights(), wanted, strict=True))


def test_loads_and_downloads_once(server):
    assert same_weights(haim_tf.load("hf://me/mine"))
    count = len(server.files)
    assert "model.weights.h5" in server.files
    assert same_weights(haim_tf.HierarchicalModel.from_preset("hf://me/mine", weights=True))
    assert len(server.files) == count


def test_a_revision(server):
    assert presets.read(presets.find("hf://me/mine@v2"))[1]["description"] == OTHER["description"]
    assert presets.read(presets.find("hf://me/mine"))[1]["description"] != OTHER["description"]
    with pytest.raises(FileNotFoundError, match="cannot download hf://me/mine@v3: .*404"):
        presets.find("hf://me/mine@v3")


def test_weights_not_asked_for_are_not_downloaded(server):
    haim_tf.load("hf://me/mine", weights=False)
    assert "config.json" in server.files and "model.weights.h5" not in server.files


@pytest.mark.parametrize("faults", [["cut"], ["cut", "cut"], ["damaged"], ["cut", "damaged"]])
def test_tries_again_after_cut_connections_and_damage(server, faults):
    server.faults = list(faults)
    assert same_weights(haim_tf.load("hf://me/mine"))
    assert server.files.count("model.weights.h5") == len(faults) + 1


def test_gives_up_with_one_clear_error(server):
    server.faults = ["damaged"] * 50
    with pytest.raises(ValueError, match="is damaged, or not the file that belongs here"):
        haim_tf.load("hf://me/mine")
    server.faults = []
    assert same_weights(haim_tf.load("hf://me/mine"))  # What was damaged does not stay.


def test_gives_up_on_a_connection_that_is_always_cut(server):
    server.faults = ["cut"] * 200
    with pytest.raises(FileNotFoundError, match="cannot download hf://me/mine"):
        haim_tf.load("hf://me/mine")
    assert len(server.faults) > 150
    server.faults = []
    assert same_weights(haim_tf.load("hf://me/mine"))


def test_offline(server, monkeypatch):
    monkeypatch.setenv("HAIM_TF_OFFLINE", "1")
    with pytest.raises(FileNotFoundError, match="is not among the files downloaded before, and HAIM"):
        haim_tf.load("hf://me/mine")
    assert server.requests == 0
    monkeypatch.delenv("HAIM_TF_OFFLINE")
    haim_tf.load("hf://me/mine")
    count = server.requests
    monkeypatch.setenv("HAIM_TF_OFFLINE", "1")
    assert same_weights(haim_tf.load("hf://me/mine"))
    assert server.requests == count


def test_without_a_network_what_is_here_serves(server, monkeypatch):
    haim_tf.load("hf://me/mine")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert same_weights(haim_tf.load("hf://me/mine"))


def test_weights_that_did_not_come_are_missed(server):
    del server.repositories["me/mine"]["main"]["model.weights.h5"]
    assert presets.find("hf://me/mine").is_dir()
    with pytest.raises(FileNotFoundError, match="cannot download hf://me/mine: its weights are not among"):
        haim_tf.load("hf://me/mine")


def test_metadata_of_something_else_is_named(server):
    server.repositories["me/mine"]["main"]["metadata.json"] = b"[]"
    with pytest.raises(ValueError, match="metadata.json"):
        haim_tf.load("hf://me/mine")


def test_no_such_repository(server):
    with pytest.raises(FileNotFoundError, match="cannot download hf://me/other"):
        haim_tf.load("hf://me/other")


@pytest.mark.parametrize("name", ["hf://mine", "hf://me/mine/more", "hf:/me/mine", "hf://me/mine@", "hf://"])
def test_a_reference_that_is_none(name):
    with pytest.raises(ValueError, match="must be hf://owner/name"):
        haim_tf.load(name)


def test_the_library_is_an_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match=r'pip install "haim-tf\[hub\]"'):
        haim_tf.load("hf://me/mine")


def test_the_command_line_in_a_process_of_its_own(server, tmp_path):
    """Where the environment says where the hub is."""
    environment = {**os.environ, "HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-m", "haim_tf", "info", "hf://me/mine"]
    process = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert process.returncode == 0, process.stderr
    assert "16x16x3" in process.stdout and "hf://me/mine" in process.stdout


class RecordingApi:
    """Stands in for `huggingface_hub.HfApi`: what is committed is then served."""

    calls, server = [], None

    def __init__(self, **about):
        self.about = about

    def create_repo(self, repository, private, exist_ok):
        self.calls.append(("create_repo", repository, private, exist_ok))
        if repository.startswith("them/"):
            raise PermissionError("403: you may not write there")
        self.server.repositories.setdefault(repository, {})
        return f"{self.server.url}/{repository}"

    def create_commit(self, repository, operations, commit_message):
        self.calls.append(("create_commit", repository, commit_message, self.about["library_name"]))
        files = {}
        for operation in operations:
            with operation.as_file() as file:
                files[operation.path_in_repo] = file.read()
        self.server.repositories[repository]["main"] = files


@pytest.fixture
def api(server, monkeypatch):
    monkeypatch.setattr(RecordingApi, "server", server)
    monkeypatch.setattr(RecordingApi, "calls", [])
    monkeypatch.setattr(huggingface_hub, "HfApi", RecordingApi)
    yield RecordingApi
    monkeypatch.undo()


def test_what_is_uploaded_loads_again(api, server, tmp_path, monkeypatch):
    model = haim_tf.load("debug")
    model.save_to_preset(tmp_path / "mine", metadata={"license": "apache-2.0"})
    url = hub.upload(tmp_path / "mine", "hf://you/mine", private=True)
    assert url == f"{server.url}/you/mine"
    assert [call[:3] for call in api.calls][0] == ("create_repo", "you/mine", True)
    assert set(server.repositories["you/mine"]["main"]) == {
        "README.md", "config.json", "metadata.json", "model.weights.h5",
    }  # fmt: skip
    monkeypatch.setattr(huggingface_hub, "HfApi", huggingface_hub.hf_api.HfApi)
    loaded = haim_tf.load("hf://you/mine")
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype="uint8")
    for ours, theirs in zip(loaded.encode(images), model.encode(images), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert same_weights(loaded) and loaded.class_names == model.class_names


def test_the_card_has_the_hub_s_front_matter(api, server):
    hub.upload(presets.find("debug"), "hf://you/debug")
    card = server.repositories["you/debug"]["main"]["README.md"].decode()
    data = huggingface_hub.ModelCard(card).data
    assert (data.library_name, data.license, data.license_name) == ("haim_tf", "other", "see-the-card")
    assert "arxiv:1903.04933" in data.tags
    assert "# debug\n" in card and 'haim_tf.load("hf://you/debug")' in card
    assert "samples.png" in server.repositories["you/debug"]["main"]
    hub.upload(presets.find("debug"), "hf://you/debug", license="mit")
    card = server.repositories["you/debug"]["main"]["README.md"].decode()
    assert huggingface_hub.ModelCard(card).data.license == "mit"


@pytest.mark.parametrize(
    ("to", "error", "message"),
    [
        ("hf://you/mine@v1", ValueError, "without a revision"),
        ("you/mine", ValueError, "must be hf://owner/name"),
        ("hf://them/mine", ValueError, "cannot upload to hf://them/mine: 403"),
    ],
)
def test_what_cannot_be_uploaded(api, to, error, message):
    with pytest.raises(error, match=message):
        hub.upload(presets.find("debug"), to)


def test_nothing_outside_of_the_folder_is_uploaded(api, server, tmp_path):
    (tmp_path / "private.png").write_text("mine alone")
    pictures = {"../private.png": "theirs", str(tmp_path / "private.png"): "theirs", "a.png": "a"}
    haim_tf.load("debug").save_to_preset(tmp_path / "mine", metadata={"pictures": pictures})
    (tmp_path / "mine" / "a.png").write_text("picture")
    hub.upload(tmp_path / "mine", "hf://you/mine")
    names = set(server.repositories["you/mine"]["main"])
    assert names == {"README.md", "a.png", "config.json", "metadata.json", "model.weights.h5"}


@pytest.mark.parametrize("lost", ["parameters", "parameters_by_part", "keras_version"])
def test_metadata_that_no_card_can_be_made_of_is_named(api, tmp_path, lost):
    haim_tf.load("debug").save_to_preset(tmp_path / "mine")
    path = tmp_path / "mine" / "metadata.json"
    metadata = json.loads(path.read_text())
    del metadata[lost]
    path.write_text(json.dumps(metadata))
    with pytest.raises(ValueError, match=f"must be as save_to_preset writes it, got KeyError.'{lost}'"):
        hub.upload(tmp_path / "mine", "hf://you/mine")
    assert not api.calls


def test_neither_bare_nor_damaged_presets_are_uploaded(api, server, tmp_path):
    model = haim_tf.load("debug")
    model.save_to_preset(tmp_path / "bare", weights=False)
    with pytest.raises(FileNotFoundError, match="no weights"):
        hub.upload(tmp_path / "bare", "hf://you/bare")
    model.save_to_preset(tmp_path / "damaged")
    with open(tmp_path / "damaged/model.weights.h5", "ab") as file:
        file.write(b"x")
    with pytest.raises(ValueError, match="is damaged"):
        hub.upload(tmp_path / "damaged", "hf://you/damaged")
    assert not api.calls
