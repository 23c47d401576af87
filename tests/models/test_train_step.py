"""Training part by part: where gradients go, clipping, freezing, and everything that `fit` takes."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from haim_tf.models import HierarchicalModel

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(256, size=(12, 8, 12, 1)).astype("uint8")
LABELS = np.arange(12, dtype="int32") % 3
PARTS = ["autoencoder_1", "decoder_1", "autoencoder_2", "decoder_2", "prior"]
CLIP = 0.05


def make(num_classes=3, num_levels=2, **arguments):
    decoder = {"width": 4, "blocks": 1, "heads": 2, "condition_width": 4, "condition_blocks": 1}
    level = {
        "downsampling": 2,
        "codebook_size": 5,
        "code_dim": 2,
        "width": 4,
        "blocks": 1,
        "decoder": decoder,
    }
    prior = {"width": 4, "blocks": 1, "heads": 2}
    return HierarchicalModel((8, 12, 1), [level] * num_levels, prior, num_classes, mixtures=2, **arguments)


def compiled(clip_norm=None, **arguments):
    """Eager, with plain gradient descent: a step's change of the weights is its gradient."""
    model = make(**arguments)
    model.compile(keras.optimizers.SGD(1.0), clip_norm=clip_norm, run_eagerly=True)
    return model


def copy_of(model, **arguments):
    fresh = compiled(**arguments)
    # `variables` has the quantizers' random state too.
    for ours, theirs in zip(fresh.variables, model.variables, strict=True):
        ours.assign(theirs)
    return fresh


def values(part):
    return [w.numpy() for w in part.weights]


def changes(model, losses=None, monkeypatch=None, scale=None):
    """How far each part's trainable weights go in one train step; its losses may be replaced first."""
    before = {name: [w.numpy() for w in part.trainable_variables] for name, part in model.parts.items()}
    if losses:
        original = model.losses_and_statistics

        def replaced(*arguments, **options):
            found, statistics = original(*arguments, **options)
            return {name: found[name] * scale for name, scale in losses.items()}, statistics

        monkeypatch.setattr(model, "losses_and_statistics", replaced)
    logs = model.train_step((IMAGES, LABELS))
    after = {name: [w.numpy() for w in part.trainable_variables] for name, part in model.parts.items()}
    return logs, {
        name: [b - a for a, b in zip(before[name], after[name], strict=True)] for name in model.parts
    }


def norm(arrays):
    return math.sqrt(sum(float(np.sum(np.square(a, dtype="float64"))) for a in arrays))


# Where gradients go ----------------------------------------------------------------------------------


@pytest.mark.parametrize("initialized", [False, True], ids=["fresh", "after a step"])
def test_each_loss_has_gradients_in_its_own_part_only(initialized):
    model = make()
    if initialized:
        model.losses_and_statistics(IMAGES, LABELS, training=True)
    codebooks = [autoencoder.quantizer.codebook.value for autoencoder in model.autoencoders]
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(codebooks)
        losses, _ = model.losses_and_statistics(IMAGES, LABELS, training=True)
    assert list(losses) == PARTS
    for name, loss in losses.items():
        assert tape.gradient(loss, codebooks) == [None, None]
        for other, part in model.parts.items():
            gradients = tape.gradient(loss, [w.value for w in part.trainable_variables])
            if other != name:
                assert gradients == [None] * len(gradients), f"the loss of {name} reaches {other}"
                continue
            for weight, gradient in zip(part.trainable_variables, gradients, strict=True):
                assert np.abs(tf.convert_to_tensor(gradient)).max() > 0, weight.path


def test_network_losses_move_no_autoencoder_through_the_train_step(monkeypatch):
    model = compiled()
    networks = {"decoder_1": 1.0, "decoder_2": 1.0, "prior": 1.0}
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        _, moved = changes(model, networks, monkeypatch)
    for name in PARTS:
        assert (norm(moved[name]) > 0) == (name in networks)


def test_auxiliary_losses_move_only_the_autoencoders_through_the_train_step(monkeypatch):
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        _, moved = changes(compiled(), {"autoencoder_1": 1.0}, monkeypatch)
    assert [name for name in PARTS if norm(moved[name]) > 0] == ["autoencoder_1"]


