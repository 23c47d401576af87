"""Asks a server for samples of an exported model, and saves a sheet of them as a PNG file.

    python export/client.py --protocol=ray --labels=0,1,2 --num=24 --output=sheet.png
    python export/client.py --model=fashion_mnist28 --labels=0,1,2 --num=24 --output=sheet.png
    python export/client.py --protocol=grpc --server=127.0.0.1:8500 --model=fashion_mnist28 ...

`ray` is export/serve.py, `rest` and `grpc` are TensorFlow Serving. It stands alone, for people who have only
the server: it needs absl-py and pillow, and for gRPC also tensorflow-serving-api. Image i has the seed pair
(seed, i), as in `haim_tf sample`, and the same picture.
docs/serving.md says how the server is started, and has the requests of every signature.
"""

import base64
import contextlib
import http.client
import io
import json
import math
import os
import sys
import urllib.error
import urllib.parse
import urllib.request

from absl import app, flags

FLAGS = flags.FLAGS
SERVERS = {"rest": "127.0.0.1:8501", "grpc": "127.0.0.1:8500", "ray": "127.0.0.1:8000"}
flags.DEFINE_enum("protocol", "rest", list(SERVERS), "How to talk to the server.")
flags.DEFINE_string("server", None, "host:port; by default on this machine, the protocol's usual port.")
flags.DEFINE_string(
    "model", None, "The model's name on the server; with ray it has no other, and needs none."
)
flags.DEFINE_integer("num", 16, "How many images.", lower_bound=1)
flags.DEFINE_list(
    "labels", None, "Classes, ints, which the images take in turn; none: an unconditional model."
)
flags.DEFINE_integer(
    "seed", 0, "The same seed gives the same images.", lower_bound=-(2**31), upper_bound=2**31 - 1
)
flags.DEFINE_float(
    "temperature",
    None,
    "1 samples the model's distribution, less sharpens it; by default the model's own.",
    lower_bound=0.0,
    upper_bound=100.0,
)
flags.DEFINE_float(
    "top_p",
    None,
    "Mass of the nucleus to sample from; by default the model's own.",
    lower_bound=1e-6,
    upper_bound=1.0,
)
flags.DEFINE_float(
    "guidance",
    None,
    "How far samples are moved towards their label, for models that take it; by default the model's own.",
    lower_bound=0.0,
    upper_bound=100.0,
)
flags.DEFINE_integer("batch_size", 32, "Images in one request.", lower_bound=1)
flags.DEFINE_float("timeout", 60.0, "Seconds to wait for one answer.", lower_bound=0.001)
flags.DEFINE_integer("columns", None, "Images in a row of the sheet.", lower_bound=1)
flags.DEFINE_string("output", "samples.png", "The sheet, a .png file; one that is there is replaced.")

SAMPLING = ("temperature", "top_p", "guidance")
OWN = -1.0  # Says that the model's own value is wanted.
GAP = 2  # Pixels between images, white.


