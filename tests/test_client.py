"""`export/client.py`, against servers that answer as TensorFlow Serving's documentation says it does."""

import base64
import http.server
import io
import json
import subprocess
import sys
import threading
from concurrent import futures
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[1]
SIDE = 4


INPUTS = {
    "grey": ("label", "seed", "temperature", "top_p"),
    "guided": ("label", "seed", "temperature", "top_p", "guidance"),
}
DTYPES = {"label": "int32", "seed": "int32"}


def picture(label, seed, temperature, top_p, guidance=0.0):
    """What these servers take for a sample: a grey that tells all inputs apart. Label 9 is out of range.

    Of their own they sample at temperature 1.5, top_p 1 and guidance 10.
    """
    if label == 9:
        return b""
    own = (1.5, 1.0, 10.0)
    temperature, top_p, guidance = (
        o if x == -1 else x for x, o in zip((temperature, top_p, guidance), own, strict=True)
    )
    grey = 100 * label + 10 * seed[0] + seed[1]
    grey += round(2 * temperature) + round(4 * top_p) + round(guidance)
    Image.new("L", (SIDE, SIDE), grey).save(file := io.BytesIO(), format="PNG")
    return file.getvalue()


class Rest(http.server.BaseHTTPRequestHandler):
    """The row format of `POST /v1/models/NAME:predict`, and `GET /v1/models/NAME/metadata`."""

    def do_GET(self):
        name = self.path.removeprefix("/v1/models/").removesuffix("/metadata")
        if name not in INPUTS:
            return self.answer(404, {"error": f"Servable not found for request: {self.path}"})
        kinds = {x: {"dtype": "DT_INT32" if x in DTYPES else "DT_FLOAT"} for x in INPUTS[name]}
        signatures = {"signature_def": {"sample": {"inputs": kinds, "outputs": {}}}}
        return self.answer(200, {"model_spec": {"name": name}, "metadata": {"signature_def": signatures}})

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.sizes.append(len(request["instances"]))
        name = self.path.removeprefix("/v1/models/").removesuffix(":predict")
        assert request["signature_name"] == "sample"
        # The server wants all inputs, and no others.
        assert all(set(example) == set(INPUTS[name]) for example in request["instances"])
        files = [base64.b64encode(picture(**example)).decode() for example in request["instances"]]
        predictions = [{"image": [[0]], "image_bytes": {"b64": file}} for file in files]
        return self.answer(200, {"predictions": predictions})

    def answer(self, code, body):
        self.send_response(code)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *arguments):
        pass


