"""Training on several devices and workers: what one process does with the same global batch."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from haim_tf import training
from haim_tf.data import Batches, ImageData
from haim_tf.training.strategy import strategy_named

# A process of its own: devices are fixed when TensorFlow starts. It leaves every replica's final weights.
PROGRAM = """
import sys
import numpy as np
import tensorflow as tf
devices = tf.config.list_physical_devices("CPU")
if sys.argv[1] == "mirrored":
    tf.config.set_logical_device_configuration(devices[0], [tf.config.LogicalDeviceConfiguration()] * 2)
    mirrored = tf.distribute.MirroredStrategy
    tf.distribute.MirroredStrategy = lambda: mirrored(["CPU:0", "CPU:1"])
from haim_tf import training
from haim_tf.training import outcome, stages
outcome.save_pictures = lambda *args: None
stage, kept = stages.train_stage, {}
def train_stage(model, *args):
    stage(model, *args)
    for number, weight in enumerate(model.weights):
        for replica, copy in enumerate(getattr(weight.value, "values", [weight.value])):
            kept[f"{replica}:{number}"] = copy.numpy()
stages.train_stage = train_stage
recipe = training.read_recipe(sys.argv[2])
training.train(recipe, sys.argv[3], sys.argv[4], strategy=sys.argv[1], verbose=False)
np.savez(sys.argv[5], **kept)
"""


@pytest.fixture(scope="module")
def folder(small_images, small_recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("replicas")
    shutil.copy(small_images, folder / "images.npz")
    (folder / "recipe.json").write_text(json.dumps(small_recipe(3)))
    (folder / "program.py").write_text(PROGRAM)
    return folder


@pytest.fixture(scope="module")
def one_process(folder):
    """Without a program, and without pictures, whose making takes long and which are not the point."""
    tf.config.run_functions_eagerly(True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.outcome, "save_pictures", lambda *arguments: None)
        model = training.train(
            training.read_recipe(folder / "recipe.json"),
            folder / "images.npz",
            folder / "one_process",
            verbose=False,
        )
    tf.config.run_functions_eagerly(False)
    return model


def start(folder, strategy, output, weights, worker=None, ports=()):
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}
    if ports:
        cluster = {"worker": [f"localhost:{port}" for port in ports]}
        task = {"type": "worker", "index": worker}
        environment["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": task})
    names = ["program.py", strategy, "recipe.json", "images.npz", output, weights]
    log = open(folder / f"{weights}.log", "ab")
    return subprocess.Popen(
        [sys.executable, *names], cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT
    )


def start_workers(folder, output):
    sockets = [socket.socket() for _ in range(2)]
    for one in sockets:
        one.bind(("localhost", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return [start(folder, "multi_worker", output, f"{output}_{i}.npz", i, ports) for i in range(2)]


def finish(folder, processes):
    try:
        codes = [process.wait(timeout=600) for process in processes]
    finally:
        for process in processes:
            process.kill()
    logs = [path.read_text(errors="replace")[-3000:] for path in folder.glob("*.log")]
    assert not any(codes), "\n\n".join(logs)


def check(folder, output, copies, expected):
    """Every replica's weights are those of one process, all codebooks the same, and so are the losses."""
    for number, weight in enumerate(expected.weights):
        found = [copy[str(number)] for copy in copies]
        value = keras.ops.convert_to_numpy(weight)
        np.testing.assert_allclose(found[0], value, rtol=1e-3, atol=2e-4, err_msg=weight.path)
        for other in found[1:]:
            np.testing.assert_array_equal(other, found[0], err_msg=weight.path)
    table, reference = (
        np.genfromtxt(folder / run / "metrics.csv", delimiter=",", names=True)
        for run in (output, "one_process")
    )
    assert table.dtype.names == reference.dtype.names
    for name in set(table.dtype.names) - {"seconds"}:
        np.testing.assert_allclose(table[name], reference[name], rtol=1e-3, atol=1e-4, err_msg=name)
    assert (folder / output / "preset" / "model.weights.h5").exists()


def copies_in(path):
    with np.load(path) as saved:
        names = {name.partition(":")[0] for name in saved.files}
        return [{n.partition(":")[2]: saved[n] for n in saved.files if n.startswith(f"{i}:")} for i in names]