@pytest.mark.parametrize("scaled", ["autoencoder_1", "decoder_1", "prior"])
@pytest.mark.parametrize("clip_norm", [None, CLIP])
def test_a_parts_loss_does_not_alter_another_parts_update(scaled, clip_norm, monkeypatch):
    model = compiled(clip_norm)
    other = copy_of(model, clip_norm=clip_norm)
    _, plain = changes(model)
    _, changed = changes(other, {name: 1000.0 if name == scaled else 1.0 for name in PARTS}, monkeypatch)
    for name in PARTS:
        same = all(np.array_equal(a, b) for a, b in zip(plain[name], changed[name], strict=True))
        assert same == (name != scaled), name


def test_each_part_is_clipped_by_its_own_norm():
    free = compiled(None)
    clipped = copy_of(free, clip_norm=CLIP)
    logs, plain = changes(free)
    clipped_logs, short = changes(clipped)
    for name in PARTS:
        assert norm(plain[name]) > CLIP, "the test needs something to clip"
        np.testing.assert_allclose(norm(short[name]), CLIP, rtol=1e-4)
        direction = CLIP / norm(plain[name])
        for a, b in zip(plain[name], short[name], strict=True):
            np.testing.assert_allclose(b, direction * a, rtol=1e-3, atol=1e-7)
        for found in (logs, clipped_logs):
            np.testing.assert_allclose(found[f"gradient_norm_{name}"], norm(plain[name]), rtol=1e-4)


def test_float16_scales_its_loss_and_clips_what_is_left():
    model = compiled(dtype="mixed_float16")
    logs, moved = changes(model)
    for name in PARTS:
        np.testing.assert_allclose(logs[f"gradient_norm_{name}"], norm(moved[name]), rtol=1e-2)
    clipped = copy_of(model, clip_norm=CLIP, dtype="mixed_float16")
    assert type(clipped.optimizer).__name__ == "LossScaleOptimizer"
    _, moved = changes(clipped)
    for name in PARTS:
        np.testing.assert_allclose(norm(moved[name]), CLIP, rtol=1e-2)


# Freezing --------------------------------------------------------------------------------------------

FROZEN = {
    "codes": ["autoencoder_1", "autoencoder_2"],
    "decoders": ["decoder_1", "decoder_2"],
    "prior": ["prior"],
    "level_1": ["autoencoder_1", "decoder_1"],
    "level_2": ["autoencoder_2", "decoder_2"],
    "decoder_2": ["decoder_2"],
}


@pytest.mark.parametrize("name,parts", FROZEN.items(), ids=FROZEN)
def test_frozen_parts_and_their_codebooks_do_not_move(name, parts):
    model = compiled()
    model.freeze(name)
    before = {part: values(model.parts[part]) for part in PARTS}
    logs = model.train_step((IMAGES, LABELS))
    for part in PARTS:
        after = values(model.parts[part])
        moved = [not np.array_equal(a, b) for a, b in zip(before[part], after, strict=True)]
        assert any(moved) == (part not in parts)
        assert (f"loss_{part}" in logs) == (part not in parts)
        if part not in parts and part.startswith("autoencoder"):
            codebook = [w.path.endswith("codebook") for w in model.parts[part].weights].index(True)
            assert moved[codebook]
    model.unfreeze()
    assert len(model.trainable_variables) == len(make().trainable_variables)


def test_unfreeze_by_name_and_several_names():
    model = make()
    model.freeze("codes", "prior", "decoder_1")
    assert [name for name in PARTS if model.parts[name].trainable] == ["decoder_2"]
    model.unfreeze("level_1", "prior")
    assert [name for name in PARTS if not model.parts[name].trainable] == ["autoencoder_2"]
    assert model.parts_named(["codes", "prior"]) == {"autoencoder_1", "autoencoder_2", "prior"}


def test_unknown_part():
    model = make()
    for call in (model.freeze, model.unfreeze):
        with pytest.raises(ValueError, match=r"unknown part 'level_3'.*'codes', .*'level_1', .*'prior'"):
            call("prior", "level_3")
    assert model.prior.trainable


