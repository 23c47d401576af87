"""The evidence for auxiliary decoders: one model with its codes learned in several ways, or without codes.

    python benchmarks/evidence.py --data=imagenet32 --output=runs/evidence --page=docs/evidence.md

trains every arm of `evidence.json` with every seed on the split train, measures it on the split val, and
writes the page with figures and pictures. Run again, it goes on where it was killed: training runs resume,
and figures that are there are not measured again. --smoke tries the whole path at toy size.

All arms have the same networks and as many steps for each: the codes first, then the main decoder and the
prior. Where "decoder" says "labels", main decoders are told the label, as the model without codes is. The arm
`end_to_end` trains its main decoder and its codes together, then the main decoder for the rest of its steps,
beside the prior; `no_codes` is the main decoder alone, class-conditional, for as many steps.
"""

import json
import time
from pathlib import Path

import numpy as np
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_string("data", None, "TFDS name, image folder or .npz file with labels.", required=True)
flags.DEFINE_string(
    "score_split",
    "val",
    "Split whose images and classes the accuracy score is of, such as the `score` of hold_back.py.",
)
flags.DEFINE_string("output", None, "Folder of the runs.", required=True)
flags.DEFINE_string("page", None, "The page to write; by default evidence.md in the output folder.")
flags.DEFINE_string("config", str(Path(__file__).with_name("evidence.json")), "Arms and sizes.")
flags.DEFINE_string("set", "{}", "JSON object: other values for keys of the config, e.g. a shorter pilot.")
flags.DEFINE_list("arms", None, "The arms to run; all by default.")
flags.DEFINE_bool("smoke", False, "A few steps of toy models, to try the whole path.")
flags.DEFINE_bool("only_page", False, "Write the page from the figures that are there.")


def main(argv):
    if len(argv) > 1:
        raise ValueError(f"unexpected arguments {argv[1:]}; everything is a flag, see --help")
    import evidence_page

    output = Path(FLAGS.output)
    settings = read_settings()
    if not FLAGS.only_page:
        output.mkdir(parents=True, exist_ok=True)
        claim(output, settings)
        run_all(output, settings)
    page = Path(FLAGS.page) if FLAGS.page else output / "evidence.md"
    evidence_page.write(page, output, settings)
    print(f"done: {page}")


def read_settings():
    """The configuration with what --smoke, --set and --arms change."""
    from haim_tf.files import read_json

    settings = read_json(FLAGS.config)
    smoke = settings.pop("smoke")
    settings = {**settings, **(smoke if FLAGS.smoke else {})}
    changes = json.loads(FLAGS.set)
    if unknown := sorted(set(changes) - set(settings)):
        raise ValueError(f"--set: the config has the keys {sorted(settings)}, got unknown ones: {unknown}")
    settings.update(changes)
    if settings["decoder_steps"] <= settings["code_steps"]:  # What end_to_end trains after its codes.
        raise ValueError(
            "--set: decoder_steps must be more than code_steps, "
            f"got {settings['decoder_steps']} and {settings['code_steps']}"
        )
    arms = FLAGS.arms or list(settings["arms"])
    if unknown := sorted(set(arms) - set(settings["arms"])):
        raise ValueError(f"--arms: the arms are {sorted(settings['arms'])}, got {unknown}")
    settings["arms"] = {arm: settings["arms"][arm] for arm in arms}
    return {**settings, "data": FLAGS.data, "score_split": FLAGS.score_split}


def claim(output, settings):
    """Refuses a folder with figures of other settings; arms and seeds may be added."""
    from haim_tf.files import read_json, write_json

    path = output / "settings.json"
    if path.exists():
        kept = read_json(path)
        other = [key for key in settings if key not in ("arms", "seeds") and settings[key] != kept.get(key)]
        arms = {**kept["arms"], **settings["arms"]}
        other += [arm for arm, kind in kept["arms"].items() if arms[arm] != kind]
        if other:
            raise ValueError(
                f"{output} holds runs with other settings ({', '.join(other)}): name a new folder"
            )
        settings = {**settings, "arms": arms}
    write_json(path, settings)


def run_all(output, settings):
    from measuring import check_apart

    from haim_tf import data

    shape = tuple(settings["image_shape"])
    splits = ("train", "val", settings["score_split"])
    train, val, scored = (data.load(FLAGS.data, split, image_shape=shape) for split in splits)
    if any(images.labels is None for images in (train, val, scored)):
        raise ValueError(f"{FLAGS.data} has no labels: probes and scores need them")
    for held_out, split in ((val, "val"), (scored, settings["score_split"])):
        check_apart(train, held_out, f"split {split}")
    val, scored = (first_images(images, settings["eval_images"]) for images in (val, scored))
    judge = make_judge(output, settings, train, val, scored)
    for seed in settings["seeds"]:
        for arm in settings["arms"]:
            run_arm(output, settings, arm, seed, train, val, judge)


