"""The server as it runs: right answers, bad requests, overload, a killed replica, a new version."""

import base64
import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

import haim_tf
from haim_tf import saved_model

pytest.importorskip("ray", reason="ray[serve] is not installed")
sys.path.insert(0, os.path.dirname(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../../export"))
from running import REPOSITORY, Running

pytestmark = pytest.mark.slow(reason="starts a Ray cluster")
READ_SECONDS = 3
COUNT = 24
GOOD = {"label": 1, "seed": [0, 1]}


def changed_model():
    """Another `debug` model: the same shapes, other samples."""
    model = haim_tf.load("debug")
    rng = np.random.default_rng(1)
    for network in model.networks:
        for weight in network.weights:
            if "float" in weight.dtype:
                weight.assign(weight + rng.normal(0, 0.3, weight.shape))
    return model


@pytest.fixture(scope="module")
def models():
    models = {1: haim_tf.load("debug"), 2: changed_model()}
    # What requests that ask for nothing else get.
    models[1].sampling_defaults = {"temperature": [1.0, 0.6, 0.9], "top_p": 0.95}
    return models


@pytest.fixture(scope="module")
def expected(models):
    """Per version the samples of labels 0, 1, ... and seed 5."""
    return {v: model.sample(COUNT, np.arange(COUNT) % 10, seed=5) for v, model in models.items()}


@pytest.fixture(scope="module")
def server(models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    saved_model.export(models[1], folder / "debug", batch_sizes=[1, 8])
    limits = ("--max_ongoing=4", "--max_queued=16", "--max_bytes=1000000", f"--read_seconds={READ_SECONDS}")
    server = Running(folder / "debug", folder / "log", "--replicas=2", "--poll_seconds=1", *limits)
    server.folder = folder / "debug"
    yield server
    server.stop()


def sample(server, i):
    """Status, version and picture of sample i of `expected`."""
    instance = {"label": i % 10, "seed": [5, i]}
    status, answer = server.ask("/sample", {"instances": [instance], "outputs": ["image_bytes"]})
    if status != 200:
        return status, None, None
    file = base64.b64decode(answer["predictions"][0]["image_bytes"]["b64"])
    return status, answer["version"], np.asarray(Image.open(io.BytesIO(file)))


class Load:
    """Clients that ask for samples until told to stop; `with Load(...) as load` and then `load.results`."""

    def __init__(self, server, clients):
        self.server, self.results, self._stop = server, [], threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(k,)) for k in range(clients)]

    def _work(self, k):
        i = k
        while not self._stop.is_set():
            i = (i + 1) % COUNT
            try:
                self.results.append((i, *sample(self.server, i)))
            except OSError as error:
                self.results.append((i, repr(error), None, None))

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def failed(self):
        return [status for _, status, _, _ in self.results if status != 200]


def check_answers(load, expected):
    for i, status, version, image in load.results:
        if status == 200:
            np.testing.assert_array_equal(image, expected[version][i])


def wait_for(condition, seconds):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.5)


def test_the_same_as_the_python_model(server, models, expected):
    model, images = models[1], expected[1]
    assert server.ask("/health") == (200, {"status": "alive"})
    assert server.ask("/ready") == (200, {"status": "ready", "version": 1})
    status, found = server.ask("/model")
    assert status == 200 and found["name"] == "debug" and "decode_level_2" in found["signatures"]
    assert found["sampling"] == model.sampling_defaults
    assert found["inputs"]["sample"] == ["label", "seed", "temperature", "top_p"]
    with ThreadPoolExecutor(6) as pool:
        for i, (status, version, image) in enumerate(pool.map(lambda i: sample(server, i), range(COUNT))):
            assert (status, version) == (200, 1)
            np.testing.assert_array_equal(image, images[i])
    instances = [{"image": x.tolist()} for x in images[:3]]
    codes = model.encode(images[:3])
    status, found = server.ask("/encode", {"instances": instances})
    assert status == 200
    for level in (1, 2):
        rows = [x[f"codes_{level}"] for x in found["predictions"]]
        np.testing.assert_array_equal(rows, codes[level - 1])
    seeds = [{"seed": [7, i]} for i in range(3)]
    rows = [{"codes_2": x.tolist(), **seed} for x, seed in zip(codes[1], seeds, strict=True)]
    status, found = server.ask("/decode", {"instances": rows, "outputs": ["image"]})
    np.testing.assert_array_equal(
        [x["image"] for x in found["predictions"]], model.decode(codes[1], 2, seed=7)
    )
    rows = [{**x, **seed} for x, seed in zip(instances, seeds, strict=True)]
    status, found = server.ask("/reconstruct", {"instances": rows, "outputs": ["image"]})
    images_1 = model.reconstruct(images[:3], level=1, seed=7)
    np.testing.assert_array_equal([x["image"] for x in found["predictions"]], images_1)
    status, found = server.ask("/log_prob", {"instances": [{**x, "label": 4} for x in instances]})
    values = [x["log_prob"] for x in found["predictions"]]
    np.testing.assert_allclose(values, model.log_prob(images[:3], 4), rtol=1e-4)


