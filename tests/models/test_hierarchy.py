"""HierarchicalModel: codes, likelihoods and samples of hierarchies of every shape, and bad configurations."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from haim_tf.models import HierarchicalModel

RNG = np.random.default_rng(0)


def level(downsampling=2, codebook_size=5, **decoder):
    decoder = {"width": 4, "blocks": 1, "kernel_size": [2, 3], "heads": 2} | decoder
    decoder |= {"condition_width": 4, "condition_blocks": 1}
    return {
        "downsampling": downsampling,
        "codebook_size": codebook_size,
        "code_dim": 2,
        "width": 4,
        "blocks": 1,
        "decoder": decoder,
    }


PRIOR = {"width": 4, "blocks": 1, "kernel_size": [2, 3], "heads": 2}


def make(image_shape=(4, 8, 1), levels=(), **arguments):
    return HierarchicalModel(image_shape, list(levels), **({"prior": PRIOR, "mixtures": 2} | arguments))


def randomized(model):
    """Like a trained model: nothing near zero, codebooks as wide as the queries."""
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if weight.path.endswith("codebook"):
            weight.assign(rng.normal(0, 1, weight.shape))
        elif weight.trainable:
            weight.assign(rng.normal(0, 0.6, weight.shape))
    return model


def make_images(model, count, seed=0):
    return np.random.default_rng(seed).integers(256, size=(count, *model.image_shape)).astype("uint8")


CONFIGURATIONS = {
    "flat colour": {"image_shape": (4, 6, 3)},
    "one level, by 3, colour": {"image_shape": (6, 9, 3), "levels": [level(3)]},
    "two levels, grey values as categories, labels": {
        "levels": [level(2), level(2, 4, attention=[0])],
        "pixel_likelihood": "categorical",
        "num_classes": 3,
    },
    "three levels, by 1, 2 and 4, labels": {
        "image_shape": (8, 16, 1),
        "levels": [level(1), level(2, 7), level(4, 3)],
        "num_classes": 2,
    },
}


@pytest.mark.parametrize("configuration", CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_codes_and_likelihoods(configuration):
    model = randomized(make(**configuration))
    images = make_images(model, 3)
    labels = None if model.num_classes is None else np.array([0, 1, 1])
    codes = model.encode(images)
    height, width, _ = model.image_shape
    factor = 1
    for grid, settings in zip(codes, configuration.get("levels", []), strict=True):
        factor *= settings["downsampling"]
        assert grid.dtype == "int32" and grid.shape == (3, height // factor, width // factor)
        assert grid.min() >= 0 and grid.max() < settings["codebook_size"]
    assert any(len(np.unique(grid)) > 1 for grid in codes) or not codes

    log_prob = model.log_prob(images, labels)
    bits = model.bits_per_dim(images, labels)
    parts = model.bits_per_dim(images, labels, per_level=True)
    assert log_prob.shape == bits.shape == (3,) and log_prob.dtype == bits.dtype == "float32"
    np.testing.assert_allclose(bits, -log_prob / (math.prod(model.image_shape) * math.log(2)), rtol=1e-6)
    total = parts.pop("total")
    assert list(parts) == [f"level_{i + 1}" for i in range(len(codes))] + ["prior"]
    assert all((part > 0).all() for part in parts.values())
    np.testing.assert_allclose(sum(parts.values()), total, rtol=1e-5)
    np.testing.assert_array_equal(total, bits)

    # The same by hand, network by network.
    grids = [images.astype("int32"), *codes]
    if configuration.get("pixel_likelihood") == "categorical":
        grids[0] = grids[0][..., 0]
    expected = model.prior.log_prob(grids[-1], labels=labels).numpy().sum((1, 2))
    for decoder, lower, upper in zip(model.decoders, grids[:-1], grids[1:], strict=True):
        expected += decoder.log_prob(lower, codes=upper).numpy().sum((1, 2))
    np.testing.assert_allclose(log_prob, expected, rtol=1e-5)

    for l in range(1, len(codes) + 1):
        reconstruction = model.reconstruct(images, level=l, decoder="auxiliary")
        assert reconstruction.dtype == "uint8" and reconstruction.shape == images.shape
        grid = codes[l - 1]
        for autoencoder in model.autoencoders[l - 1 :: -1]:
            grid = autoencoder.reconstruct(grid)
        np.testing.assert_allclose(reconstruction, (np.array(grid) + 1) * 127.5, atol=0.51)


@pytest.fixture(scope="module")
def model():
    """One level and labels: two networks to compile a batch size."""
    return randomized(make((4, 6, 1), [level(2, attention=[0])], num_classes=3))


@pytest.fixture(scope="module")
def samples(model):
    return model.sample(3, seed=5)


def test_results_do_not_depend_on_the_batch(model):
    images, labels = make_images(model, 70), np.arange(70) % 3
    bits = model.bits_per_dim(images, labels)
    np.testing.assert_allclose(model.bits_per_dim(images[66:], labels[66:]), bits[66:], rtol=1e-5)
    np.testing.assert_array_equal(model.encode(images)[0][66:], model.encode(images[66:])[0])
    assert model.log_prob(images[:0], labels[:0]).shape == (0,)
    assert model.encode(images[:0])[0].shape == (0, 2, 3)


def test_images_may_be_floats_and_labels_one_int(model):
    images = make_images(model, 3)
    expected = model.log_prob(images, [1, 1, 1])
    np.testing.assert_array_equal(model.log_prob(images.astype("float32"), 1), expected)
    np.testing.assert_array_equal(model.log_prob(images - 0.3 * (images > 0), np.int64(1)), expected)


def test_labels_change_the_prior_only(model):
    images = make_images(model, 3)
    parts = [model.bits_per_dim(images, label, per_level=True) for label in (0, 1)]
    np.testing.assert_array_equal(parts[0]["level_1"], parts[1]["level_1"])
    assert (parts[0]["prior"] != parts[1]["prior"]).all()


def test_samples(model, samples):
    assert samples.dtype == "uint8" and samples.shape == (3, 4, 6, 1)
    assert len(np.unique(samples.reshape(3, -1), axis=0)) == 3
    np.testing.assert_array_equal(model.sample(3, seed=5), samples)
    assert (model.sample(3, seed=6) != samples).any((1, 2, 3)).all()


def test_int_seed_is_short_for_pairs(model, samples):
    pairs = [[5, 0], [5, 1], [5, 2]]
    np.testing.assert_array_equal(model.sample(3, seed=pairs), samples)
    np.testing.assert_array_equal(model.sample(3, seed=np.array(pairs[::-1]))[::-1], samples)


def test_same_seed_same_sample_alone_and_in_any_batch(model, samples):
    np.testing.assert_array_equal(model.sample(3, seed=5, batch_size=2, verbose=0), samples)
    np.testing.assert_array_equal(model.sample(1, seed=[[5, 2]]), samples[2:])
    np.testing.assert_array_equal(model.sample(1, seed=5), samples[:1])


def test_labels_of_samples(model):
    same = [model.sample(3, labels=labels, seed=1) for labels in (2, [2, 2, 2], np.array([[2], [2], [2]]))]
    np.testing.assert_array_equal(same[0], same[1])
    np.testing.assert_array_equal(same[0], same[2])
    # Many, for the labels of a fresh network hardly tell.
    by_label = np.stack([model.sample(64, labels=label, seed=1) for label in range(3)])
    assert (by_label != by_label[0]).any((1, 2, 3, 4))[1:].any()
    # Without labels, each example's comes from its seed.
    drawn = model.sample(64, seed=1)
    assert all(any((drawn[i] == by_label[label, i]).all() for label in range(3)) for i in range(64))
    model.sample(3, seed=[[-(2**31), -1], [0, 0], [2**31 - 1, 0]])


def test_temperature_and_top_p_a_level(model):
    base = model.sample(3, labels=0, seed=2)
    np.testing.assert_array_equal(model.sample(3, labels=0, seed=2, temperature=[1, 1], top_p=[1, 1]), base)
    # Temperature 0 in the prior: one grid of codes for all; in the decoder: one image a grid.
    cold = model.sample(3, labels=0, seed=2, temperature=[1.0, 0.0])
    assert len(np.unique(cold.reshape(3, -1), axis=0)) == 3
    cold = model.sample(3, labels=0, seed=2, temperature=[0.0, 0.0])
    assert len(np.unique(cold.reshape(3, -1), axis=0)) == 1
    np.testing.assert_array_equal(model.sample(3, labels=0, seed=3, temperature=0), cold)
    assert (model.sample(3, labels=0, seed=2, top_p=[0.3, 1.0]) != base).any()


def test_new_arguments_build_no_new_programs(model, samples):
    def programs():
        return [len(model.sampler(i)._programs._programs) for i in range(2)]

    before = programs()
    for i in range(3):
        model.sample(3, labels=i, seed=i, temperature=0.5 + i, top_p=[0.9 - i / 10, 1.0])
        model.sample(3, labels=[i, 0, 1], seed=i + 10, temperature=[1, 0.3 + i])
        model.decode(np.full((3, 2, 3), i), temperature=0.9)
    assert programs() == before


def test_compile_sampler_builds_all_that_sampling_needs(model):
    model.compile_sampler(batch_size=5)
    counts = [len(model.sampler(i)._programs._programs) for i in range(2)]
    model.sample(8, labels=1, batch_size=5)
    assert [len(model.sampler(i)._programs._programs) for i in range(2)] == counts
    with pytest.raises(ValueError, match="batch_size"):
        model.compile_sampler(0)


def test_decode_and_reconstruct(model):
    images = make_images(model, 3)
    codes = model.encode(images)[0]
    decoded = model.decode(codes, level=1, seed=4)
    assert decoded.dtype == "uint8" and decoded.shape == images.shape
    np.testing.assert_array_equal(model.decode(codes, seed=4), decoded)
    np.testing.assert_array_equal(model.reconstruct(images, seed=4), decoded)
    np.testing.assert_array_equal(model.reconstruct(images, 1, "main", 4, temperature=1.0), decoded)
    assert (model.decode(codes, seed=5) != decoded).any()
    assert (model.decode((codes + 1) % 5, seed=4) != decoded).any()
    assert model.decode(codes[:0]).shape == (0, 4, 6, 1)


def test_progress_bar_on_several_batches_only(model, capsys, monkeypatch):
    codes = np.zeros((3, 2, 3), int)
    monkeypatch.setattr("haim_tf.progress.LINE_SECONDS", 0.0)
    model.decode(codes)
    assert capsys.readouterr() == ("", "")
    model.decode(codes, verbose=True)
    assert "1/1" in capsys.readouterr().err
    model.decode(codes, batch_size=2)
    assert "2/2" in capsys.readouterr().err
    assert capsys.readouterr().out == ""


def test_categorical_pixels_below_two_levels_with_every_decoder_in_use():
    model = randomized(make((4, 4, 1), [level(2), level(2)], pixel_likelihood="categorical"))
    images = model.sample(2, seed=0)
    assert images.shape == (2, 4, 4, 1) and images.dtype == "uint8" and len(np.unique(images)) > 4
    codes = model.encode(images)
    np.testing.assert_array_equal(
        model.reconstruct(images, level=2, seed=1), model.decode(codes[1], level=2, seed=1)
    )
    # Level 1 of a seed draws the same numbers whatever is above it.
    lower = model.sampler(1)([[1, 0], [1, 1]], 1.0, 1.0, codes=codes[1])[0]
    np.testing.assert_array_equal(model.decode(codes[1], seed=1), model.decode(lower, level=1, seed=1))


def test_log_prob_of_a_flat_models_sample_is_the_samplers_own():
    model = randomized(make((3, 4, 3)))
    images = model.sample(2, seed=1)
    grid, log_prob = model.sampler(0)([[1, 0], [1, 1]], 1.0, 1.0, log_prob=True)
    np.testing.assert_array_equal(grid, images)
    np.testing.assert_allclose(model.log_prob(images), log_prob, rtol=1e-5)


def test_fresh_model_is_causal_in_every_network(dependence, monkeypatch):
    model = make((4, 4, 3), [level(2, blocks=2, attention=[0])], prior=PRIOR | {"attention": [0]})
    decoder, prior = model.networks
    codes = tf.zeros((16, 2, 2), "int32")
    seen = dependence(lambda x: decoder(x, codes=codes), (4, 4, 3))
    assert not np.triu(seen).any() and seen[range(1, 16), range(15)].sum() >= 12
    monkeypatch.setattr(prior, "_embed_elements", lambda x: x)
    np.testing.assert_array_equal(dependence(prior, (2, 2, prior.width)), np.tri(4, k=-1))


def test_mixed_precision_gives_the_same_codes_and_close_likelihoods():
    model = randomized(make(levels=[level(2), level(2)]))
    half = HierarchicalModel.from_config(model.get_config() | {"dtype": "mixed_bfloat16"})
    half.set_weights(model.get_weights())
    assert half.decoders[0].compute_dtype == half.prior.first.compute_dtype == "bfloat16"
    images = make_images(model, 4)
    for ours, theirs in zip(model.encode(images), half.encode(images), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    bits = half.bits_per_dim(images)
    assert bits.dtype == "float32"
    np.testing.assert_allclose(bits, model.bits_per_dim(images), rtol=0.05)
    # Called as a layer too, which casts what it can.
    half(images.astype("float32"))
    np.testing.assert_array_equal(half.encode(images)[1], model.encode(images)[1])


def test_config_round_trip_and_variable_names():
    for configuration in CONFIGURATIONS.values():
        model = make(**configuration)
        fresh = HierarchicalModel.from_config(model.get_config())
        assert fresh.get_config() == model.get_config()
        assert [w.shape for w in fresh.weights] == [w.shape for w in model.weights]
        paths = [w.path for w in model.variables]
        assert len(set(paths)) == len(paths), "the train step tells variables apart by path"


def test_weights_of_another_shape_or_architecture_are_an_error(tmp_path):
    model = make(levels=[level(2)])
    file = tmp_path / "m.weights.h5"
    model.save_weights(file)
    for other in (
        make(levels=[level(2, 6)]),
        make(levels=[level(2, blocks=2)]),
        make(),
        make((4, 8, 3), [level()]),
    ):
        with pytest.raises(ValueError, match="shape|layers|objects|variables"):
            other.load_weights(file)
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(OSError):
        model.load_weights(file)


BAD_CONFIGURATIONS = {
    "size not divided": ({"levels": [level(3)]}, r"level 1 downsamples by 3, .*its 4x8 input"),
    "size not divided above": ({"levels": [level(2), level(4)]}, "level 2 downsamples by 4, .*its 2x4 input"),
    "rank": ({"image_shape": (4, 8)}, r"image_shape must be \(H, W, C\) with C 1 or 3, got \(4, 8\)"),
    "channels": ({"image_shape": (4, 8, 2)}, r"C 1 or 3, got \(4, 8, 2\)"),
    "no rows": ({"image_shape": (0, 8, 1)}, "image_shape's height must be an integer in 1..8192, got 0"),
    "float size": ({"image_shape": (4, 8.0, 1)}, "width must be an integer in 1..8192, got 8.0"),
    "downsampling 0": ({"levels": [level(0)]}, "downsampling must be an integer of at least 1, got 0"),
    "float downsampling": ({"levels": [level(2.0)]}, "downsampling must be an integer"),
    "no classes": ({"num_classes": 0}, "num_classes must be an integer of at least 1 or None, got 0"),
    "endless commitment": ({"levels": [level() | {"commitment": np.inf}]}, "commitment must be a number of"),
    "no auxiliary": ({"levels": [level() | {"auxiliary": 5}]}, "auxiliary must be a dict of its kind"),
    "no likelihood": ({"pixel_likelihood": 5}, "pixel_likelihood must be a dict of its kind"),
    "weights of 16 bits": ({"dtype": "bfloat16"}, "the dtype policy must be float32, mixed_bfloat16 or"),
    "weights of 64 bits": ({"dtype": "float64"}, "the dtype policy must be float32, .*, got float64"),
    "missing key": (
        {"levels": [{"downsampling": 2}]},
        r"level 1 must have the keys .*missing: \['codebook_size'",
    ),
    "unknown key": (
        {"levels": [level() | {"depth": 3}]},
        r"may have \('commitment', 'decay', 'revive_below', 'auxiliary'\); .*unknown: \['depth'\]",
    ),
    "one code": ({"levels": [level(2, 1)]}, "num_values"),
    "unknown decoder key": (
        {"levels": [level(depth=3)]},
        r"level 1's decoder takes the arguments \['attention', 'blocks'.*got unknown ones: \['depth'\]",
    ),
    "decoder key that follows from the rest": (
        {"levels": [level(codebook_size=5) | {"decoder": {"width": 4, "blocks": 1, "upsampling": 2}}]},
        r"level 1's decoder .*unknown ones: \['upsampling'\]",
    ),
    "unknown prior key": ({"prior": PRIOR | {"layers": 3}}, r"the prior takes .*unknown ones: \['layers'\]"),
    "prior without blocks": ({"prior": {"width": 4}}, "the prior has a wrong argument in .*blocks"),
    "prior of a bad width": ({"prior": PRIOR | {"width": 5}}, "the prior .*width=5, heads=2"),
    "bad kernel": (
        {"prior": PRIOR | {"kernel_size": 3}},
        "the prior has a wrong argument in .*'kernel_size': 3",
    ),
    "values": (
        {"pixel_likelihood": {"kind": "logistic_mixture", "levels": 32}},
        "must be of the 256 values of pixels, got 32",
    ),
    "likelihood": ({"pixel_likelihood": "normal"}, "must be one of .*'logistic_mixture'.*got 'normal'"),
    "categorical colours": (
        {"image_shape": (4, 8, 3), "pixel_likelihood": "categorical"},
        "categorical pixels must have 1 channel, got 3",
    ),
    "mixtures": ({"mixtures": 0}, "mixtures must be an integer of at least 1"),
    "unknown argument": ({"depth": 3}, "depth"),
    "no shape": ({"image_shape": None}, r"image_shape must be \(H, W, C\) with C 1 or 3, got None"),
    "a text as shape": ({"image_shape": "441"}, "image_shape must be .* got '441'"),
    "prior of another kind": ({"prior": [4]}, r"prior must be a dict, got \[4\]"),
}


@pytest.mark.parametrize("arguments,named", BAD_CONFIGURATIONS.values(), ids=BAD_CONFIGURATIONS)
def test_bad_configurations(arguments, named):
    with pytest.raises(ValueError, match=named):
        make(**arguments)


@pytest.mark.parametrize("levels", [None, 2, "two", {"width": 4}, ["two"]])
def test_levels_of_another_kind(levels):
    with pytest.raises(ValueError, match="levels must be a list of dicts, one per level, got"):
        HierarchicalModel((4, 8, 1), levels, PRIOR)


def test_saved_model_samples_and_scores_the_same(model, samples, tmp_path):
    """After use, too: compiled programs are no part of the file."""
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(loaded.sample(3, seed=5), samples)
    np.testing.assert_allclose(loaded.log_prob(samples, 0), model.log_prob(samples, 0), rtol=1e-6)


def test_the_arguments_are_plain_and_a_copy():
    model = make(**CONFIGURATIONS["two levels, grey values as categories, labels"])
    arguments = model.arguments
    parts = [arguments, arguments["levels"], *arguments["levels"], arguments["prior"]]
    assert {type(part) for part in parts} == {dict, list}  # Keras' own would hold on to the model.
    arguments["levels"][0]["downsampling"] = 4
    arguments["prior"]["width"] = 8
    assert model.arguments["levels"][0]["downsampling"] == 2 and model.arguments["prior"]["width"] == 4


def test_weights_that_layers_get_later_count():
    """As LoRA gives dense layers: programs made before know nothing of them."""
    model = randomized(make(levels=[level()], num_classes=2))
    images, labels = make_images(model, 2), [0, 1]
    before = model.bits_per_dim(images, labels, per_level=True)
    last = model.prior.last
    last.enable_lora(2)
    last.lora_kernel_a.assign(np.ones(last.lora_kernel_a.shape))
    last.lora_kernel_b.assign(np.random.default_rng(0).normal(0, 1, last.lora_kernel_b.shape))
    after = model.bits_per_dim(images, labels, per_level=True)
    np.testing.assert_allclose(after["level_1"], before["level_1"], rtol=1e-5)
    log_prob = np.sum(model.prior.log_prob(model.encode(images)[0], labels=np.array(labels)), axis=(1, 2))
    np.testing.assert_allclose(after["prior"] * 32 * -math.log(2), log_prob, rtol=1e-4)
    assert np.abs(after["prior"] - before["prior"]).min() > 1e-2


def test_what_these_models_do_not_do_is_said():
    model = make(levels=[level()], num_classes=2)
    with pytest.raises(ValueError, match="is not quantized by Keras: export it in bfloat16"):
        model.quantize("int8")
    images = make_images(model, 1)
    with pytest.raises(ValueError, match="auxiliary decoders do not sample: they take no levl, temperature"):
        model.reconstruct(images, decoder="auxiliary", levl=2, temperature=0.5)
    assert model.reconstruct(images, decoder="auxiliary", batch_size=1).shape == images.shape
    for num in (0, -1, 2.5, "4"):
        with pytest.raises(ValueError, match="num must be"):
            model.draw_labels(num)