@pytest.fixture
def rest():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Rest)
    server.sizes = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def client(*flags):
    command = [sys.executable, REPOSITORY / "export/client.py", "--timeout=20", *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def check_sheet(path, sampling=1 + 2):
    """The sheet of five images, labels 0 and 1 in turn, two columns, seed 3."""
    sheet = np.asarray(Image.open(path))
    assert sheet.shape == (3 * SIDE + 4, 2 * SIDE + 2)
    found = [sheet[i // 2 * (SIDE + 2), i % 2 * (SIDE + 2)] for i in range(5)]
    assert found == [100 * (i % 2) + 30 + i + sampling for i in range(5)]
    assert sheet[-1, -1] == 255


FIVE = ("--labels=0,1", "--num=5", "--seed=3", "--columns=2")
SAMPLING = (*FIVE, "--temperature=0.5", "--top_p=0.5")


def test_sheet_by_rest(rest, tmp_path):
    server = f"--server=127.0.0.1:{rest.server_port}"
    done = client(server, "--model=grey", *SAMPLING, "--batch_size=2", f"--output={tmp_path / 'sheet.png'}")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"5 images in {tmp_path / 'sheet.png'}\n"
    assert rest.sizes == [2, 2, 1]
    check_sheet(tmp_path / "sheet.png")


@pytest.mark.parametrize(
    ("model", "flags", "sampling"),
    [
        ("grey", (), 3 + 4),
        ("guided", (), 3 + 4 + 10),
        ("guided", ("--guidance=20", "--temperature=1"), 2 + 4 + 20),
    ],
)
def test_what_no_flag_says_is_the_models_own(rest, tmp_path, model, flags, sampling):
    where = (f"--server=127.0.0.1:{rest.server_port}", f"--model={model}")
    done = client(*where, *FIVE, *flags, f"--output={tmp_path / 'sheet.png'}")
    assert (done.returncode, done.stderr) == (0, "")
    check_sheet(tmp_path / "sheet.png", sampling)


def test_what_no_flag_says_is_not_sent_to_ray(tmp_path):
    found = []

    class Ray(Rest):
        def do_POST(self):
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            found.extend(request["instances"])
            file = base64.b64encode(picture(0, [0, 0], 1.0, 1.0)).decode()
            self.answer(200, {"predictions": [{"image_bytes": {"b64": file}}] * len(request["instances"])})

    server = http.server.HTTPServer(("127.0.0.1", 0), Ray)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    where = ("--protocol=ray", f"--server=127.0.0.1:{server.server_port}")
    for flags in ((), ("--temperature=0.5",), ("--guidance=2",)):
        done = client(*where, "--num=1", *flags, f"--output={tmp_path / 'sheet.png'}")
        assert (done.returncode, done.stderr) == (0, "")
    server.shutdown()
    server.server_close()
    seed = {"seed": [0, 0]}
    assert found == [seed, {**seed, "temperature": 0.5}, {**seed, "guidance": 2.0}]


@pytest.mark.parametrize(
    ("model", "flags", "sampling"),
    [("grey", ("--temperature=0.5", "--top_p=0.5"), 1 + 2), ("guided", ("--top_p=0.5",), 3 + 2 + 10)],
)
def test_sheet_by_grpc(tmp_path, model, flags, sampling):
    apis = pytest.importorskip("tensorflow_serving.apis", reason="tensorflow-serving-api is not installed")
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import get_model_metadata_pb2, predict_pb2, prediction_service_pb2_grpc

    assert apis
    names = INPUTS[model]

    class Servicer(prediction_service_pb2_grpc.PredictionServiceServicer):
        def GetModelMetadata(self, request, context):  # noqa: N802
            assert request.model_spec.name == model and list(request.metadata_field) == ["signature_def"]
            signatures = get_model_metadata_pb2.SignatureDefMap()
            for name in names:
                signatures.signature_def["sample"].inputs[name].name = f"sample_{name}:0"
            answer = get_model_metadata_pb2.GetModelMetadataResponse()
            answer.metadata["signature_def"].Pack(signatures)
            return answer

        def Predict(self, request, context):  # noqa: N802
            assert request.model_spec.signature_name == "sample"
            assert list(request.output_filter) == ["image_bytes"]
            inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
            assert {name: x.dtype.name for name, x in inputs.items()} == {
                name: DTYPES.get(name, "float32") for name in names
            }
            examples = zip(*(inputs[name].tolist() for name in names), strict=True)
            files = [picture(*example) for example in examples]
            answer = predict_pb2.PredictResponse()
            answer.outputs["image_bytes"].CopyFrom(tf.make_tensor_proto(files))
            return answer

    server = grpc.server(futures.ThreadPoolExecutor())
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Servicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        where = ("--protocol=grpc", f"--server=127.0.0.1:{port}", f"--model={model}")
        done = client(*where, *FIVE, *flags, f"--output={tmp_path / 'sheet.png'}")
    finally:
        server.stop(None)
    assert done.returncode == 0, done.stderr
    check_sheet(tmp_path / "sheet.png", sampling)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--model=red",), "refused: 404 Servable not found"),
        (("--model=grey", "--labels=0,9"), "found image 1 out of range"),
        (("--model=grey", "--guidance=2"), "grey takes no guidance; its inputs are label, seed, temperature"),
        (("--model=grey", "--labels=cat"), "--labels must be ints of 32 bits, got 'cat'"),
        (("--model=grey", f"--labels={2**32}"), f"--labels must be ints of 32 bits, got '{2**32}'"),
        (("--model=my model",), "refused: 404 Servable not found"),
        (("--model=grey", "--server=localhost:port"), "localhost:port does not answer as HTTP does"),
        (("--model=grey", "--labels=0", "--output=nowhere/sheet.png"), "nowhere/sheet.png"),
        (("--model=grey", "--server=127.0.0.1:9"), "cannot be reached"),
    ],
)
def test_what_goes_wrong_is_one_clear_line(rest, tmp_path, flags, message):
    output = f"--output={tmp_path / 'sheet.png'}"
    done = client(f"--server=127.0.0.1:{rest.server_port}", output, *flags)
    assert done.returncode == 2
    assert message in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "sheet.png").exists()


def test_what_grpc_needs_is_said(tmp_path):
    (tmp_path / "tensorflow_serving.py").write_text("raise ImportError('none here')")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path))
        done = client("--protocol=grpc", "--model=grey", f"--output={tmp_path / 'sheet.png'}")
    assert done.returncode == 2
    assert done.stderr == "client: --protocol=grpc needs pip install tensorflow-serving-api: none here\n"


def test_answers_that_are_none_are_one_line(tmp_path):
    class Empty(Rest):
        def do_POST(self):
            self.answer(200, {"predictions": None})

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Empty)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    done = client(
        "--protocol=ray", f"--server=127.0.0.1:{server.server_port}", f"--output={tmp_path / 'x.png'}"
    )
    server.shutdown()
    server.server_close()
    assert done.returncode == 2 and "gave no list of answers to 16 examples" in done.stderr
