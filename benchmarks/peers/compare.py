r"""Our pixel decoder beside the same one in plain PyTorch, under TensorFlow and under JAX, in turn.

    python -m venv .venv-torch && .venv-torch/bin/pip install -r benchmarks/peers/requirements.txt
    python benchmarks/peers/compare.py --torch_python=.venv-torch/bin/python \
        --jax_python=.venv-jax/bin/python --output=peers.json

Each peer is a process of its own that waits for its turn: a training step (float32, Adam, clipping, moving
average), a forward pass, sampling. The PyTorch sampler is naive, one forward pass per element; some of its
rows are run, and the seconds stand for all. The twin gets our weights: the report says how far its outputs
and likelihoods are from ours, and the run stops where the numbers of parameters differ. Ratios are of
medians; nothing else may run meanwhile.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from absl import app, flags

FLAGS = flags.FLAGS
HERE = Path(__file__).parent
WORK = "step", "forward", "sample"
flags.DEFINE_string("torch_python", None, "Python of an environment with requirements.txt.", required=True)
flags.DEFINE_string("jax_python", None, "Python of an environment with haim_tf and JAX; none: without JAX.")
flags.DEFINE_integer("batch_size", 32, "Images of 32x32 in a step and a forward pass.", lower_bound=1)
flags.DEFINE_integer("samples", 16, "Images sampled at once.", lower_bound=1)
flags.DEFINE_integer("naive_rows", 2, "Rows of the naive sampler that are run, of 32.", lower_bound=1)
flags.DEFINE_integer("repeats", 5, "Runs whose median is taken.", lower_bound=1)
flags.DEFINE_string("output", None, "JSON file for the figures, a new one.")


class Peer:
    """A process that does what it is told and says how long it took."""

    def __init__(self, python, script, *arguments, **environment):
        command = [python, str(HERE / script), *map(str, arguments)]
        environment = {**os.environ, **environment}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen(command, text=True, env=environment, **pipes)
        self.report = json.loads(self._answer())

    def run(self, work):
        self.process.stdin.write(f"{work}\n")
        self.process.stdin.flush()
        return float(self._answer())

    def _answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.process.args} ended with exit code {self.process.wait()}")
        return line

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def main(argv):
    if len(argv) > 1:
        raise ValueError(f"unexpected arguments {argv[1:]}; everything is a flag, see --help")
    sys.path.insert(0, str(HERE.parent))
    import measuring

    from haim_tf import files

    output = files.check_new_file(FLAGS.output) if FLAGS.output else None
    with tempfile.TemporaryDirectory() as folder:
        common = Path(folder) / "weights.npz", FLAGS.batch_size, FLAGS.samples
        peers = {"tensorflow": Peer(sys.executable, "ours.py", *common, KERAS_BACKEND="tensorflow")}
        if FLAGS.jax_python:
            peers["jax"] = Peer(FLAGS.jax_python, "ours.py", *common, KERAS_BACKEND="jax")
        peers["torch"] = Peer(FLAGS.torch_python, "twin.py", *common, FLAGS.naive_rows)
        for name, peer in peers.items():
            print(name, peer.report, file=sys.stderr, flush=True)
        counts = {peer.report["parameters"] for peer in peers.values()}
        if len(counts) > 1:
            raise ValueError(f"the peers must have the same number of parameters, got {sorted(counts)}")
        rows = []
        for work in WORK:
            rows += compare(peers, work)
        reports = {name: peer.report for name, peer in peers.items()}
        for peer in peers.values():
            peer.close()
    measuring.print_table(rows)
    if output:
        files.write_json(output, {"peers": rows, "reports": reports})


def compare(peers, work):
    times = {name: [] for name in peers}
    for peer in peers.values():
        peer.run(work)
    for _ in range(FLAGS.repeats):
        for name, peer in peers.items():
            times[name].append(peer.run(work))
    medians = {name: float(np.median(values)) for name, values in times.items()}
    if work == "sample":
        medians["torch"] *= 32 / FLAGS.naive_rows
    return [
        {
            "what": {"step": "training step", "forward": "forward pass", "sample": "sampling"}[work],
            "batch": FLAGS.samples if work == "sample" else FLAGS.batch_size,
            "backend": name,
            "ours / PyTorch": medians[name] / medians["torch"],
            "PyTorch / ours": medians["torch"] / medians[name],
        }
        for name in peers
        if name != "torch"
    ]


if __name__ == "__main__":
    app.run(main)