def run_arm(output, settings, arm, seed, train, val, judge):
    """Trains and measures one arm with one seed; every figure that is already there is kept."""
    from haim_tf import presets, training
    from haim_tf.files import read_json, write_json

    folder = output / f"{arm}-{seed}"
    path = output / f"{arm}-{seed}.json"
    figures = read_json(path) if path.exists() else {}
    recipe = make_recipe(settings, settings["arms"][arm], seed, 1 + int(train.labels.max()))
    if not (folder / "preset").exists():
        print(f"{arm}, seed {seed}: training", flush=True)
        training.train(training.read_recipe(recipe), FLAGS.data, folder)
    model = presets.load(folder / "preset")
    model.sampling_defaults = None  # Arms are compared, and pictured, by the distributions that they learned.
    measurements = {"model": measure_model, "codes": measure_codes, "samples": measure_samples}
    for name, measure in measurements.items():
        if name not in figures and (model.num_levels or name != "codes"):
            print(f"{arm}, seed {seed}: {name}", flush=True)
            started = time.time()
            found = measure(model, settings, seed, train, val, judge, folder)
            figures[name] = {**found, "minutes": round((time.time() - started) / 60, 2)}
            write_json(path, figures)
    save_pictures(model, settings, seed, val, folder)


def make_recipe(settings, auxiliary, seed, num_classes):
    """The training recipe of one arm; `auxiliary` is `None` for the arm without codes."""
    codes, total = settings["code_steps"], settings["decoder_steps"]
    rate = {"learning_rate": settings["learning_rate"], "warmup": settings["warmup"]}
    model = {"image_shape": settings["image_shape"], "num_classes": num_classes}
    if auxiliary is None:
        unused = ("condition_width", "condition_blocks", "labels")
        prior = {key: value for key, value in settings["decoder"].items() if key not in unused}
        model = {**model, "levels": [], "prior": prior}
        stages = [{"train": ["prior"], "steps": total, **rate}]
    else:
        level = {**settings["level"], "decoder": settings["decoder"], "auxiliary": auxiliary}
        model = {**model, "levels": [level], "prior": settings["prior"]}
        plan = [(["codes"], codes), (["decoders", "prior"], total)]
        if auxiliary["kind"] == "end_to_end":
            rest = total - codes
            plan = [(["codes", "decoders"], codes), (["decoders", "prior"], rest), (["prior"], codes)]
        stages = [{"train": names, "steps": steps, **rate} for names, steps in plan]
    return {**settings["training"], "seed": seed, "model": model, "stages": stages}


# Measurements ----------------------------------------------------------------------------------------


def measure_model(model, settings, seed, train, val, judge, folder):
    """Bits/dim, with shuffled codes too; use of the codebook; errors of the decoders; sizes and cost."""
    from haim_tf import evaluation, presets

    report = evaluation.evaluate(
        model, val, seed=seed, reconstructions=settings["reconstructions"], verbose=False
    )
    if not model.num_levels:
        del report["bits_per_dim"]["prior"]  # It is the total, and no price of codes.
    cost = presets.read(folder / "preset")[1]["training"]["hours"]
    parameters = {name: part.count_params() for name, part in model.parts.items()}
    used = sum(count for name, count in parameters.items() if not name.startswith("teacher"))
    return {**report, "parameters": parameters, "parameters_in_use": used, "training_hours": cost}


def measure_codes(model, settings, seed, train, val, judge, folder):
    """What the codes hold: classes, for a linear and a convolutional probe, and pixels, for a decoder.

    The three are trained afresh on the codes of each arm alike: `error_best` is the squared error of a
    feed-forward decoder of the auxiliary decoder's size, whatever the codes were learned by.
    """
    import keras

    from haim_tf.networks import FeedForwardDecoder

    codes = [model.encode(data.images[np.arange(len(data))])[0] for data in (train, val)]
    vectors = keras.ops.convert_to_numpy(model.autoencoders[0].quantizer.codebook)
    vectors = (vectors - vectors.mean(axis=0)) / (vectors.std(axis=0) + 1e-6)
    grid, classes = codes[0].shape[1:], 1 + int(train.labels.max())
    level = settings["level"]
    layers = keras.layers

    def read_codes(trainable):
        inputs = keras.Input(grid, dtype="int32")
        embedding = layers.Embedding(len(vectors), vectors.shape[1], trainable=trainable)
        hidden = embedding(inputs)
        embedding.set_weights([vectors])
        return inputs, hidden

    def linear():
        inputs, hidden = read_codes(trainable=False)
        logits = layers.Dense(classes, kernel_regularizer=keras.regularizers.L2(1e-4))(
            layers.Flatten()(hidden)
        )
        return keras.Model(inputs, logits)

    def convolutional():
        inputs, hidden = read_codes(trainable=True)
        for _ in range(3):
            hidden = layers.Conv2D(64, 3, padding="same", activation="relu")(hidden)
        hidden = layers.Dropout(0.3)(layers.GlobalAveragePooling2D()(hidden))
        return keras.Model(inputs, layers.Dense(classes)(hidden))

    def pixels():
        inputs, hidden = read_codes(trainable=True)
        decoder = FeedForwardDecoder(
            level["downsampling"], level["width"], level["blocks"], channels=train.image_shape[2]
        )
        return keras.Model(inputs, decoder(hidden))

    labels = [data.labels for data in (train, val)]
    found = {}
    for name, build in {"linear_probe": linear, "convolutional_probe": convolutional}.items():
        network = fit(build, codes[0], lambda rows: train.labels[rows], "classes", settings, seed)
        right = network.predict(codes[1], verbose=0).argmax(axis=1) == labels[1]
        found[name] = float(right.mean())
    network = fit(pixels, codes[0], lambda rows: train.images[rows] / 127.5 - 1.0, "pixels", settings, seed)
    predicted = network.predict(codes[1], verbose=0)
    found["error_best"] = float(np.mean((predicted - (val.images[np.arange(len(val))] / 127.5 - 1.0)) ** 2))
    return found


