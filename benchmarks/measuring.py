"""What benchmarks share: networks of the sizes that they report on, timings in turn, tables, some classes."""

import pathlib
import time

import numpy as np

from haim_tf.likelihoods import Categorical, DiscretizedLogisticMixture
from haim_tf.networks import PixelCNN

# What is measured: a network's grid, the codes that condition it (None: not conditional) and its arguments.
PIXELS = {"width": 64, "blocks": 6, "codebook_size": 256, "upsampling": 4, "condition_width": 32}
NETWORKS = {
    # The pixel decoder of zoo/fashion_mnist28/recipe.json.
    "fashion28": (
        (28, 28),
        {**PIXELS, "width": 80, "kernel_size": (3, 3), "codebook_size": 8, "upsampling": 2},
    ),
    # That of zoo/imagenet64/recipe.json, on the crops that it is trained on.
    "imagenet64": ((32, 32), {**PIXELS, "width": 96, "condition_width": 64}),
    "pixels64": ((64, 64), PIXELS),
    "pixels32": ((32, 32), PIXELS),
    "codes16": ((16, 16), {**PIXELS, "upsampling": 2, "attention": [1, 3]}),
    "prior16": ((16, 16), {"width": 64, "blocks": 6, "attention": [1, 3], "num_classes": 10}),
}


def make_network(name, **arguments):
    """A network of `NETWORKS` with random weights of a trained one's size, and its grid `(H, W)`."""
    shape, fixed = NETWORKS[name]
    channels = {"fashion28": 1, "imagenet64": 3, "pixels32": 3, "pixels64": 3}.get(name)
    likelihood = DiscretizedLogisticMixture(channels) if channels else Categorical(256)
    network = PixelCNN(likelihood, **fixed, **arguments)
    network.build()
    rng = np.random.default_rng(0)
    for weight in network.weights:
        if weight.ndim > 1:
            fan_in = np.prod(weight.shape[:-1])
            weight.assign(rng.normal(0, 1 / np.sqrt(fan_in), weight.shape))
    return network, shape


def make_inputs(network, shape, batch_size, seed=0):
    """A random grid and the network's conditioning, NumPy int32: `(x, {"codes": ..., "labels": ...})`."""
    rng = np.random.default_rng(seed)

    def integers(high, *size):
        return rng.integers(high, size=size).astype("int32")

    conditioning = {}
    if network.codebook_size:
        codes_shape = (side // network.upsampling for side in shape)
        conditioning["codes"] = integers(network.codebook_size, batch_size, *codes_shape)
    if network.num_classes:
        conditioning["labels"] = integers(network.num_classes, batch_size)
    head = network.likelihood
    return integers(head.num_values, batch_size, *shape, *head.element_shape), conditioning


def forward_operations(network, shape, crop=None):
    """Floating point operations of the products in one grid's forward pass, of unmasked taps only.

    `shape` is the grid's; attention counts the pairs that the mask leaves. Of a network that sees only a
    square of side `crop` of it, the codes are still read as a whole.
    """
    whole = int(np.prod(shape))
    positions = whole if crop is None else crop**2
    total = 0
    for weight in network.trainable_variables:
        if weight.ndim < 2 or "embed" in weight.path:
            continue
        coarse = "read_codes" in weight.path or "upsample" in weight.path
        places = whole // network.upsampling**2 if coarse else positions
        if "from_vector" in weight.path:
            places = 1
        # Every weight takes part in one multiplication and one addition a place.
        total += 2 * places * int(np.prod(weight.shape))
    pairs = positions * (positions + 1) // 2
    return total + len(network.attention) * 2 * 2 * pairs * network.width


def plain_convolution(network, shape, batch_size):
    """Forward and backward passes of one convolution of a network's blocks' shape, and their operations."""
    import keras

    size = (*network.kernel_size, network.width, 2 * network.width)
    work = 3 * 2 * batch_size * int(np.prod(shape)) * int(np.prod(size))

    def convolution(x, kernel):
        return keras.ops.conv(x, kernel, strides=1, padding="same")

    return with_gradients(convolution, network.compute_dtype, (batch_size, *shape, network.width), size), work


def plain_product(network, shape, batch_size):
    """The same of one matrix product of the blocks' width."""
    import keras

    positions, width = batch_size * int(np.prod(shape)), network.width
    run = with_gradients(keras.ops.matmul, network.compute_dtype, (positions, width), (width, 2 * width))
    return run, 3 * 2 * positions * 2 * width**2


def with_gradients(function, dtype, *shapes):
    """A call of the compiled forward and backward passes of a function of random tensors."""
    import keras

    rng = np.random.default_rng(0)
    operands = [keras.ops.convert_to_tensor(rng.normal(0, 1, shape), dtype) for shape in shapes]
    outputs = function(*operands)

    def ends(tensors):
        # All results are asked for, so that none of the passes is left out.
        return [keras.ops.max(keras.ops.reshape(t, (-1,))[:1]) for t in tensors]

    if keras.backend.backend() == "jax":
        import jax

        @jax.jit
        def run(outputs, *operands):
            results, backward = jax.vjp(function, *operands)
            return ends([results, *backward(outputs)])
    else:
        import tensorflow as tf

        @tf.function(autograph=False)
        def run(outputs, *operands):
            with tf.GradientTape() as tape:
                tape.watch(operands)
                results = function(*operands)
            return ends([results, *tape.gradient(results, operands, output_gradients=outputs)])

    return lambda: [keras.ops.convert_to_numpy(t) for t in run(outputs, *operands)]


def of_classes(images, classes):
    """The images of these labels, with labels 0, 1, ... in their order."""
    from haim_tf import data

    rows = np.flatnonzero(np.isin(images.labels, classes))
    labels = np.searchsorted(np.sort(classes), images.labels[rows])
    return data.ImageData(images.images[rows], labels, name=images.name)


def check_apart(train, held_out, what):
    """A ValueError where training images and others are the same, as those of a source without splits are."""
    if len(held_out) == len(train) and np.array_equal(held_out.images[:100], train.images[:100]):
        raise ValueError(f"training images and those of {what} are the same: name others")


def seconds(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def alternate(functions, repeats):
    """Median seconds of each of a dict of functions, run in turn `repeats` times after one warm-up."""
    times = {name: [] for name in functions}
    for function in functions.values():
        function()
    for _ in range(repeats):
        for name, function in functions.items():
            times[name].append(seconds(function))
    return {name: float(np.median(values)) for name, values in times.items()}


def peak_memory():
    """The largest resident size of this process so far, in MB (Linux).

    Not `ru_maxrss`, which a child process inherits from its parent.
    """
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def print_table(rows):
    """Prints dicts of the same keys as a Markdown table."""
    columns = list(rows[0])
    cells = [[_cell(row[c]) for c in columns] for row in rows]
    print("| " + " | ".join(columns) + " |")
    print("|" + "---|" * len(columns))
    for row in cells:
        print("| " + " | ".join(row) + " |", flush=True)


def _cell(value):
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
