"""Serves an exported model over HTTP with Ray Serve, on this machine or a Ray cluster.

    pip install "haim-tf[serve]"  # or, without haim_tf: absl-py, tensorflow and ray[serve]
    python export/serve.py --folder=models/fashion_mnist28 --replicas=2

`folder` is what `haim_tf export` writes; a newer version that appears there takes over while requests go on.
docs/serving.md has the requests, the answers and what happens under load. A page to try the model is at `/`.
"""

import os
import signal
import socket
import sys
import threading
from pathlib import Path

from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_string("folder", None, "Of the version folders, as haim_tf export writes them.", required=True)
flags.DEFINE_string("host", "127.0.0.1", "The address to listen on; there is no access control.")
flags.DEFINE_integer("port", 8000, "The port to listen on.", lower_bound=1, upper_bound=65535)
flags.DEFINE_integer(
    "metrics_port",
    8080,
    "Of Ray's Prometheus exporter; /metrics shows the same.",
    lower_bound=1,
    upper_bound=65535,
)
flags.DEFINE_integer("replicas", 2, "Processes that hold the model.", lower_bound=1)
flags.DEFINE_integer(
    "threads", None, "Of tensorflow in a replica; by default the cores' share.", lower_bound=1
)
flags.DEFINE_integer(
    "parallel",
    None,
    "Batches that a replica runs side by side; by default its threads, or 1 with a GPU.",
    lower_bound=1,
)
flags.DEFINE_integer("max_batch_size", 32, "Examples that share a batch; 1: no batching.", lower_bound=1)
flags.DEFINE_float("batch_wait", 0.005, "Seconds that a batch waits for more examples.", lower_bound=0.0)
flags.DEFINE_integer("max_examples", 64, "Examples in a request.", lower_bound=1)
flags.DEFINE_integer("max_bytes", 8 << 20, "Of a request's body.", lower_bound=1)
flags.DEFINE_integer("max_ongoing", 64, "Requests that a replica works on.", lower_bound=1)
flags.DEFINE_integer(
    "max_queued", 64, "Requests that wait for a replica; further ones get a 503.", lower_bound=1
)
flags.DEFINE_float("read_seconds", 10.0, "That a client may take to send its request.", lower_bound=0.1)
flags.DEFINE_float("answer_seconds", 60.0, "That an answer may take, before a 504.", lower_bound=0.1)
flags.DEFINE_float("poll_seconds", 5.0, "Between two looks for a newer version.", lower_bound=0.1)
flags.DEFINE_string("address", None, "Of a Ray cluster that is running; none: one on this machine alone.")


def main(argv):
    try:
        if len(argv) > 1:
            raise ValueError(f"unexpected argument {argv[1]!r}; everything is a flag, --name=value")
        serve()
    except (ValueError, OSError) as error:
        print(f"serve: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)


def check_port(host, port, flag):
    """Ray itself would try again and again, or say nothing of a port."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise ValueError(
                f"cannot listen on {host}:{port}, the --{flag}: {error.strerror or error}"
            ) from None


def serve():
    from serving.exported import newest_version, read_description

    folder = Path(FLAGS.folder).expanduser().absolute()
    if not folder.is_dir() or (version := newest_version(folder)) is None:
        raise ValueError(f"{folder} has no version folder 1, 2, ...: write one with haim_tf export")
    read_description(folder, version, FLAGS.max_batch_size)
    check_port(FLAGS.host, FLAGS.port, "port")
    if not FLAGS.address:
        check_port("0.0.0.0", FLAGS.metrics_port, "metrics_port")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        from ray import serve
    except ImportError as error:
        raise ValueError(f'serving needs Ray Serve, pip install "haim-tf[serve]": {error}') from None

    # Those that this process may use, where the system tells.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if FLAGS.address:
        # The machines of a cluster get the code from here; the folder they must all see.
        here = str(Path(__file__).resolve().parent)
        ray.init(FLAGS.address, runtime_env={"working_dir": here})
    else:
        ray.init(
            num_cpus=cores,
            include_dashboard=False,
            object_store_memory=128 << 20,  # Requests do not go through it.
            _metrics_export_port=FLAGS.metrics_port,
        )
    from serving.server import Server

    # A request that gets past the limits of the replica must not hang either.
    limit = FLAGS.read_seconds + FLAGS.answer_seconds + 5.0
    serve.start(http_options={"host": FLAGS.host, "port": FLAGS.port, "request_timeout_s": limit})
    deployment = Server.options(
        num_replicas=FLAGS.replicas,
        max_ongoing_requests=FLAGS.max_ongoing,
        max_queued_requests=FLAGS.max_queued,
        # Shares of the machine to Ray; what a replica really uses is `threads`.
        ray_actor_options={"num_cpus": min(1.0, 0.9 * cores / FLAGS.replicas)},
        health_check_timeout_s=60.0,
        graceful_shutdown_timeout_s=5.0,
    )
    application = deployment.bind(
        folder=str(folder),
        threads=FLAGS.threads or max(1, cores // FLAGS.replicas),
        parallel=FLAGS.parallel,
        max_batch_size=FLAGS.max_batch_size,
        wait_seconds=FLAGS.batch_wait,
        max_examples=FLAGS.max_examples,
        max_bytes=FLAGS.max_bytes,
        read_seconds=FLAGS.read_seconds,
        answer_seconds=FLAGS.answer_seconds,
        poll_seconds=FLAGS.poll_seconds,
        metrics_port=FLAGS.metrics_port,
    )
    stop = threading.Event()
    try:
        try:
            serve.run(application, name="haim_tf", route_prefix="/")
        except RuntimeError as error:
            raise ValueError(f"the model cannot be served, its replicas' log says why: {error}") from None
        print(f"serving {folder} at http://{FLAGS.host}:{FLAGS.port}", flush=True)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        stop.wait()
    finally:
        serve.shutdown()
        ray.shutdown()


if __name__ == "__main__":
    app.run(main)
