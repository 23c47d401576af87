"""What sampling costs, in teacher-forced forward passes of the same network and batch, and against others.

    python benchmarks/sampling.py --output=sampling.json
    python benchmarks/sampling.py --parts=cost --networks=pixels64 --batch_sizes=16

Parts:
- cost: time of sampling a batch and of one forward pass (`PixelCNN.call`, compiled, with or without XLA,
  whichever is faster), alternating in one process, medians; and the first call's time (compilation).
- memory: peak resident memory of a process that only samples 64 images of 64x64.
- models: 16 samples of zoo models, in forward passes of all of their networks, plain (temperature 1 and no
  guidance, which runs what it guides twice) and as the model samples; and the peak memory of a process
  that does.
- naive: speed-up at 32x32, batch 1, over a sampler that runs a forward pass an element. Only some rows of
  the naive sampler are run; the rest is extrapolated (every pass costs the same).
- bar: what the progress bar adds to sampling 64 images of fashion_mnist28 in four batches.
- start: time from the start of Python to 16 samples of a zoo model: the first process of a machine, which
  compiles, and later ones, which find its programs.
- tfp: time a sample of `tfp.distributions.PixelCNN` and of a network with as many parameters, 32x32x3.
"""

import multiprocessing
import os
import subprocess
import sys
import tempfile

import numpy as np
from absl import app, flags

FLAGS = flags.FLAGS
PARTS = ["cost", "memory", "models", "naive", "bar", "start", "tfp"]
PLAIN = {"temperature": 1.0, "top_p": 1.0}
SAMPLES = 16
flags.DEFINE_multi_enum("parts", PARTS, PARTS, "What to measure.")
flags.DEFINE_list("networks", ["pixels64", "codes16", "prior16"], "Networks of benchmarks/measuring.py.")
flags.DEFINE_list("models", ["fashion_mnist28", "imagenet64"], "Zoo models, of the parts models and start.")
flags.DEFINE_list("batch_sizes", ["1", "16", "64"], "Batch sizes, of the part cost.")
flags.DEFINE_integer("repeats", 5, "Runs whose median is taken.", lower_bound=1)
flags.DEFINE_integer("naive_rows", 2, "Rows of the naive sampler that are run.", lower_bound=1)
flags.DEFINE_string("output", None, "JSON file for the figures, a new one.")


def main(argv):
    if len(argv) > 1:
        raise ValueError(f"unexpected arguments {argv[1:]}; everything is a flag, see --help")
    import measuring

    from haim_tf import files

    output = files.check_new_file(FLAGS.output) if FLAGS.output else None
    measures = dict(zip(PARTS, (cost, memory, models, naive, bar, start, against_tfp), strict=True))
    results = {}
    for part in FLAGS.parts:
        results[part] = measures[part]()
        print(f"\n{part}\n")
        measuring.print_table(results[part])
    if output:
        files.write_json(output, results)


def forward_pass(network, x, conditioning):
    """The faster of the compiled forward passes on a batch, as a function without arguments, and its name."""
    import measuring
    import tensorflow as tf

    passes = {}
    for name, jit_compile in (("graph", False), ("XLA", True)):
        compiled = tf.function(network, jit_compile=jit_compile, autograph=False)
        inputs = tf.constant(x), {k: tf.constant(v) for k, v in conditioning.items()}
        passes[name] = lambda run=compiled, inputs=inputs: run(inputs[0], **inputs[1])[0, 0, 0].numpy()
    times = measuring.alternate(passes, 2)
    fastest = min(times, key=times.get)
    return passes[fastest], fastest


def cost():
    import measuring

    from haim_tf.sampling import Sampler, seed_pairs

    rows = []
    for name in FLAGS.networks:
        network, shape = measuring.make_network(name)
        for batch_size in map(int, FLAGS.batch_sizes):
            x, conditioning = measuring.make_inputs(network, shape, batch_size)
            forward, compiler = forward_pass(network, x, conditioning)
            sampler, seeds = Sampler(network, shape, stream=0), seed_pairs(0, batch_size)

            def sample(sampler=sampler, seeds=seeds, conditioning=conditioning):
                sampler(seeds, 1.0, 1.0, **conditioning)

            first = measuring.seconds(sample)
            times = measuring.alternate({"sample": sample, "forward": forward}, FLAGS.repeats)
            rows.append(
                {
                    "network": name,
                    "parameters": network.count_params(),
                    "batch": batch_size,
                    "sampling, s": times["sample"],
                    "forward pass, s": times["forward"],
                    "forward passes": times["sample"] / times["forward"],
                    "faster forward": compiler,
                    "samples/s": batch_size / times["sample"],
                    "first call, s": first,
                }
            )
            print(rows[-1], file=sys.stderr, flush=True)
    return rows


def memory():
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return [pool.apply(_sample_once, ("pixels64", 64))]


def _sample_once(name, batch_size):
    import measuring

    from haim_tf.sampling import Sampler, seed_pairs

    network, shape = measuring.make_network(name)
    _, conditioning = measuring.make_inputs(network, shape, batch_size)
    before = measuring.peak_memory()
    Sampler(network, shape, stream=0)(seed_pairs(0, batch_size), 1.0, 1.0, **conditioning)
    return {
        "network": name,
        "batch": batch_size,
        "peak MB": measuring.peak_memory(),
        "of it before sampling": before,
    }