@pytest.mark.slow(reason="starts a process that trains on two devices")
def test_two_devices_train_as_one(folder, one_process):
    finish(folder, [start(folder, "mirrored", "mirrored", "mirrored.npz")])
    copies = copies_in(folder / "mirrored.npz")
    assert len(copies) == 2
    check(folder, "mirrored", copies, one_process)


@pytest.mark.slow(reason="starts two to four processes that train together")
def test_two_workers_train_as_one(folder, one_process):
    finish(folder, start_workers(folder, "workers"))
    copies = [copy for i in range(2) for copy in copies_in(folder / f"workers_{i}.npz")]
    assert len(copies) == 2
    check(folder, "workers", copies, one_process)


@pytest.mark.slow(reason="starts two to four processes that train together")
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_worker_and_its_peer_go_on_from_the_checkpoint(folder, one_process, victim):
    output = f"killed_{victim}"
    workers = start_workers(folder, output)
    deadline = time.time() + 600
    while not (folder / output / "checkpoint.npz").exists():
        assert time.time() < deadline and all(worker.poll() is None for worker in workers)
        time.sleep(0.01)
    workers[victim].send_signal(signal.SIGKILL)
    workers[victim].wait()
    other = workers[1 - victim].wait(timeout=600)
    assert other != 0 and not (folder / output / "preset").exists()
    finish(folder, start_workers(folder, output))
    copies = [copy for i in range(2) for copy in copies_in(folder / f"{output}_{i}.npz")]
    check(folder, output, copies, one_process)


def test_parts_of_batches_are_the_batch():
    rng = np.random.default_rng(0)
    data = ImageData(rng.integers(0, 256, (20, 8, 8, 1)).astype("uint8"), labels=rng.integers(0, 3, 20))
    batches = Batches(data, batch_size=6, flip=True, crop=4, seed=1)
    for step in range(5):
        parts = [batches.part(i, 3)[step] for i in range(3)]
        images, labels = batches[step]
        np.testing.assert_array_equal(np.concatenate([x["images"] for x, _ in parts]), images["images"])
        np.testing.assert_array_equal(np.concatenate([y for _, y in parts]), labels)
    with pytest.raises(ValueError, match="multiple of 4"):
        batches.part(0, 4)


def test_a_strategy_that_cannot_be_had_is_named(monkeypatch):
    assert strategy_named("none") is None
    with pytest.raises(ValueError, match="mirrored, multi_worker, got 'several'"):
        strategy_named("several")
    message = (
        "'data_parallel' must run under Keras' backend 'jax', got 'tensorflow', which has none, mirrored"
    )
    with pytest.raises(ValueError, match=message):
        strategy_named("data_parallel")
    for config in ("", "{", '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}'):
        monkeypatch.setenv("TF_CONFIG", config)
        with pytest.raises(ValueError, match="TF_CONFIG"):
            strategy_named("multi_worker")


SHARES = """
import keras
import numpy as np
import tensorflow as tf
devices = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(devices[0], [tf.config.LogicalDeviceConfiguration()] * 2)
import haim_tf
images = np.random.default_rng(0).integers(0, 256, (9, 4, 4, 1)).astype("uint8")
found = []
for scope in (None, tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope):
    keras.utils.set_random_seed(0)
    with scope() if scope else tf.name_scope("one"):
        model = haim_tf.HierarchicalModel((4, 4, 1), [], {"width": 4, "blocks": 1}, mixtures=2)
        model.compile(keras.optimizers.Adam(keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5)))
    model.freeze()  # Outside the scope that it was compiled in.
    for count in (7, 9):  # The last of these batches of 4: 3 images, 2 and 1; 1 image, and none.
        losses = model.fit(images[:count], batch_size=4, shuffle=False, verbose=0).history
        found.append({name: values[-1] for name, values in losses.items()})
    found.append(model.evaluate(images, batch_size=4, verbose=0, return_dict=True))
    found.append({str(i): np.asarray(w) for i, w in enumerate(model.get_weights())})
    assert int(keras.ops.convert_to_numpy(model.optimizer.iterations)) == 5
for one, two in zip(found[:4], found[4:], strict=True):
    for name in one:
        np.testing.assert_allclose(two[name], one[name], rtol=1e-3, atol=1e-4, err_msg=name)
"""


@pytest.mark.slow(reason="starts a process that trains on two devices")
def test_each_image_counts_alike_where_replicas_have_unequal_shares():
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}
    done = subprocess.run([sys.executable, "-c", SHARES], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
