"""evaluate and the classification accuracy score, against figures worked out by hand."""

import json
import math

import keras
import numpy as np
import pytest

from haim_tf import HierarchicalModel, evaluation
from haim_tf.data import ImageData
from haim_tf.evaluation import report as report_module
from haim_tf.evaluation import scores

NETWORK = {"width": 8, "blocks": 1}
NUM = 10


def build(levels=2, num_classes=3, **kwargs):
    level = {"downsampling": 2, "codebook_size": 8, "code_dim": 4, "width": 8, "blocks": 1}
    decoder = {**NETWORK, "condition_width": 8, "condition_blocks": 1}
    return HierarchicalModel(
        image_shape=(8, 8, 1),
        levels=[{**level, "decoder": decoder}] * levels,
        prior=NETWORK,
        num_classes=num_classes,
        **kwargs,
    )


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    return ImageData(
        rng.integers(0, 256, (NUM, 8, 8, 1), "uint8"), rng.integers(0, 3, NUM), name="some images"
    )


@pytest.fixture(scope="module")
def model():
    """A model whose every weight is random, so that its decoders use the codes and the codes are many."""
    keras.utils.set_random_seed(1)
    model = build()
    rng = np.random.default_rng(1)
    for variable in model.variables:
        if variable.dtype == "float32":
            variable.assign(variable + 0.3 * rng.normal(size=variable.shape))
    return model


@pytest.fixture(scope="module")
def report(model, data):
    return evaluation.evaluate(model, data, batch_size=4, reconstructions=3, seed=5, verbose=False)


def error(images, originals):
    return np.mean(((images.astype("float64") - originals) / 127.5) ** 2)


def test_says_what_was_measured_and_is_json(report):
    assert (report["data"], report["num"], report["seed"]) == ("some images", NUM, 5)
    assert report["num_reconstructions"] == 3
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_bits_per_dim_are_the_models(model, data, report):
    bits = model.bits_per_dim(data.images, data.labels, per_level=True)
    assert set(report["bits_per_dim"]) == set(bits) == {"level_1", "level_2", "prior", "total"}
    for name, values in bits.items():
        assert report["bits_per_dim"][name] == pytest.approx(values.mean(), rel=1e-5), name
    parts = [value for name, value in report["bits_per_dim"].items() if name != "total"]
    assert sum(parts) == pytest.approx(report["bits_per_dim"]["total"], rel=1e-9)
    expected = np.std(bits["total"].astype("float64"), ddof=1) / math.sqrt(NUM)
    assert report["standard_error"] == pytest.approx(expected, rel=1e-3)


def test_code_statistics_are_of_the_models_codes(model, data, report):
    for level, (codes, grid) in enumerate(zip(model.encode(data.images), (4, 2), strict=True), start=1):
        values, counts = np.unique(codes, return_counts=True)
        assert len(values) > 1
        shares = counts / counts.sum()
        figures = report["levels"][f"level_{level}"]
        assert figures["grid"] == [grid, grid]
        assert figures["capacity_bits"] == grid * grid * 3
        assert figures["perplexity"] == pytest.approx(np.prod(shares**-shares))
        assert figures["active_fraction"] == len(values) / 8


def test_code_statistics_by_hand():
    codes = np.full((1, 100, 100), 3)
    codes[0, 0, :24] = 1  # 0.24 % of all codes, where 1 % of uniform is 0.25 %
    assert evaluation.code_statistics(codes, 4)["active_fraction"] == 0.25
    codes[0, 0, :25] = 1
    assert evaluation.code_statistics(codes, 4)["active_fraction"] == 0.5
    uniform = np.arange(16).reshape(1, 4, 4)
    assert evaluation.code_statistics(uniform, 16) == {
        "grid": [4, 4],
        "codebook_size": 16,
        "capacity_bits": 64.0,
        "perplexity": pytest.approx(16),
        "active_fraction": 1.0,
    }


def test_reconstruction_errors_are_those_of_reconstruct(model, data, report):
    for level in (1, 2):
        figures = report["levels"][f"level_{level}"]
        images = model.reconstruct(data.images, level=level, decoder="auxiliary")
        assert figures["error_auxiliary"] == pytest.approx(error(images, data.images))
    drawn = report_module.choose_images(NUM, 3, 5)
    images = model.reconstruct(data.images[drawn], level=2, seed=5)
    assert report["levels"]["level_2"]["error_main"] == pytest.approx(error(images, data.images[drawn]))


def test_shuffled_codes_are_another_images(model, data, report):
    partners = report_module._others(NUM, 5)
    grids = [data.images, *model.encode(data.images)]
    for level, decoder in enumerate(model.decoders, start=1):
        lower = grids[level - 1].astype("int32")
        log_probs = np.array(decoder.log_prob(lower, codes=grids[level][partners]))
        expected = -log_probs.sum() / (NUM * 64 * math.log(2))
        shuffled = report["levels"][f"level_{level}"]["bits_per_dim_shuffled_codes"]
        assert shuffled == pytest.approx(expected, rel=1e-5)
        assert shuffled != pytest.approx(report["bits_per_dim"][f"level_{level}"], rel=1e-4)


