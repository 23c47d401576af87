"""Models whose codes are learned by masked self-prediction, or end to end: who trains what."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import haim_tf
from haim_tf import compression, evaluation
from haim_tf.models import DiscreteAutoencoder, HierarchicalModel

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(256, size=(12, 8, 12, 1)).astype("uint8")
MASKED = {
    "kind": "masked_self_prediction",
    "window": 3,
    "bins": 8,
    "teacher_width": 4,
    "teacher_blocks": 1,
}
END_TO_END = {"kind": "end_to_end"}


def make(*auxiliary, **arguments):
    decoder = {"width": 4, "blocks": 1, "heads": 2, "condition_width": 4, "condition_blocks": 1}
    level = {
        "downsampling": 2,
        "codebook_size": 5,
        "code_dim": 2,
        "width": 4,
        "blocks": 1,
        "decoder": decoder,
    }
    levels = [{**level, "auxiliary": a} if a else level for a in auxiliary]
    return HierarchicalModel(
        (8, 12, 1), levels, {"width": 4, "blocks": 1, "heads": 2}, mixtures=2, **arguments
    )


def values(part):
    return [w.numpy() for w in part.weights]


def moved(model):
    """The parts that one step of training moves, and its logs."""
    before = {name: values(part) for name, part in model.parts.items()}
    logs = model.train_step(IMAGES)
    return logs, {
        name
        for name, part in model.parts.items()
        if any((a != b).any() for a, b in zip(before[name], values(part), strict=True))
    }


def reached(tape, loss, part):
    gradients = tape.gradient(loss, [w.value for w in part.trainable_variables])
    return [g is not None and np.abs(tf.convert_to_tensor(g)).max() > 0 for g in gradients]


# Masked self-prediction ------------------------------------------------------------------------------


def test_each_loss_trains_its_own_part_only():
    model = make(MASKED, MASKED)
    parts = ["autoencoder_1", "teacher_1", "decoder_1", "autoencoder_2", "teacher_2", "decoder_2", "prior"]
    assert list(model.parts) == parts
    model.losses_and_statistics(IMAGES, training=True)
    with tf.GradientTape(persistent=True) as tape:
        losses, _ = model.losses_and_statistics(IMAGES, training=True)
    assert set(losses) == set(parts)
    for name, loss in losses.items():
        for other, part in model.parts.items():
            found = reached(tape, loss, part)
            assert all(found) if other == name else not any(found), f"the loss of {name} in {other}"
    assert sum(len(part.trainable_variables) for part in model.parts.values()) == len(
        model.trainable_variables
    )
    assert sum(part.count_params() for part in model.parts.values()) == model.count_params()


def test_teachers_are_clipped_by_their_own_norm_frozen_and_trained_alone():
    model = make(MASKED, None)
    model.compile(keras.optimizers.SGD(1.0), clip_norm=1e-3, run_eagerly=True)
    before = values(model.parts["teacher_1"])
    logs, found = moved(model)
    assert found == set(model.parts) and "teacher_2" not in found
    assert logs["gradient_norm_teacher_1"] > 1e-3
    step = [b - a for a, b in zip(before, values(model.parts["teacher_1"]), strict=True)]
    np.testing.assert_allclose(np.sqrt(sum(np.sum(s**2) for s in step)), 1e-3, rtol=1e-3)

    model.freeze("teachers")
    logs, found = moved(model)
    assert found == set(model.parts) - {"teacher_1"} and "loss_teacher_1" not in logs
    model.unfreeze()
    model.freeze(*set(model.parts) - {"teacher_1"})
    logs, found = moved(model)
    assert found == {"teacher_1"}
    assert {name for name in logs if name.startswith("loss_")} == {"loss_teacher_1"}
    model.freeze("codes")
    model.unfreeze("decoders")
    assert moved(model)[1] == {"decoder_1", "decoder_2"}
    assert model.parts_named(["codes"]) == {"autoencoder_1", "teacher_1", "autoencoder_2"}
    assert model.parts_named(["level_1"]) == {"autoencoder_1", "teacher_1", "decoder_1"}


def test_fits_and_reconstructs():
    model = make({**MASKED, "positions": 20})
    model.compile(keras.optimizers.SGD(0.5))
    history = model.fit(IMAGES, batch_size=12, epochs=20, verbose=0).history
    for part in ("teacher_1", "autoencoder_1"):
        assert history[f"loss_{part}"][-1] < history[f"loss_{part}"][0]
    evaluated = model.evaluate(IMAGES, verbose=0, return_dict=True)
    assert evaluated["loss_teacher_1"] > 0
    codes = model.encode(IMAGES[:2])
    assert model.reconstruct(IMAGES[:2], decoder="auxiliary").shape == (2, 8, 12, 1)
    autoencoder = model.autoencoders[0]
    drawn = [np.array(autoencoder.sample(codes[0], seed=seed)) for seed in (0, 0, 1)]
    assert (drawn[0] == drawn[1]).all() and (drawn[0] != drawn[2]).any()
    with pytest.raises(ValueError, match="has no distribution to sample from"):
        make(None).autoencoders[0].sample(codes[0])


def test_a_model_without_its_teachers(tmp_path):
    model = make(MASKED, None)
    model.freeze("codes")
    assert not model.without_teachers().parts["autoencoder_2"].trainable
    model.unfreeze()
    model.losses_and_statistics(IMAGES, training=True)
    smaller = model.without_teachers()
    assert smaller.count_params() == model.count_params() - model.parts["teacher_1"].count_params()
    assert not any("teacher" in name for name in smaller.parts)
    np.testing.assert_array_equal(smaller.log_prob(IMAGES), model.log_prob(IMAGES))
    for a, b in zip(smaller.encode(IMAGES), model.encode(IMAGES), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(
        smaller.reconstruct(IMAGES, 1, "auxiliary"), model.reconstruct(IMAGES, 1, "auxiliary")
    )
    smaller.save_to_preset(tmp_path / "small")
    loaded = haim_tf.load(str(tmp_path / "small"))
    np.testing.assert_array_equal(loaded.log_prob(IMAGES), model.log_prob(IMAGES))
    model.save_to_preset(tmp_path / "whole")
    assert "teacher_1" in haim_tf.load(str(tmp_path / "whole")).parts

    # Everything else can still be trained; the codes whose teacher is gone stay frozen.
    loaded.unfreeze()
    loaded.compile(run_eagerly=True)
    assert moved(loaded)[1] == set(loaded.parts) - {"autoencoder_1"}
    loaded.unfreeze("autoencoder_1")
    with pytest.raises(ValueError, match="the teacher was dropped"):
        loaded.train_step(IMAGES)


def test_an_autoencoder_by_itself_trains_student_and_teacher():
    autoencoder = DiscreteAutoencoder(2, 5, 2, 4, 1, channels=1, auxiliary=MASKED)
    pixels = IMAGES / 127.5 - 1.0
    autoencoder.compile(keras.optimizers.Adam(0.03), run_eagerly=True)
    losses = autoencoder.fit(pixels.astype("float32"), epochs=4, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    outputs = autoencoder(pixels)
    expected = autoencoder.decoder.loss(outputs["outputs"], pixels)
    expected += 0.25 * autoencoder.quantizer(autoencoder.encoder(pixels))["commitment"]
    np.testing.assert_allclose(outputs["loss"], expected, rtol=1e-5)
    np.testing.assert_allclose(outputs["teacher_loss"], autoencoder.decoder.teacher_loss(pixels), rtol=1e-5)


# End to end ------------------------------------------------------------------------------------------


def test_end_to_end_the_main_decoder_trains_the_codes():
    model = make(END_TO_END, None)
    model.losses_and_statistics(IMAGES, training=True)
    # Autoencoders compute in float32 and are equal otherwise: what differs is who trains the encoder.
    with tf.GradientTape(persistent=True) as tape:
        losses, _ = model.losses_and_statistics(IMAGES, training=True)
    encoder = model.autoencoders[0].encoder
    assert all(reached(tape, losses["decoder_1"], encoder))
    assert all(reached(tape, losses["decoder_1"], model.decoders[0]))
    assert model.autoencoders[0].decoder is None
    for name in ("decoder_2", "autoencoder_2", "prior"):
        assert not any(reached(tape, losses[name], encoder))
    assert not any(reached(tape, losses["decoder_2"], model.parts["autoencoder_2"]))


def test_end_to_end_models_are_models(tmp_path):
    model = make(END_TO_END)
    model.compile(keras.optimizers.SGD(0.1))
    history = model.fit(IMAGES, batch_size=12, epochs=10, verbose=0).history
    assert history["bits_per_dim"][-1] < history["bits_per_dim"][0]
    losses, _ = model.losses_and_statistics(IMAGES)
    parts = {name: bits.mean() for name, bits in model.bits_per_dim(IMAGES, per_level=True).items()}
    np.testing.assert_allclose(losses["decoder_1"], parts["level_1"] * np.log(2), rtol=1e-5)
    codes = model.encode(IMAGES[:2])[0]
    sampled, log_prob = model.sampler(0)(
        np.zeros((2, 2), "int32"), 1.0, 1.0, codes=model.decoder_condition(codes, 1), log_prob=True
    )
    vectors = model.autoencoders[0].quantizer.lookup(codes)
    expected = np.array(model.decoders[0].log_prob(sampled, codes=vectors)).sum((1, 2))
    np.testing.assert_allclose(log_prob, expected, rtol=1e-4)
    assert model.reconstruct(IMAGES[:2]).shape == (2, 8, 12, 1)
    with pytest.raises(ValueError, match="no auxiliary decoder"):
        model.reconstruct(IMAGES, decoder="auxiliary")
    for use in (
        lambda: model.complete(IMAGES, rows=1),
        lambda: compression.compress(model, IMAGES),
        lambda: haim_tf.saved_model.export(model, tmp_path / "exported"),
    ):
        with pytest.raises(ValueError, match="needs codes learned by auxiliary decoders"):
            use()
    report = evaluation.evaluate(model, haim_tf.data.ImageData(IMAGES), reconstructions=0)
    assert report["levels"]["level_1"]["error_auxiliary"] is None


def test_end_to_end_parts_are_frozen_together_or_not_at_all():
    model = make(END_TO_END)
    model.compile(run_eagerly=True)
    model.freeze("decoders")
    with pytest.raises(ValueError, match="train both, or freeze both"):
        model.train_step(IMAGES)
    model.freeze("codes")
    assert moved(model)[1] == {"prior"}


# Configuration ---------------------------------------------------------------------------------------


def test_feed_forward_is_the_default():
    plain, named = make(None), make({"kind": "feed_forward"})
    assert [w.shape for w in plain.weights] == [w.shape for w in named.weights]
    assert type(named.autoencoders[0].decoder).__name__ == "FeedForwardDecoder"
    assert "auxiliary" not in plain.get_config()["levels"][0]


@pytest.mark.parametrize(
    ("auxiliary", "message"),
    [
        ({"kind": "self_prediction"}, "'masked_self_prediction'.*got 'self_prediction'"),
        ({**MASKED, "sigma": 1}, r"'window'.*unknown ones: \['sigma'\]"),
        ({**MASKED, "channels": 1}, "unknown ones: .*'channels'"),
        ({"kind": "feed_forward", "window": 3}, r"arguments \[\], got unknown ones: \['window'\]"),
        ({**END_TO_END, "window": 3}, "takes no further arguments, got .*window"),
        ({**MASKED, "window": 2}, "window must be odd"),
    ],
)
def test_bad_configurations(auxiliary, message):
    with pytest.raises(ValueError, match=message):
        make(auxiliary)