@pytest.mark.parametrize(
    "names, moved",
    [
        (["decoder_1"], {"decoder_1": ["embed_codes"]}),
        (["decoders"], {"decoder_1": ["embed_codes"], "decoder_2": ["embed", "embed_codes"]}),
        (["prior", "codes"], {"prior": ["embed"]}),
    ],
)
def test_embedding_by_codebooks_moves_the_named_networks_embeddings(names, moved):
    model = make()
    before = {w.path: w.numpy() for w in model.weights}
    model.embed_by_codebooks(*names)
    after = {w.path for w in model.weights if not np.array_equal(w.numpy(), before[w.path])}
    named = [getattr(model.parts[part], layer) for part, layers in moved.items() for layer in layers]
    assert after == {layer.embeddings.path for layer in named}
    spread = model.decoders[0].embed_codes.embeddings.numpy().std(axis=0)
    assert (spread > 0).all()


def test_a_flat_model_has_nothing_to_embed_by_codebooks():
    model = make(num_levels=0)
    model.embed_by_codebooks("prior")


def test_nothing_left_to_train():
    model = compiled()
    model.freeze("codes", "decoders", "prior")
    with pytest.raises(ValueError, match="all parts are frozen"):
        model.fit(IMAGES, LABELS)


def test_freezing_a_compiled_model_keeps_how_it_was_compiled():
    model = make()
    optimizer = keras.optimizers.AdamW(1e-3, weight_decay=0.1)
    model.compile(optimizer, clip_norm=0.5, run_eagerly=True, steps_per_execution=1)
    model.train_step((IMAGES, LABELS))
    model.freeze("codes")
    assert model.optimizer is not optimizer and int(model.optimizer.iterations) == 0
    assert model.optimizer.get_config() == optimizer.get_config()
    assert model.run_eagerly and model._clip_norm == 0.5
    model.train_step((IMAGES, LABELS))


def test_parts_frozen_without_compile_are_still_frozen_after_save_and_load(tmp_path):
    model = make()
    model.freeze("decoders")
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert [n for n in PARTS if not loaded.parts[n].trainable] == ["decoder_1", "decoder_2"]


