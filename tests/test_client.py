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


def picture(label, seed, temperature, top_p):
    """What these servers take for a sample: a grey that tells all inputs apart. Label 9 is out of range."""
    if label == 9:
        return b""
    grey = 100 * label + 10 * seed[0] + seed[1] + round(2 * temperature) + round(4 * top_p)
    Image.new("L", (SIDE, SIDE), grey).save(file := io.BytesIO(), format="PNG")
    return file.getvalue()


class Rest(http.server.BaseHTTPRequestHandler):
    """The row format of `POST /v1/models/NAME:predict`."""

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.sizes.append(len(request["instances"]))
        if self.path != "/v1/models/grey:predict":
            return self.answer(404, {"error": f"Servable not found for request: {self.path}"})
        assert request["signature_name"] == "sample"
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


def check_sheet(path):
    """The sheet of five images, labels 0 and 1 in turn, two columns, seed 3."""
    sheet = np.asarray(Image.open(path))
    assert sheet.shape == (3 * SIDE + 4, 2 * SIDE + 2)
    found = [sheet[i // 2 * (SIDE + 2), i % 2 * (SIDE + 2)] for i in range(5)]
    assert found == [100 * (i % 2) + 30 + i + 1 + 2 for i in range(5)]
    assert sheet[-1, -1] == 255


SAMPLING = ("--labels=0,1", "--num=5", "--seed=3", "--temperature=0.5", "--top_p=0.5", "--columns=2")


def test_sheet_by_rest(rest, tmp_path):
    server = f"--server=127.0.0.1:{rest.server_port}"
    done = client(server, "--model=grey", *SAMPLING, "--batch_size=2", f"--output={tmp_path / 'sheet.png'}")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"5 images in {tmp_path / 'sheet.png'}\n"
    assert rest.sizes == [2, 2, 1]
    check_sheet(tmp_path / "sheet.png")


def test_sheet_by_grpc(tmp_path):
    apis = pytest.importorskip("tensorflow_serving.apis", reason="tensorflow-serving-api is not installed")
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    assert apis

    class Servicer(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, request, context):  # noqa: N802
            assert request.model_spec.signature_name == "sample"
            assert list(request.output_filter) == ["image_bytes"]
            inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
            assert {name: x.dtype.name for name, x in inputs.items()} == {
                "label": "int32",
                "seed": "int32",
                "temperature": "float32",
                "top_p": "float32",
            }
            examples = zip(*(inputs[n] for n in ("label", "seed", "temperature", "top_p")), strict=True)
            files = [picture(int(a), b.tolist(), float(c), float(d)) for a, b, c, d in examples]
            answer = predict_pb2.PredictResponse()
            answer.outputs["image_bytes"].CopyFrom(tf.make_tensor_proto(files))
            return answer

    server = grpc.server(futures.ThreadPoolExecutor())
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Servicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        where = ("--protocol=grpc", f"--server=127.0.0.1:{port}", "--model=grey")
        done = client(*where, *SAMPLING, f"--output={tmp_path / 'sheet.png'}")
    finally:
        server.stop(None)
    assert done.returncode == 0, done.stderr
    check_sheet(tmp_path / "sheet.png")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--model=red",), "refused: 404 Servable not found"),
        (("--model=grey", "--labels=0,9"), "found image 1 out of range"),
        (("--model=grey", "--labels=cat"), "--labels must be ints, got 'cat'"),
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