def test_shuffling_does_not_matter_to_decoders_that_ignore_codes(data):
    model = build()
    for decoder in model.decoders:
        for variable in decoder.embed_codes.variables:
            variable.assign(keras.ops.zeros_like(variable))
    report = evaluation.evaluate(model, data, reconstructions=0, verbose=False)
    for name in ("level_1", "level_2"):
        shuffled = report["levels"][name]["bits_per_dim_shuffled_codes"]
        assert shuffled == pytest.approx(report["bits_per_dim"][name], rel=1e-6)
        assert report["levels"][name]["error_main"] is None


def test_one_pass_gives_the_report_and_the_scores_of_every_image(model, data, report, monkeypatch):
    images_of, run = {}, HierarchicalModel._run

    def counted(self, name, *arrays, **options):
        images_of[name] = images_of.get(name, 0) + len(arrays[0])
        return run(self, name, *arrays, **options)

    monkeypatch.setattr(HierarchicalModel, "_run", counted)
    found, columns = evaluation.evaluate_and_score(
        model, data, num=8, batch_size=3, reconstructions=0, seed=5, verbose=False
    )
    # A level's decoder runs once for the codes and once for those exchanged.
    assert images_of == {
        "_encode": 8,
        "_log_probs_of": 8 * 2 * 2,
        "_log_probs_of_labels": 8,
        "_auxiliary": 8 * 2,
    }
    monkeypatch.undo()
    drawn = report_module.choose_images(NUM, 8, 5)
    alone = scores.score(model, data.images[drawn], data.labels[drawn])
    assert list(columns) == ["image", *alone] and (columns["image"] == drawn).all()
    for name, values in alone.items():
        np.testing.assert_allclose(columns[name], values, rtol=1e-5)
    assert found.pop("label_posterior") == scores.summary(columns)
    expected = evaluation.evaluate(model, data, num=8, reconstructions=0, seed=5, verbose=False)
    assert expected.keys() == found.keys() == report.keys()
    for name, bits in expected["bits_per_dim"].items():
        assert found["bits_per_dim"][name] == pytest.approx(bits, rel=1e-6)


@pytest.mark.parametrize("count", [2, 3, 50])
def test_the_exchange_of_codes_leaves_no_image_its_own(count):
    for seed in range(10):
        partners = report_module._others(count, seed)
        assert sorted(partners) == list(range(count))
        assert (partners != np.arange(count)).all()
    assert (report_module._others(50, 0) == report_module._others(50, 0)).all()
    assert (report_module._others(50, 0) != report_module._others(50, 1)).any()


def test_a_subset_is_a_seeded_draw(model, data):
    def measure(seed):
        return evaluation.evaluate(model, data, num=4, seed=seed, reconstructions=0, verbose=False)

    first = measure(1)
    assert first["num"] == 4
    drawn = report_module.choose_images(NUM, 4, 1)
    assert (np.diff(drawn) > 0).all()
    bits = model.bits_per_dim(data.images[drawn], data.labels[drawn])
    assert first["bits_per_dim"]["total"] == pytest.approx(bits.mean(), rel=1e-5)
    assert measure(1) == first
    assert measure(2)["bits_per_dim"] != first["bits_per_dim"]


def test_flat_model_and_a_single_unlabelled_image(data):
    flat = build(levels=0, num_classes=None, pixel_likelihood="categorical")
    report = evaluation.evaluate(flat, data, num=1, verbose=False)
    assert report["levels"] == {} and report["standard_error"] is None
    assert report["bits_per_dim"]["prior"] == report["bits_per_dim"]["total"]
    assert report["bits_per_dim"]["total"] == pytest.approx(8, abs=0.2)
    report = evaluation.evaluate(
        build(levels=1, num_classes=None), data, num=1, reconstructions=0, verbose=False
    )
    assert report["levels"]["level_1"]["bits_per_dim_shuffled_codes"] is None
    json.dumps(report, allow_nan=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num": 11}, "0..10, got 11"),
        ({"num": 0}, "at least 1"),
        ({"reconstructions": -1}, "got -1"),
        ({"seed": -1}, "seed must be an integer in"),
    ],
)
def test_bad_arguments(model, data, arguments, message):
    with pytest.raises(ValueError, match=message):
        evaluation.evaluate(model, data, verbose=False, **{"reconstructions": 0, "num": 2, **arguments})


def test_data_that_does_not_fit_the_model(model, data):
    with pytest.raises(ValueError, match="class-conditional"):
        evaluation.evaluate(model, ImageData(data.images), verbose=False)
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.2, got 3"):
        evaluation.evaluate(model, ImageData(data.images, np.arange(NUM) % 4), verbose=False)
    with pytest.raises(ValueError, match="images must have shape"):
        evaluation.evaluate(model, ImageData(data.images[:, :4], data.labels), verbose=False)


# The classification accuracy score -----------------------------------------------------------------------


def test_small_classifier():
    for shape in ((28, 28, 1), (64, 64, 3)):
        network = evaluation.small_classifier(shape, 10)
        assert 80_000 < network.count_params() < 120_000
        assert network(np.zeros((2, *shape), "uint8")).shape == (2, 10)