class Halving(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule as tutorials write them: without a configuration."""

    def __call__(self, step):
        return 0.5 ** tf.cast(step, "float32")


def test_an_optimizer_that_cannot_be_made_anew_is_said_before_anything_is_frozen():
    model = make()
    model.compile(keras.optimizers.SGD(Halving()), run_eagerly=True)
    with pytest.raises(
        ValueError, match="the optimizer must be one that Keras can make anew.* compile after"
    ):
        model.freeze("codes")
    assert all(part.trainable for part in model.parts.values())


def test_unfreeze_undoes_what_keras_froze():
    model = make()
    model.trainable = False
    model.unfreeze("prior")
    assert [name for name in PARTS if model.parts[name].trainable] == ["prior"]
    assert [v.path for v in model.trainable_variables] == [v.path for v in model.prior.trainable_variables]


def test_frozen_parts_are_still_frozen_after_save_and_load(tmp_path):
    model = compiled()
    model.freeze("codes")
    model.train_step((IMAGES, LABELS))
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert [n for n in PARTS if not loaded.parts[n].trainable] == ["autoencoder_1", "autoencoder_2"]
    assert len(loaded.optimizer.variables) == len(model.optimizer.variables)


def test_a_step_whose_scaled_gradients_overflow_is_left_out_and_told_finitely():
    """As under mixed_float16: the optimizer scales less then, and training is not out of bounds."""
    model = make()
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(1.0), initial_scale=3e38)
    model.compile(optimizer, run_eagerly=True)
    before = [w.numpy() for w in model.prior.weights]
    logs = model.train_on_batch(IMAGES, LABELS, return_dict=True)
    assert all(np.isfinite(value) for value in logs.values())
    assert float(optimizer.dynamic_scale) < 3e38
    for weight, value in zip(model.prior.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)


# compile, fit, evaluate ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained():
    """A class-conditional model, compiled without arguments, after `fit` on NumPy arrays."""
    model = make(num_levels=1)
    model.compile()
    history = model.fit(IMAGES, LABELS, batch_size=4, epochs=2, verbose=0).history
    return model, history


def test_compile_defaults(trained):
    model, _ = trained
    assert type(model.optimizer) is keras.optimizers.Adam
    schedule = model.optimizer.get_config()["learning_rate"]["config"]
    assert schedule == {"learning_rate": 5e-4, "steps": 100}
    assert model._clip_norm == 1.0
    if not keras.distribution.list_devices("gpu"):
        assert model.jit_compile is False


def test_history_has_every_part(trained):
    _, history = trained
    parts = ["autoencoder_1", "decoder_1", "prior"]
    names = {"loss", "bits_per_dim", "perplexity_1", "active_fraction_1"}
    names |= {f"{kind}_{part}" for part in parts for kind in ("loss", "gradient_norm")}
    assert set(history) == names
    assert all(np.isfinite(series).all() and len(series) == 2 for series in history.values())
    sums = np.sum([history[f"loss_{part}"] for part in parts], axis=0)
    np.testing.assert_allclose(history["loss"], sums, rtol=1e-5)
    assert history["bits_per_dim"][1] < history["bits_per_dim"][0]


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        rows = slice(4 * index, 4 * index + 4)
        return IMAGES[rows], LABELS[rows]


def test_fit_takes_arrays_pairs_lists_tensors_and_data_sets(trained):
    model, _ = trained
    program = model.train_function
    for data in (
        (IMAGES, LABELS),
        ((IMAGES, LABELS),),
        ([IMAGES, LABELS.tolist()],),
        (IMAGES.astype("float64"), LABELS[:, None].astype("int64")),
        (tf.constant(IMAGES), tf.constant(LABELS)),
        (tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).batch(4),),
        (Batches(),),
    ):
        steps, before = int(model.optimizer.iterations), values(model.prior)
        in_batches = isinstance(data[0], (tf.data.Dataset, Batches))
        model.fit(*data, **({} if in_batches else {"batch_size": 4}), verbose=0)
        assert int(model.optimizer.iterations) == steps + 3
        assert any((a != b).any() for a, b in zip(before, values(model.prior), strict=True))
    assert model.train_function is program


def test_evaluate_is_the_mean_over_images_not_batches(trained):
    model, _ = trained
    expected = model.bits_per_dim(IMAGES, LABELS).mean()
    # 12 images in batches of 8 and 4.
    results = model.evaluate(IMAGES, LABELS, batch_size=8, verbose=0, return_dict=True)
    np.testing.assert_allclose(results["bits_per_dim"], expected, rtol=1e-5)
    assert not any(name.startswith("gradient_norm") for name in results)
    listed = model.evaluate((IMAGES, LABELS), batch_size=8, verbose=0)
    np.testing.assert_allclose(sorted(listed), sorted(results.values()), rtol=1e-5)


def test_evaluate_moves_nothing(trained):
    model, _ = trained
    before = values(model)
    model.evaluate(Batches(), verbose=0)
    for a, b in zip(before, values(model), strict=True):
        np.testing.assert_array_equal(a, b)


def test_losses_are_nats_per_element(trained):
    model, _ = trained
    losses, statistics = model.losses_and_statistics(IMAGES, LABELS)
    parts = {k: v.mean() for k, v in model.bits_per_dim(IMAGES, LABELS, per_level=True).items()}
    dimensions = math.prod(model.image_shape) * math.log(2)
    np.testing.assert_allclose(losses["decoder_1"], parts["level_1"] * dimensions / 96, rtol=1e-5)
    np.testing.assert_allclose(losses["prior"], parts["prior"] * dimensions / 24, rtol=1e-5)
    np.testing.assert_allclose(statistics["bits_per_dim"], parts["total"], rtol=1e-5)


def test_unconditional_model_trains_on_images_alone_with_validation():
    model = make(num_classes=None, num_levels=0)
    model.compile(run_eagerly=True)
    history = model.fit(IMAGES, batch_size=12, validation_data=IMAGES[:6], verbose=0).history
    assert {"loss", "bits_per_dim", "val_bits_per_dim", "gradient_norm_prior"} <= set(history)
    data = tf.data.Dataset.from_tensor_slices(IMAGES).batch(12)
    model.fit(data, validation_data=data, verbose=0)
    assert int(model.optimizer.iterations) == 2


def test_call_takes_images_and_labels_as_a_dict():
    model = make()
    outputs = model({"images": IMAGES, "labels": LABELS})
    assert list(outputs["losses"]) == PARTS
    assert outputs["statistics"]["bits_per_dim"] > 0
    flat = make(num_classes=None, num_levels=0)
    assert list(flat(IMAGES)["losses"]) == ["prior"]


@pytest.mark.parametrize("known", [1, 2])
def test_known_codes_give_the_losses_that_encoding_gives(known):
    model = make()
    expected, _ = model.losses_and_statistics(IMAGES, LABELS)
    codes = tuple(model.encode(IMAGES)[:known])
    losses, statistics = model.losses_and_statistics(IMAGES, LABELS, codes=codes)
    assert list(losses) == (["decoder_1"] if known == 1 else ["decoder_1", "decoder_2", "prior"])
    for name, loss in losses.items():
        np.testing.assert_allclose(loss, expected[name], rtol=1e-6)
    assert ("bits_per_dim" in statistics) == (known == 2)


def test_losses_of_crops_are_those_of_their_place():
    model = make()
    model.freeze("prior")
    # As after training: what a code says depends on its neighbours.
    rng = np.random.default_rng(0)
    for decoder in model.decoders:
        for variable in decoder.trainable_variables:
            variable.assign(rng.normal(0, 0.5, variable.shape))
    codes = [codes.astype("int32") for codes in model.encode(IMAGES)]
    whole, _ = model.losses_and_statistics(IMAGES, LABELS, codes)
    same, _ = model.losses_and_statistics(IMAGES, LABELS, codes, corner=np.zeros((12, 2), "int32"))
    for name in ("decoder_1", "decoder_2"):
        np.testing.assert_allclose(same[name], whole[name], rtol=1e-5)
    corner = np.stack([np.arange(12) % 2 * 4, np.arange(12) % 3 * 4], axis=1).astype("int32")
    crops = np.stack([image[y : y + 4, x : x + 4] for image, (y, x) in zip(IMAGES, corner, strict=True)])
    lower = np.stack([g[y : y + 2, x : x + 2] for g, (y, x) in zip(codes[0], corner // 2, strict=True)])
    found, _ = model.losses_and_statistics(crops, LABELS, codes, corner=corner)
    expected = {
        "decoder_1": model.decoders[0].log_prob(crops.astype("int32"), codes=codes[0], corner=corner),
        "decoder_2": model.decoders[1].log_prob(lower, codes=codes[1], corner=corner // 2),
    }
    for name, log_prob in expected.items():
        np.testing.assert_allclose(found[name], -np.mean(log_prob), rtol=1e-5)


@pytest.mark.parametrize("num_classes", [None, 3])
@pytest.mark.parametrize("method", ["fit", "evaluate", "train_on_batch", "test_on_batch"])
def test_weights_of_examples_and_classes_are_refused(num_classes, method):
    model = compiled(num_classes=num_classes)
    labels = LABELS if num_classes else None
    with pytest.raises(ValueError, match="sample_weight is not supported"):
        getattr(model, method)(IMAGES, labels, sample_weight=np.ones(12, "float32"))
    if method in ("fit", "train_on_batch"):  # Keras' others have none.
        with pytest.raises(ValueError, match="class_weight is not supported"):
            getattr(model, method)(IMAGES, labels, class_weight={0: 2.0})


def test_predict_names_what_there_is_to_ask():
    model = compiled()
    for method in (model.predict, model.predict_on_batch):
        with pytest.raises(ValueError, match="it has encode, reconstruct, sample, log_prob"):
            method(IMAGES)


def test_a_batch_without_images_is_named():
    model = compiled()
    batches = ((IMAGES[:n], LABELS[:n]) for n in (4, 0))
    with pytest.raises(ValueError, match="each batch must hold at least one image"):
        model.fit(batches, steps_per_epoch=2, verbose=0)


def test_arguments_by_position_are_keras_s():
    model = compiled()
    history = model.fit(IMAGES, LABELS, 4, 2, 0)
    assert len(history.history["loss"]) == 2 and model.optimizer.iterations == 6
    assert model.evaluate(IMAGES, LABELS, 4, 0, return_dict=True)["loss"] > 0
    assert np.isfinite(model.train_on_batch(IMAGES, LABELS, None)).all()