def main(argv):
    try:
        if len(argv) > 1:
            raise ValueError(f"unexpected argument {argv[1]!r}; everything is a flag, --name=value")
        if FLAGS.model is None and FLAGS.protocol != "ray":
            raise ValueError(f"--protocol={FLAGS.protocol} needs --model, the model's name on the server")
        labels = _ints("labels", FLAGS.labels) if FLAGS.labels else None
        output = os.path.abspath(os.path.expanduser(FLAGS.output))
        if not os.path.isdir(os.path.dirname(output)) or not output.lower().endswith(".png"):
            raise ValueError(f"--output must be a .png file in an existing folder, got {FLAGS.output}")
        ask = {"rest": ask_rest, "grpc": ask_grpc, "ray": ask_ray}[FLAGS.protocol]
        server = FLAGS.server or SERVERS[FLAGS.protocol]
        sampling = {name: FLAGS[name].value for name in SAMPLING if FLAGS[name].value is not None}
        if FLAGS.protocol != "ray":  # TensorFlow Serving knows no inputs that may be absent.
            known = {"rest": inputs_by_rest, "grpc": inputs_by_grpc}[FLAGS.protocol]
            known = known(server, FLAGS.model, "sample", FLAGS.timeout)
            if unknown := sorted(set(sampling) - set(known)):
                raise ValueError(f"{FLAGS.model} takes no {unknown[0]}; its inputs are {', '.join(known)}")
            sampling = {**{name: OWN for name in SAMPLING if name in known}, **sampling}
        files = []
        for start in range(0, FLAGS.num, FLAGS.batch_size):
            rows = range(start, min(start + FLAGS.batch_size, FLAGS.num))
            inputs = sample_inputs(rows, labels, FLAGS.seed, **sampling)
            files += ask(server, FLAGS.model, "sample", inputs, "image_bytes", FLAGS.timeout)
        if b"" in files:
            raise ValueError(
                f"the server found image {files.index(b'')} out of range: is its label a class? (Exports of "
                "before there were defaults want --temperature and --top_p.)"
            )
        save_sheet(files, output, FLAGS.columns)
    except (ValueError, OSError) as error:
        print(f"client: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    print(f"{FLAGS.num} images in {output}")


def sample_inputs(rows, labels, seed, **sampling):
    """The inputs of the signature `sample`, lists by name, for the images of these numbers.

    `sampling`: temperature, top_p and guidance, floats, -1 for the model's own; server.py does without them.
    """
    inputs = {"seed": [[seed, i] for i in rows]}
    inputs |= {name: [value for _ in rows] for name, value in sampling.items()}
    return inputs if labels is None else {"label": [labels[i % len(labels)] for i in rows], **inputs}


def ask_rest(server, model, signature, inputs, output, timeout):
    """One output of a signature, a list with an item an example, by the REST interface.

    Args:
        server: `host:port`.
        model, signature: names.
        inputs: by name, lists with an item an example: numbers, nested lists of them, or bytes.
        output: which output.
        timeout: seconds.

    Raises:
        ValueError: the server refused the request; it says why.
        OSError: no server, or no answer in time.
    """
    body = {"signature_name": signature, "instances": _examples(inputs)}
    predictions = _post(server, f"/v1/models/{model}:predict", body, timeout)
    # A signature with a single output gives it bare.
    return [_from_json(p[output] if isinstance(p, dict) and output in p else p) for p in predictions]


def inputs_by_rest(server, model, signature, timeout):
    """The names of a signature's inputs, by the REST interface."""
    known = _fetch(server, f"/v1/models/{model}/metadata", None, timeout)
    try:
        return sorted(known["metadata"]["signature_def"]["signature_def"][signature]["inputs"])
    except (TypeError, KeyError) as error:
        raise ValueError(f"{server} says nothing of inputs ({error}): is it a server of models?") from None


def ask_ray(server, model, signature, inputs, output, timeout):
    """The same as `ask_rest` from export/serve.py, which serves one model, whatever its name."""
    body = {"instances": _examples(inputs), "outputs": [output]}
    return [_from_json(p[output]) for p in _post(server, f"/{signature}", body, timeout)]


def _examples(inputs):
    return [
        {name: _to_json(x) for name, x in zip(inputs, example, strict=True)}
        for example in zip(*inputs.values(), strict=True)
    ]


def _post(server, path, body, timeout):
    try:
        predictions = _fetch(server, path, json.dumps(body).encode(), timeout)["predictions"]
    except (TypeError, KeyError) as error:
        raise ValueError(f"{server} gave no predictions ({error}): is it a server of models?") from None
    answers = len(predictions) if isinstance(predictions, list) else "no list of"
    if answers != len(body["instances"]):
        raise ValueError(f"{server} gave {answers} answers to {len(body['instances'])} examples")
    return predictions


def _fetch(server, path, data, timeout):
    """What the JSON of an answer holds, to a POST where there is data, else to a GET."""
    try:
        with urllib.request.urlopen(
            f"http://{server}{urllib.parse.quote(path, '/:')}", data, timeout
        ) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise ValueError(f"{server} refused: {error.code} {_reason(error)}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{server} gave no JSON ({error}): is it a server of models?") from None
    except TimeoutError:
        raise OSError(f"{server} gave no answer within {timeout} seconds") from None
    except urllib.error.URLError as error:
        raise OSError(f"{server} cannot be reached: {error.reason}") from None
    except http.client.HTTPException as error:
        raise OSError(f"{server} does not answer as HTTP does ({error!r}): is it the right port?") from None


def ask_grpc(server, model, signature, inputs, output, timeout):
    """The same as `ask_rest` by gRPC; arrays come as they are, which is faster where they are large."""
    import numpy as np

    with _grpc_installed():
        import tensorflow as tf
        from tensorflow_serving.apis import predict_pb2

    request = predict_pb2.PredictRequest(output_filter=[output])
    request.model_spec.name, request.model_spec.signature_name = model, signature
    for name, values in inputs.items():
        array = np.asarray(values, object if isinstance(values[0], bytes) else None)
        # The exported signatures take images as uint8, and every other number in 32 bits.
        dtype = {"f": "float32", "i": "int32"}.get(array.dtype.kind, array.dtype)
        array = array.astype("uint8" if name == "image" else dtype)
        request.inputs[name].CopyFrom(tf.make_tensor_proto(array))
    return list(tf.make_ndarray(_call(server, "Predict", request, timeout).outputs[output]))


def inputs_by_grpc(server, model, signature, timeout):
    """The names of a signature's inputs, by gRPC."""
    with _grpc_installed():
        from tensorflow_serving.apis import get_model_metadata_pb2

    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = model
    signatures = get_model_metadata_pb2.SignatureDefMap()
    _call(server, "GetModelMetadata", request, timeout).metadata["signature_def"].Unpack(signatures)
    return sorted(signatures.signature_def[signature].inputs)


@contextlib.contextmanager
def _grpc_installed():
    try:
        yield
    except ImportError as error:
        raise ValueError(f"--protocol=grpc needs pip install tensorflow-serving-api: {error}") from None


def _call(server, method, request, timeout):
    """The answer of a method of TensorFlow Serving's gRPC interface."""
    import grpc
    from tensorflow_serving.apis import prediction_service_pb2_grpc

    unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    try:
        with grpc.insecure_channel(server, unlimited) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            return getattr(stub, method)(request, timeout)
    except grpc.RpcError as error:
        message = f"{server}: {error.code().name} {error.details()}"
        refused = error.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)
        raise (ValueError if refused else OSError)(message) from None