def test_a_larger_image_is_classified_by_its_means():
    images = np.random.default_rng(0).integers(0, 256, (2, 128, 192, 3)).astype("uint8")
    large = evaluation.small_classifier((128, 192, 3), 10)
    small = evaluation.small_classifier((64, 96, 3), 10)
    small.set_weights(large.get_weights())
    means = images.reshape(2, 64, 2, 96, 2, 3).mean((2, 4))
    np.testing.assert_allclose(large(images), small(means), rtol=1e-4, atol=1e-5)


def squares(count, seed, size=12):
    """Images of two classes: bright above or bright below, on noise."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    images = rng.integers(0, 100, (count, size, size, 1), "uint8")
    for image, label in zip(images, labels, strict=True):
        image[label * size // 2 : (label + 1) * size // 2] += 120
    return images, labels


def tiny_classifier(image_shape, num_classes):
    layers = keras.layers
    return keras.Sequential(
        [keras.Input(image_shape), layers.Rescaling(1 / 255), layers.Flatten(), layers.Dense(num_classes)]
    )


def score(samples, real=None, **arguments):
    real = real or ImageData(*squares(64, 1))
    val = ImageData(*squares(50, 2))
    arguments = {
        "classifier": tiny_classifier,
        "steps": 60,
        "batch_size": 16,
        "verbose": False,
        **arguments,
    }
    return evaluation.classification_accuracy_score(*samples, real, val, **arguments)


def test_score_of_good_and_of_wrong_samples():
    good = score(squares(40, 3))
    assert good["accuracy_real"] > 0.95 and good["accuracy_samples"] > 0.95
    assert good["ratio"] == good["accuracy_samples"] / good["accuracy_real"]
    sizes = [good[name] for name in ("num_samples", "num_train", "num_val", "steps", "batch_size", "seed")]
    assert sizes == [40, 64, 50, 60, 16, 0]
    json.dumps(good)
    images, labels = squares(40, 3)
    swapped = score((images, 1 - labels))
    assert swapped["accuracy_samples"] < 0.05 and swapped["accuracy_real"] == good["accuracy_real"]


def test_score_is_seeded_and_gives_both_trainings_the_same_start():
    samples = squares(40, 3)
    short = {"steps": 3, "classifier": evaluation.small_classifier}
    first = score(samples, real=ImageData(*samples), seed=4, **short)
    assert first["ratio"] == 1.0
    assert score(samples, real=ImageData(*samples), seed=4, **short) == first


def test_score_needs_labels_and_one_shape():
    images, labels = squares(8, 3)
    with pytest.raises(ValueError, match="no labels"):
        score((images, labels), real=ImageData(images, name="real"))
    with pytest.raises(ValueError, match="the samples"):
        score((images[:, :8], labels))


def test_labels_are_matched_by_name_and_unknown_names_refused_before_any_work(model, data, monkeypatch):
    expected = evaluation.evaluate(model, data, reconstructions=0, verbose=False)
    monkeypatch.setattr(model, "class_names", ["bag", "coat", "sneaker"])
    other = ImageData(data.images, np.array([1, 2, 0])[data.labels], ["sneaker", "Bag", "coat"], data.name)
    found = evaluation.evaluate(model, other, reconstructions=0, verbose=False)
    assert found["bits_per_dim"] == expected["bits_per_dim"]
    monkeypatch.setattr(model, "encode", None)
    wrong = ImageData(data.images, data.labels, ["sneaker", "bags", "coat"], data.name)
    with pytest.raises(ValueError, match="there is no class 'bags'; did you mean 'bag'"):
        evaluation.evaluate(model, wrong, verbose=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": 2**31}, r"seed must be an integer in 0\.\.2147483647, got 2147483648"),
        ({"seed": -1}, "seed must be an integer in"),
        ({"num": 0}, "num must be an integer of at least 1"),
        ({"batch_size": 0}, "batch_size must be an integer of at least 1, got 0"),
        ({"reconstructions": 1.5}, "reconstructions must be an integer of at least 0"),
    ],
)
def test_bad_arguments_are_refused_before_measuring(model, data, monkeypatch, arguments, message):
    monkeypatch.setattr(model, "encode", None)
    with pytest.raises(ValueError, match=message):
        evaluation.evaluate(model, data, **arguments)


def test_weights_and_figures_that_are_not_finite_are_refused(data, monkeypatch):
    model = build(levels=1)
    monkeypatch.setattr(report_module.scores, "bits_per_dim", lambda model, x: np.full(x.shape, np.inf))
    with pytest.raises(ValueError, match="bits_per_dim.level_1 must be a finite number, got inf"):
        evaluation.evaluate(model, data, reconstructions=0, verbose=False)
    bias = model.prior.last.bias
    bias.assign(np.where(np.arange(bias.shape[0]), 0.0, np.nan))
    monkeypatch.setattr(model, "encode", None)
    with pytest.raises(ValueError, match="weights must be finite, got NaN or infinity in .*bias"):
        evaluation.evaluate(model, data)
    with pytest.raises(ValueError, match="weights must be finite"):
        evaluation.choose_sampling(model, data, None)
