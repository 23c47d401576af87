"""Weights by URL: downloaded once, checked, tried again where the network fails, never half-written."""

import http.server
import json
import shutil
import threading

import numpy as np
import pytest

import haim_tf
from haim_tf import presets
from haim_tf.presets import downloads


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `server.content`; each request takes one of `server.faults` first, while there are any."""

    def do_GET(self):
        server = self.server
        server.requests += 1
        fault = server.faults.pop(0) if server.faults else None
        if fault == "missing":
            return self.send_error(404)
        content = server.content
        if fault == "damaged":
            content = content[:-1] + bytes([content[-1] ^ 1])
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if fault == "cut" else content)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.requests, server.faults = 0, []
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def preset(server, tmp_path, monkeypatch):
    """The debug model, its weights on the server and not in the folder."""
    monkeypatch.setenv("HAIM_TF_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HAIM_TF_OFFLINE", raising=False)
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # Between tries.
    folder = tmp_path / "remote"
    shutil.copytree(presets.find("debug"), folder)
    server.content = (folder / presets.WEIGHTS).read_bytes()
    (folder / presets.WEIGHTS).unlink()
    change(folder, weights_url=f"http://127.0.0.1:{server.server_port}/model.weights.h5", pretrained=True)
    return folder


def change(folder, **values):
    path = folder / presets.METADATA
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def kept_files(tmp_path):
    return [path.name for path in (tmp_path / "home").glob("*")] if (tmp_path / "home").exists() else []


def test_loads_and_downloads_once(preset, server, tmp_path):
    assert not presets.is_pretrained(preset)
    model = haim_tf.load(str(preset))
    assert presets.is_pretrained(preset)
    for ours, theirs in zip(model.get_weights(), haim_tf.load("debug").get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    haim_tf.load(str(preset), weights=True)
    assert server.requests == 1 and len(kept_files(tmp_path)) == 1


def test_weights_not_asked_for_are_not_downloaded(preset, server):
    haim_tf.load(str(preset), weights=False)
    assert server.requests == 0


@pytest.mark.parametrize("faults", [["cut"], ["damaged", "cut"], ["cut", "cut", "damaged"]])
def test_tries_again_after_cut_connections_and_damage(preset, server, tmp_path, faults):
    server.faults = list(faults)
    haim_tf.load(str(preset))
    assert server.requests == len(faults) + 1 and len(kept_files(tmp_path)) == 1


@pytest.mark.parametrize(
    "fault, error", [("cut", FileNotFoundError), ("damaged", ValueError), ("missing", FileNotFoundError)]
)
def test_gives_up_with_one_clear_error_and_leaves_nothing(preset, server, tmp_path, fault, error):
    server.faults = [fault] * 50
    with pytest.raises(error, match="127.0.0.1"):
        haim_tf.load(str(preset))
    assert server.requests == downloads.RETRIES + 1
    assert kept_files(tmp_path) == []


def test_offline(preset, server, tmp_path, monkeypatch):
    monkeypatch.setenv("HAIM_TF_OFFLINE", "1")
    with pytest.raises(FileNotFoundError, match="HAIM_TF_OFFLINE"):
        haim_tf.load(str(preset))
    assert server.requests == 0
    monkeypatch.setenv("HAIM_TF_OFFLINE", "0")
    haim_tf.load(str(preset))
    monkeypatch.setenv("HAIM_TF_OFFLINE", "1")
    haim_tf.load(str(preset))
    assert server.requests == 1


def test_no_server(preset, server):
    change(preset, weights_url="http://127.0.0.1:9/model.weights.h5")
    with pytest.raises(FileNotFoundError, match="cannot download"):
        haim_tf.load(str(preset))


def test_a_url_needs_a_checksum(preset):
    change(preset, sha256=None)
    with pytest.raises(ValueError, match="sha256"):
        haim_tf.load(str(preset))


def test_a_stranger_s_preset_writes_to_the_home_alone(preset, server, tmp_path):
    change(preset, name="../../elsewhere/weights")
    haim_tf.load(str(preset))
    (kept,) = kept_files(tmp_path)
    assert kept.startswith(".._.._elsewhere_weights-") and not (tmp_path / "elsewhere").exists()
    change(preset, sha256="/../../elsewhere")
    with pytest.raises(ValueError, match="sha256 of .* must be 64 hexadecimal digits"):
        haim_tf.load(str(preset))


@pytest.mark.parametrize("url", ["file:///tmp/model.weights.h5", "example.com/model.weights.h5"])
def test_a_url_of_another_kind_is_not_called_damage(preset, url):
    change(preset, weights_url=url)
    with pytest.raises(
        ValueError, match="weights_url of debug must begin with one of https://, http://, ftp://"
    ):
        haim_tf.load(str(preset))


def test_a_home_that_nobody_has_is_named(monkeypatch):
    monkeypatch.setenv("HAIM_TF_HOME", "~nobody-is-called-so/kept")
    with pytest.raises(ValueError, match="must be a path without ~, for there is no such home"):
        downloads.kept_path("mine", "0" * 64)