def save_sheet(files, path, columns=None):
    """Writes pictures, the bytes of PNG files of one size, side by side into a PNG file, whole or not at
    all."""
    from PIL import Image

    images = [Image.open(io.BytesIO(file)) for file in files]
    columns = min(columns or math.ceil(math.sqrt(len(images))), len(images))
    width, height = (size + GAP for size in images[0].size)
    size = (columns * width - GAP, -(-len(images) // columns) * height - GAP)
    sheet = Image.new(images[0].mode, size, "white")
    for i, image in enumerate(images):
        sheet.paste(image, (i % columns * width, i // columns * height))
    unfinished = f"{path}.{os.getpid()}"
    try:
        sheet.save(unfinished, format="PNG")
        os.replace(unfinished, path)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(unfinished)


def _to_json(value):
    """Bytes as the server wants them in JSON; everything else as it is."""
    return {"b64": base64.b64encode(value).decode()} if isinstance(value, bytes) else value


def _from_json(value):
    return base64.b64decode(value["b64"]) if isinstance(value, dict) and "b64" in value else value


def _reason(error):
    body = error.read().decode(errors="replace")
    try:
        return json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        return body[:200] or error.reason


def _ints(name, texts):
    try:
        numbers = [int(text) for text in texts]
    except ValueError:
        numbers = []
    if not numbers or not all(-(2**31) <= number < 2**31 for number in numbers):
        raise ValueError(f"--{name} must be ints of 32 bits, got {','.join(texts)!r}")
    return numbers


if __name__ == "__main__":
    app.run(main)
