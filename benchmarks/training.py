"""How near a training step of a main decoder comes to what plain convolutions reach on the same machine.

    python benchmarks/training.py --output=training.json
    python benchmarks/training.py --networks=fashion28 --precisions=float32

A step is what a recipe's step does for one network: log-likelihood, gradients, clipping, Adam with a moving
average of the weights. Its work is counted in floating point operations of products only, forward once and
backward twice, and of unmasked taps only. Beside it, in turn and in the same process, run the forward and
backward passes of one plain convolution of the blocks' shape (all taps count) and of one plain matrix product
of the blocks' width. The share is the step's rate over the convolution's. Memory is kept between steps as
`fit` keeps it (`haim_tf.processor`), unless the environment sets the allocator, such as by MALLOC_PERTURB_=0.
"""

from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_list("networks", ["fashion28", "imagenet64", "pixels64"], "Networks of benchmarks/measuring.py.")
flags.DEFINE_list("precisions", ["float32", "mixed_bfloat16"], "Dtype policies.")
flags.DEFINE_integer("batch_size", 32, "Batch size.", lower_bound=1)
flags.DEFINE_integer("repeats", 5, "Runs whose median is taken.", lower_bound=1)
flags.DEFINE_string("output", None, "JSON file for the figures, a new one.")


def main(argv):
    if len(argv) > 1:
        raise ValueError(f"unexpected arguments {argv[1:]}; everything is a flag, see --help")
    import measuring

    from haim_tf import files, processor

    processor.keep_freed_memory()
    output = files.check_new_file(FLAGS.output) if FLAGS.output else None
    rows = [measure(name, precision) for name in FLAGS.networks for precision in FLAGS.precisions]
    measuring.print_table(rows)
    if output:
        files.write_json(output, {"training": rows})


def measure(name, precision):
    import measuring

    network, shape = measuring.make_network(name, dtype=precision)
    work = 3 * FLAGS.batch_size * measuring.forward_operations(network, shape)
    convolution, convolution_work = measuring.plain_convolution(network, shape, FLAGS.batch_size)
    product, product_work = measuring.plain_product(network, shape, FLAGS.batch_size)
    functions = {
        "step": training_step(network, shape),
        "convolution": convolution,
        "product": product,
    }
    times = measuring.alternate(functions, FLAGS.repeats)
    rates = {
        "step": work / times["step"],
        "convolution": convolution_work / times["convolution"],
        "product": product_work / times["product"],
    }
    return {
        "network": name,
        "precision": precision,
        "parameters": network.count_params(),
        "step, s": times["step"],
        "images/s": FLAGS.batch_size / times["step"],
        "GFLOP/s": rates["step"] / 1e9,
        "plain convolution, GFLOP/s": rates["convolution"] / 1e9,
        "plain product, GFLOP/s": rates["product"] / 1e9,
        "share of the convolution": rates["step"] / rates["convolution"],
    }


def training_step(network, shape):
    import keras
    import measuring
    import tensorflow as tf

    x, conditioning = measuring.make_inputs(network, shape, FLAGS.batch_size)
    x, conditioning = tf.constant(x), {k: tf.constant(v) for k, v in conditioning.items()}
    variables = network.trainable_variables
    optimizer = keras.optimizers.Adam(1e-6, use_ema=True)
    optimizer.build(variables)

    @tf.function(autograph=False)
    def step():
        with tf.GradientTape() as tape:
            loss = -tf.reduce_mean(network.log_prob(x, **conditioning, training=True))
        gradients = tape.gradient(loss, [v.value for v in variables])
        gradients, _ = tf.clip_by_global_norm([tf.convert_to_tensor(g) for g in gradients], 1.0)
        optimizer.apply(gradients, variables)
        return loss

    return lambda: step().numpy()


if __name__ == "__main__":
    app.run(main)