def test_a_sheet_by_the_client(server, models, tmp_path):
    where = (f"--server=127.0.0.1:{server.port}", f"--output={tmp_path / 'sheet.png'}")
    command = [sys.executable, REPOSITORY / "export/client.py", "--protocol=ray", "--labels=0,1", *where]
    done = subprocess.run([*command, "--num=5", "--columns=5"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    images = models[1].sample(5, [0, 1, 0, 1, 0], seed=0)
    for i, image in enumerate(images):
        np.testing.assert_array_equal(sheet[:, 18 * i : 18 * i + 16], image)
    done = subprocess.run([*command[:-3], "--labels=99", *where], capture_output=True, text=True)
    assert done.returncode == 2 and "label must be one int from 0 to 9, got 99" in done.stderr


def malformed(image):
    """Requests `(path, body, method, status)` that must be refused."""
    Image.fromarray(image).save(file := io.BytesIO(), "PNG")
    png = file.getvalue()
    wrong = {
        "label": [-1, 10, 2**31, 10**40, 1.5, True, None, "1", [], [1], {}, [[[]]]],
        "seed": [0, [0], [0, 1, 2], [0, 2**31], [0, 0.5], ["0", "1"], [[0, 1]], [0, [1]], None, {}, "01"],
        "temperature": [-0.5, -2, 101, 1e300, None, True, "1", [1], {}, float("nan"), float("inf"), [[]]],
        "top_p": [0, -0.5, 1.01, None, False, "1", [1], {}, float("nan"), -float("inf"), [[]]],
    }
    for name, values in wrong.items():
        for value in values:
            yield "/sample", {"instances": [GOOD, {**GOOD, name: value}]}, None, 400
    good = image.tolist()
    images = [
        good[1:],
        [good],
        good[0],
        [],
        0,
        None,
        "x",
        {},
        [[[256] * 3] * 16] * 16,
        [[[-1] * 3] * 16] * 16,
    ]
    images += [
        [[[0.5] * 3] * 16] * 16,
        [[["0"] * 3] * 16] * 16,
        [[[0] * 4] * 16] * 16,
        [*good[1:], good[0][1:]],
    ]
    for value in images:
        yield "/encode", {"instances": [{"image": value}]}, None, 400
        yield "/log_prob", {"instances": [{"image": value, "label": 1}]}, None, 400
        yield "/reconstruct", {"instances": [{"image": value, "seed": [0, 0]}]}, None, 400
        yield "/decode", {"instances": [{"codes_2": value, "seed": [0, 0]}]}, None, 400
    for cut in range(0, len(png) - 20, len(png) // 30):
        file = base64.b64encode(png[:cut]).decode()
        yield "/encode_bytes", {"instances": [{"image_bytes": {"b64": file}}]}, None, 400
    for value in [None, 3, "x", {}, {"b64": 3}, {"b64": "a"}, {"b64": "%%"}, {"b64": "QUJD"}, [], [0]]:
        yield "/encode_bytes", {"instances": [{"image_bytes": value}]}, None, 400
    for body in [
        b"",
        b"{",
        b"\xff",
        b"null",
        b"3",
        b'"x"',
        b"[]",
        b"{}",
        b"[" * 50_000,
        b"1" * 9000,
        b"\0" * 99,
    ]:
        for path in ("/sample", "/encode", "/log_prob"):
            yield path, body, None, 400
    for instances in [[], {}, None, 3, "x", [3], [[]], [None], [{}], [{**GOOD, "x": 1}], [{"label": 1}]]:
        yield "/sample", {"instances": instances}, None, 400
    for outputs in [[], "image", None, ["x"], [3], [{}], {}]:
        yield "/sample", {"instances": [GOOD], "outputs": outputs}, None, 400
    yield "/sample", {"instances": [GOOD] * 65}, None, 413
    for size in (1_000_001, 3_000_000, 6_000_000):
        yield "/sample", b" " * size, None, 413
        yield "/encode", b'{"instances": [' + b"0," * (size // 2), None, 413
    for path in ("/x", "/sample/1", "/../etc/passwd", "/" + "y" * 999, "/decode_level_3", "/%00"):
        yield path, {"instances": [GOOD]}, None, 404
    for method in ("GET", "PUT", "DELETE", "PATCH"):
        yield "/sample", b"{}", method, 405
        if method != "GET":
            yield "/health", b"{}", method, 405


def slow_client(server):
    """Status and answer of a request whose body stops coming."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(b'POST /sample HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"insta')
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        return answer.status, answer.read().decode()


def test_malformed_requests(server, expected):
    requests = list(malformed(expected[1][0]))
    assert len(requests) >= 200

    def refuse(request):
        path, body, method, expected_status = request
        status, answer = server.ask(path, body, method)
        assert status == expected_status, (path, str(body)[:200], status, str(answer)[:200])
        assert 10 < len(answer["error"]) < 500

    def all_of_them():
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(refuse, requests))
            for status, answer in pool.map(slow_client, [server] * 3):
                assert status == 408 and "did not arrive within 3 seconds" in answer
        return server.memory()

    pids = server.replicas()
    # The first rounds fill the pools of the allocator.
    memory = [all_of_them() for _ in range(4)]
    assert memory[3] < memory[1] + 20, memory
    assert server.replicas() == pids  # Nothing crashed and came back.
    status, _, image = sample(server, 0)
    assert status == 200
    np.testing.assert_array_equal(image, expected[1][0])
    wait_for(lambda: "haim_tf_requests" in str(server.ask("/metrics")[1]), 30)
    text = server.ask("/metrics")[1]
    assert "\nray_haim_tf_requests_total{" in text  # As docs/serving.md says.
    assert 'route="/sample"' in text and 'status="413"' in text and "haim_tf_request_seconds_bucket" in text


def counted(server):
    """How many requests the metrics tell of, by route and status."""
    found = {}
    for line in str(server.ask("/metrics")[1]).splitlines():
        if line.startswith("ray_haim_tf_requests_total{"):
            labels, count = line.rsplit("} ", 1)
            labels = dict(re.findall(r'(\w+)="([^"]*)"', labels))
            key = labels["route"], labels["status"]
            found[key] = found.get(key, 0) + float(count)
    return found


def test_clients_that_leave_are_told_apart_from_failures(server):
    body = json.dumps({"instances": [{**GOOD, "seed": [1, i]} for i in range(64)]})
    for path, sent in (("encode", body[:9]), ("sample", body)):
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", server.port)) as connection:
                head = f"POST /{path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
                connection.sendall((head + sent).encode())
                time.sleep(0.1)
    left = [("/encode", "499"), ("/sample", "499")]
    wait_for(lambda: all(counted(server).get(key, 0) >= 3 for key in left), 60)
    assert not [status for _, status in counted(server) if status == "500"]
    assert sample(server, 0)[0] == 200


def test_the_other_method_is_told(server):
    for method, path, allowed in (("GET", "/sample", "POST"), ("POST", "/health", "GET, HEAD")):
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        connection.request(method, path)
        answer = connection.getresponse()
        assert (answer.status, answer.headers["Allow"]) == (405, allowed)
        connection.close()


def test_too_many_requests_are_refused_at_once_and_none_hangs(server):
    body = {"instances": [{**GOOD, "seed": [1, i]} for i in range(64)]}
    with ThreadPoolExecutor(48) as pool:
        statuses = [answer[0] for answer in pool.map(lambda _: server.ask("/sample", body), range(48))]
    assert set(statuses) == {200, 503}, statuses
    assert sample(server, 0)[0] == 200


def test_kill_9_of_a_replica_under_load(server, expected):
    before = server.replicas()
    assert len(before) == 2
    clients = 6
    with Load(server, clients) as load:
        wait_for(lambda: len(load.results) > 50, 60)
        os.kill(before[0], signal.SIGKILL)
        answered = len(load.results)
        # The other one goes on meanwhile, and a new one comes.
        wait_for(lambda: len(load.results) > answered + 50, 60)
        wait_for(lambda: len(set(server.replicas()) - {before[0]}) == 2, 180)
        time.sleep(10)
    check_answers(load, expected)
    failed = load.failed()
    assert len(failed) <= clients, failed
    assert before[1] in server.replicas()


def test_a_new_version_takes_over_under_load_and_no_request_is_lost(server, models, expected):
    assert sample(server, 0)[1] == 1
    with Load(server, 4) as load:
        wait_for(lambda: len(load.results) > 20, 60)
        (server.folder / "broken").mkdir()  # No version.
        saved_model.export(models[2], server.folder, batch_sizes=[1, 8])
        wait_for(lambda: [r[2] for r in load.results[-30:]] == [2] * 30, 240)
    assert not load.failed()
    assert {version for _, _, version, _ in load.results} == {1, 2}
    check_answers(load, expected)


def test_an_answer_that_takes_too_long():
    """Without Ray: a model that never answers."""
    import asyncio
    from types import SimpleNamespace
    from unittest.mock import Mock

    from serving.server import Server
    from starlette.requests import Request

    async def never(example):
        await asyncio.sleep(60)

    async def receive():
        return {"type": "http.request", "body": b'{"instances": [{"seed": [0, 0]}]}'}

    model = SimpleNamespace(inputs={"sample": {"seed": ("int32", (2,))}}, outputs={"sample": ["image"]})
    model.description = {}
    replica = object.__new__(Server.func_or_class)
    replica.current = SimpleNamespace(model=model, run={"sample": never})
    replica.max_bytes, replica.max_examples, replica.read_seconds, replica.answer_seconds = 99, 1, 1.0, 0.1
    replica._requests, replica._seconds = Mock(), Mock()
    scope = {"type": "http", "method": "POST", "path": "/sample", "headers": [], "query_string": b""}
    response = asyncio.run(replica(Request(scope | {"server": ("x", 80)}, receive)))
    assert response.status_code == 504 and b"no answer within 0.1 seconds" in response.body
    replica._requests.inc.assert_called_once_with(tags={"route": "/sample", "status": "504"})