def fit(build, inputs, targets, what, settings, seed):
    """Trains a probe: Adam from 1e-3 down to 0 along a cosine, batches of 64."""
    import keras

    keras.utils.set_random_seed(seed)
    network, steps = build(), settings["probe_steps"]
    losses = {
        "classes": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        "pixels": keras.losses.MeanSquaredError(),
    }
    network.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(1e-3, steps)),
        losses[what],
        jit_compile=False,
    )
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        rows = np.sort(rng.integers(0, len(inputs), 64))
        network.train_on_batch(inputs[rows], targets(rows))
    return network


def make_judge(output, settings, train, val, scored):
    """The classifier of the scored classes trained on their real images, and the labels of those classes.

    It gives the features, and the accuracy to compare with. Its own figures stand in `judge.json`: its
    accuracy, and how far real training images are from the validation images, which no model's samples should
    be expected to beat.
    """
    import keras
    from measuring import of_classes

    from haim_tf import evaluation
    from haim_tf.files import write_json

    path, classes = output / "judge.keras", np.unique(scored.labels)
    counts = {"images": [len(train), len(val)], "num_classes": [1 + int(train.labels.max()), len(classes)]}
    train, val, scored = (of_classes(images, classes) for images in (train, val, scored))
    if (output / "judge.json").exists():
        network = keras.saving.load_model(path, compile=False)
        return evaluation.Judge(network, train, val, scored), classes
    network = evaluation.train_classifier(
        train, len(classes), steps=settings["classifier_steps"], verbose=False
    )
    network.save(path)
    judge = evaluation.Judge(network, train, val, scored)
    real = judge.score_real(settings["samples"])
    write_json(output / "judge.json", {**real, **counts})
    return judge, classes


def measure_samples(model, settings, seed, train, val, judge, folder):
    """How good samples are: the classification accuracy score, and distances in the judge's features."""
    from measuring import of_classes

    from haim_tf import evaluation

    judge, classes = judge
    samples = evaluation.draw_samples(
        model, settings["samples"], classes, seed=seed, batch_size=128, verbose=False
    )
    samples = of_classes(samples, classes)
    score = judge.score_samples(samples, steps=settings["classifier_steps"], seed=seed, verbose=False)
    names = ("num_samples", "frechet_distance", "precision", "recall", "neighbors", "counts")
    return {
        "classification_accuracy_score": score["accuracy_samples"],
        "standard_error": score["standard_error_samples"],
        **{name: score[name] for name in names},
    }


def save_pictures(model, settings, seed, val, folder):
    """`codes.png`: one row per image, what the auxiliary decoder makes of its codes, and samples of the main
    decoder from the same codes; `samples.png`: samples of the whole model."""
    from haim_tf import data

    if (folder / "samples_sheet.png").exists():
        return
    originals, labels = (x[np.arange(settings["pictures"])] for x in (val.images, val.labels))
    if model.num_levels:
        codes = model.encode(originals)[0]
        columns = [originals]
        if model.has_auxiliary(1):
            columns.append(model.reconstruct(originals, decoder="auxiliary"))
        known = {"labels": labels} if settings["decoder"].get("labels") else {}
        columns += [model.decode(codes, seed=1000 * seed + i, verbose=False, **known) for i in range(6)]
        sheet = np.stack(columns, axis=1).reshape(-1, *model.image_shape)
        data.save_grid(sheet, folder / "codes.png", columns=len(columns))
    count = settings["pictures"] ** 2
    data.save_grid(
        model.sample(count, seed=seed, verbose=False),
        folder / "samples_sheet.png",
        columns=settings["pictures"],
    )


def first_images(images, count):
    from haim_tf import data

    rows = np.arange(min(count, len(images)))
    return data.ImageData(images.images[rows], images.labels[rows], images.class_names, images.name)


if __name__ == "__main__":
    app.run(main)
