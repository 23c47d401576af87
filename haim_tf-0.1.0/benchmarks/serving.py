"""Load test of `export/serve.py` on this machine: throughput and latency with and without batching.

    haim_tf export --model=fashion_mnist28 --output=models/fashion_mnist28
    python benchmarks/serving.py --model=fashion_mnist28 --folder=models/fashion_mnist28 --output=serving.json

A server is started with dynamic batching, then one without that samples examples side by side, as many as it
has cores, and then one without that samples one after another, all on loopback with the same replicas.
Clients in this process ask for one sample a request, each for its next one as soon as it has the last; every
picture is compared with the Python model's, both at the model's own `sampling_defaults`. A cell of the table
ends after `--requests` requests or `--seconds`, whichever comes first. Clients and server share the machine's
cores.
"""

import base64
import contextlib
import http.client
import io
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_string("model", "fashion_mnist28", "Name of a model, or a preset folder: the one exported.")
flags.DEFINE_string("folder", None, "Its export.", required=True)
flags.DEFINE_list("clients", ["1", "8", "32"], "How many ask at the same time.")
flags.DEFINE_integer("requests", 600, "Of a cell.", lower_bound=1)
flags.DEFINE_float("seconds", 60.0, "Of a cell, at most.", lower_bound=1.0)
flags.DEFINE_integer("replicas", 1, "Of the server.", lower_bound=1)
flags.DEFINE_integer("pictures", 96, "Different samples that are asked for.", lower_bound=1)
flags.DEFINE_string("output", None, "JSON file for the figures, a new one.")

MODES = {
    "yes": [],
    "no, side by side": ["--max_batch_size=1"],
    "no": ["--max_batch_size=1", "--parallel=1"],
}


def main(argv):
    if len(argv) > 1:
        raise ValueError(f"unexpected arguments {argv[1:]}; everything is a flag, see --help")
    import measuring

    import haim_tf
    from haim_tf import files

    output = files.check_new_file(FLAGS.output) if FLAGS.output else None
    model = haim_tf.load(FLAGS.model)
    labels = np.arange(FLAGS.pictures) % model.num_classes if model.num_classes else None
    expected = model.sample(FLAGS.pictures, labels, seed=0)
    rows = []
    for batching, options in MODES.items():
        with running(options) as port:
            for clients in map(int, FLAGS.clients):
                rows.append({"batching": batching, **load(port, clients, labels, expected)})
                print(rows[-1], file=sys.stderr, flush=True)
    throughput = {(row["batching"], row["clients"]): row["requests/s"] for row in rows}
    for row in rows:
        row["times no batching"] = row["requests/s"] / throughput["no", row["clients"]]
    total, bad = sum(row["requests"] for row in rows), sum(row["wrong or lost"] for row in rows)
    print()
    measuring.print_table(rows)
    print(f"\n{total} requests, {bad} wrong or lost; load average at the end {os.getloadavg()[0]:.1f}")
    if output:
        files.write_json(output, {"model": FLAGS.model, "replicas": FLAGS.replicas, "serving": rows})


@contextlib.contextmanager
def running(options):
    """The port of a server that is ready, and ends with the context."""
    port, metrics_port = free_port(), free_port()
    script = Path(__file__).resolve().parents[1] / "export/serve.py"
    command = [sys.executable, script, f"--folder={FLAGS.folder}", f"--replicas={FLAGS.replicas}"]
    command += [f"--port={port}", f"--metrics_port={metrics_port}", *options]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            end = time.monotonic() + 600
            while True:
                log.seek(0)
                text = log.read()
                if f"http://127.0.0.1:{port}" in text:
                    break
                if process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(f"the server did not start: {text[-2000:]}")
                time.sleep(0.5)
            yield port
        finally:
            process.terminate()
            process.wait(60)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def load(port, clients, labels, expected):
    """A row of the table: so many clients, one request at a time each."""
    latencies, bad, lock, numbers = [], [], threading.Lock(), iter(range(FLAGS.requests))
    begin = time.monotonic()

    def work():
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        while time.monotonic() < begin + FLAGS.seconds:
            with lock:
                number = next(numbers, None)
            if number is None:
                break
            i = number % len(expected)
            start = time.monotonic()
            try:
                right = np.array_equal(ask(connection, i, labels), expected[i])
            except (OSError, http.client.HTTPException, ValueError) as error:
                print(f"request {number}: {error!r}", file=sys.stderr)
                connection.close()
                right = False
            latencies.append(time.monotonic() - start)
            if not right:
                bad.append(number)
        connection.close()

    threads = [threading.Thread(target=work) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken = time.monotonic() - begin
    return {
        "clients": clients,
        "requests": len(latencies),
        "requests/s": (len(latencies) - len(bad)) / taken,
        "p50, ms": 1000 * float(np.percentile(latencies, 50)),
        "p99, ms": 1000 * float(np.percentile(latencies, 99)),
        "wrong or lost": len(bad),
    }


def ask(connection, i, labels):
    """Sample i, as an array of the image's shape."""
    from PIL import Image

    instance = {"seed": [0, i]} | ({} if labels is None else {"label": int(labels[i])})
    connection.request("POST", "/sample", json.dumps({"instances": [instance], "outputs": ["image_bytes"]}))
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 200:
        raise ValueError(f"{answer.status} {body[:200]!r}")
    file = base64.b64decode(json.loads(body)["predictions"][0]["image_bytes"]["b64"])
    image = np.asarray(Image.open(io.BytesIO(file)))
    return image if image.ndim == 3 else image[..., None]


if __name__ == "__main__":
    app.run(main)
