"""Our side of `compare.py`: the pixel decoder of benchmarks/measuring.py, under the backend of
KERAS_BACKEND.

    python benchmarks/peers/ours.py weights.npz BATCH_SIZE SAMPLES

Where there is no weights.npz it writes one: weights by the twin's names and layouts, a small batch, our
outputs for it. Then, for each line "step", "forward" or "sample" on standard input, it does that once and
prints the seconds.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
import measuring
from keras import ops

from haim_tf.backend import compiled, compiled_for_any_number
from haim_tf.sampling import Sampler, seed_pairs

NETWORK = "pixels32"
WAYS = compiled, compiled_for_any_number


def weights(network):
    """The network's weights by the names of the twin's parameters, in PyTorch's layouts."""
    found = {}

    def put(name, layer, dense=False):
        for variable in layer.weights:
            value = ops.convert_to_numpy(variable)
            if dense and value.ndim == 2:
                value = value[None, None]
            if value.ndim == 4:
                value = value.transpose(3, 2, 0, 1)
            kind = {"kernel": "weight", "embeddings": "weight", "kernel_above": "above", "kernel_row": "row"}
            found[f"{name}.{kind.get(variable.name, variable.name)}"] = np.ascontiguousarray(value)

    put("first", network.first)
    for i, block in enumerate(network.block_layers):
        put(f"blocks.{i}.conv", block.conv)
        put(f"blocks.{i}.merge", block.merge, dense=True)
        put(f"blocks.{i}.from_condition", block.from_condition, dense=True)
    put("hidden", network.hidden, dense=True)
    put("last", network.last, dense=True)
    put("embed_codes", network.embed_codes)
    for i, block in enumerate(network.read_codes.residual_blocks):
        put(f"read_codes.{i}.spatial", block.spatial_conv)
        put(f"read_codes.{i}.pointwise", block.pointwise_conv)
    put("upsample", network.upsample)
    put("condition_skip", network.condition_skip, dense=True)
    return found


def write(network, shape, path):
    x, conditioning = measuring.make_inputs(network, shape, 2)
    params = network(x, **conditioning)
    sizes = {
        "width": network.width,
        "blocks": network.blocks,
        "kernel_size": network.kernel_size,
        "codes": network.codebook_size,
        "upsampling": network.upsampling,
        "condition_width": network.condition_width,
        "condition_blocks": network.condition_blocks,
    }
    np.savez(
        path,
        **{f"weights/{name}": value for name, value in weights(network).items()},
        sizes=json.dumps(sizes),
        images=x,
        codes=conditioning["codes"],
        outputs=ops.convert_to_numpy(params)[..., : network.likelihood.params_size],
        nats=ops.convert_to_numpy(network.likelihood.log_prob(params, x)),
    )


def training_step(network, x, conditioning):
    """A recipe's step for one network: log-likelihood, gradients, clipping, Adam with a moving average."""
    import keras

    variables = network.trainable_variables
    optimizer = keras.optimizers.Adam(1e-6, use_ema=True, global_clipnorm=1.0)
    optimizer.build(variables)

    def loss():
        return -ops.mean(network.log_prob(x, **conditioning, training=True))

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        @tf.function(autograph=False)
        def step():
            with tf.GradientTape() as tape:
                value = loss()
            gradients = tape.gradient(value, [v.value for v in variables])
            optimizer.apply([tf.convert_to_tensor(g) for g in gradients], variables)
            return value

        return lambda: float(step())
    import jax

    def loss_of(values):
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
            return loss()

    @jax.jit
    def step(values, state):
        value, gradients = jax.value_and_grad(loss_of)(values)
        values, state = optimizer.stateless_apply(state, gradients, values)
        return value, values, state

    kept = [[v.value for v in variables], [v.value for v in optimizer.variables]]

    def run():
        value, *kept[:] = step(*kept)
        return float(value)

    return run


def main(path, batch_size, samples):
    network, shape = measuring.make_network(NETWORK)
    if not os.path.exists(path):
        write(network, shape, path)
    print(json.dumps({"parameters": network.count_params()}), flush=True)
    x, conditioning = measuring.make_inputs(network, shape, batch_size)
    x = ops.convert_to_tensor(x)
    conditioning = {name: ops.convert_to_tensor(value) for name, value in conditioning.items()}
    # With XLA and, under TensorFlow, without.
    passes = [make(lambda x, codes: network(x, codes=codes), network) for make in WAYS]
    sampler, seeds = Sampler(network, shape, stream=0), seed_pairs(0, samples)
    _, given = measuring.make_inputs(network, shape, samples)

    def forward(run):
        return float(run(x, conditioning["codes"])[0, 0, 0, 0])

    fastest = min(passes, key=lambda run: (forward(run), measuring.seconds(lambda: forward(run)))[1])
    work = {"step": training_step(network, x, conditioning), "forward": lambda: forward(fastest)}
    work["sample"] = lambda: sampler(seeds, 1.0, 1.0, **given)
    for line in sys.stdin:
        print(measuring.seconds(work[line.strip()]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