def models():
    import measuring

    import haim_tf

    rows = []
    for name in FLAGS.models:
        model = haim_tf.load(name)
        plain = PLAIN | ({"guidance": 1.0} if model.takes_guidance else {})
        calls = {
            "plain": lambda model=model, plain=plain: model.sample(SAMPLES, **plain),
            "default": lambda model=model: model.sample(SAMPLES),
        }
        for index, network in enumerate(model.networks):
            x, conditioning = measuring.make_inputs(network, model.grid_shapes[index], SAMPLES)
            calls[f"forward {index}"] = forward_pass(network, x, conditioning)[0]
        times = measuring.alternate(calls, FLAGS.repeats)
        forward = sum(time for call, time in times.items() if call.startswith("forward"))
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            peak = pool.apply(_sample_model, (name,))
        rows.append(
            {
                "model": name,
                "plain, s": times["plain"],
                "forward passes, s": forward,
                "ratio": times["plain"] / forward,
                "default, s": times["default"],
                "s/image": times["default"] / SAMPLES,
                "peak MB": peak,
            }
        )
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


def _sample_model(name):
    import measuring

    import haim_tf

    haim_tf.load(name).sample(SAMPLES)
    return measuring.peak_memory()


def naive():
    import measuring
    import tensorflow as tf

    from haim_tf.sampling import Sampler, seed_pairs

    network, shape = measuring.make_network("pixels32")
    x, conditioning = measuring.make_inputs(network, shape, 1)
    sampler, seeds = Sampler(network, shape, stream=0), seed_pairs(0, 1)
    passes = FLAGS.naive_rows * shape[1]

    @tf.function(autograph=False)
    def draw(grid, row, column, noise, codes):
        params = network(grid, codes=codes)[:, row, column]
        return network.likelihood.sample(params, noise)

    def sample_naively():
        grid, codes = x.copy(), tf.constant(conditioning["codes"])
        noise = np.random.default_rng(0).uniform(size=(1, network.likelihood.noise_size)).astype("float32")
        for row, column in np.argwhere(np.ones(shape))[:passes].astype("int32"):
            args = (tf.constant(a) for a in (grid, row, column, noise))
            grid[:, row, column] = draw(*args, codes).numpy()

    functions = {"naive": sample_naively, "ours": lambda: sampler(seeds, 1.0, 1.0, **conditioning)}
    times = measuring.alternate(functions, FLAGS.repeats)
    extrapolated = times["naive"] / FLAGS.naive_rows * shape[0]
    return [
        {
            "network": "pixels32",
            "batch": 1,
            "naive, s (extrapolated)": extrapolated,
            "rows run": FLAGS.naive_rows,
            "ours, s": times["ours"],
            "speed-up": extrapolated / times["ours"],
        }
    ]


def bar():
    import contextlib
    import io

    import measuring

    import haim_tf

    model = haim_tf.load("fashion_mnist28")

    def sample(verbose):
        with contextlib.redirect_stdout(io.StringIO()):
            model.sample(64, batch_size=16, verbose=verbose)

    times = measuring.alternate({"bar": lambda: sample(True), "none": lambda: sample(False)}, FLAGS.repeats)
    return [
        {"with the bar, s": times["bar"], "without, s": times["none"], "ratio": times["bar"] / times["none"]}
    ]


def start():
    import measuring

    program = "import sys, haim_tf; haim_tf.load(sys.argv[1]).sample(int(sys.argv[2]))"
    rows = []
    for name in FLAGS.models:
        with tempfile.TemporaryDirectory() as home:
            env = {**os.environ, "HAIM_TF_HOME": home, "HAIM_TF_PROGRAMS": "1"}

            def run(command=(sys.executable, "-c", program, name, str(SAMPLES)), env=env):
                subprocess.run(command, env=env, stderr=subprocess.DEVNULL, check=True)

            first, *later = (measuring.seconds(run) for _ in range(1 + FLAGS.repeats))
        rows.append({"model": name, "first process, s": first, "later ones, s": float(np.median(later))})
    return rows


def against_tfp():
    import measuring
    import tensorflow as tf
    import tensorflow_probability as tfp

    from haim_tf.likelihoods import DiscretizedLogisticMixture
    from haim_tf.networks import PixelCNN
    from haim_tf.sampling import Sampler, seed_pairs

    # Chosen so that both have about as many parameters; neither is conditional.
    network = PixelCNN(DiscretizedLogisticMixture(3), width=64, blocks=6)
    network.build()
    theirs = tfp.distributions.PixelCNN(
        (32, 32, 3), num_resnet=1, num_hierarchies=2, num_filters=34, num_logistic_mix=10, dropout_p=0.0
    )
    draw = tf.function(lambda: theirs.sample(1, seed=0), autograph=False)
    sampler, seeds = Sampler(network, (32, 32), stream=0), seed_pairs(0, 1)
    sampler(seeds, 1.0, 1.0)
    tracing = measuring.seconds(draw.get_concrete_function)
    taken = measuring.seconds(lambda: draw().numpy())
    ours = float(np.median([measuring.seconds(lambda: sampler(seeds, 1.0, 1.0)) for _ in range(5)]))
    count = sum(int(np.prod(v.shape)) for v in theirs.network.trainable_variables)
    return [
        {
            "batch": 1,
            "tfp parameters": count,
            "our parameters": network.count_params(),
            "tfp, s (one run)": taken,
            "tfp tracing, s": tracing,
            "ours, s": ours,
            "speed-up": taken / ours,
        }
    ]


if __name__ == "__main__":
    app.run(main)
