"""Benchmarks of odd pictures, rare classes and costs: what they count, and their whole path at toy size."""

import importlib.util
import json
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from absl import flags

import haim_tf

ROOT = Path(__file__).parents[1]


@pytest.fixture
def benchmark(monkeypatch):
    """`benchmark(name)` imports a script; `benchmark(name, *flags)` runs it as well."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    made = {}

    def run(name, *arguments):
        if name not in made:
            spec = importlib.util.spec_from_file_location(name, ROOT / f"benchmarks/{name}.py")
            made[name] = module = importlib.util.module_from_spec(spec)
            monkeypatch.setitem(sys.modules, name, module)  # By which absl tells whose flags are whose.
            spec.loader.exec_module(module)
        if arguments:
            flags.FLAGS.unparse_flags()
            for flag in flags.FLAGS.get_flags_for_module(made[name]):
                flag.unparse()
            flags.FLAGS([name, *arguments])
            made[name].main([name])
        return made[name]

    yield run
    for module in made.values():
        for flag in flags.FLAGS.get_flags_for_module(module):
            delattr(flags.FLAGS, flag.name)
    flags.FLAGS.unparse_flags()


@pytest.fixture
def leaves(tmp_path):
    """Of the debug model's classes and size; two classes are rare."""
    rng = np.random.default_rng(0)
    labels = {"train": np.repeat(np.arange(10), [2, 3, *[9] * 8]), "val": np.repeat(np.arange(10), 2)}
    names = haim_tf.presets.read(haim_tf.presets.find("debug"))[1]["class_names"]
    arrays = {"class_names": names}
    for split, y in labels.items():
        images = rng.integers(0, 40, (len(y), 16, 16, 3)) + 20 * y[:, None, None, None]
        arrays[f"x_{split}"] = images.astype("uint8")
        arrays[f"y_{split}"] = y
    np.savez(tmp_path / "leaves.npz", **arrays)
    return tmp_path / "leaves.npz"


def test_the_area_is_the_share_of_pairs(benchmark):
    odd = benchmark("odd_pictures")
    rng = np.random.default_rng(0)
    inside, outside = rng.integers(0, 8, 30), rng.integers(2, 11, 20)
    pairs = [(b > a) + 0.5 * (b == a) for a in inside for b in outside]
    assert odd.roc_auc(inside, outside) == pytest.approx(np.mean(pairs))
    metrics = pytest.importorskip("sklearn.metrics")
    known = metrics.roc_auc_score([0] * 30 + [1] * 20, np.concatenate([inside, outside]))
    assert odd.roc_auc(inside, outside) == pytest.approx(known)
    # Of unrelated scores, as that of Mann and Whitney's statistic.
    assert odd.auc_standard_error(0.5, 30, 20) == pytest.approx(np.sqrt(51 / (12 * 30 * 20)))


def test_patches_change_a_square_and_nothing_else(benchmark):
    odd = benchmark("odd_pictures")
    images = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3)).astype("uint8")
    before = images.copy()
    for paste in (False, True):
        changed = odd.patched(images, 0.25, np.random.default_rng(1), paste)
        np.testing.assert_array_equal(images, before)
        for i, (new, old) in enumerate(zip(changed, images, strict=True)):
            rows, columns = np.nonzero((new != old).any(axis=-1))
            top, left = rows.min(), columns.min()
            assert (rows.max() - top, columns.max() - left) == (3, 3)
            patch = new[top : top + 4, left : left + 4]
            if paste:
                np.testing.assert_array_equal(patch, images[i - 1][top : top + 4, left : left + 4])
            else:
                assert np.abs(patch - old.mean(axis=(0, 1))).max() <= 0.5


def test_odd_pictures_whole_path(benchmark, leaves, tmp_path, capsys):
    np.savez(tmp_path / "grey.npz", images=np.zeros((7, 20, 12, 1), "uint8"))
    output, picture = tmp_path / "odd.json", tmp_path / "odd.png"
    odd = benchmark(
        "odd_pictures",
        "--model=debug",
        f"--data={leaves}",
        f"--others={tmp_path / 'grey.npz'}",
        "--num=12",
        f"--output={output}",
        f"--picture={picture}",
    )
    found = json.loads(output.read_text())
    kinds, names = ({row[key] for row in found["rows"]} for key in ("odd", "score"))
    assert kinds == {str(tmp_path / "grey.npz"), "patch pasted", "patch erased"}
    assert names == {"total", "level 1", "level 2", "prior", "codes", "total - PNG"}
    assert {row["num"] for row in found["rows"]} == {7, 12} and found["num"] == 12
    assert all(0 <= row["area"] <= 1 and row["standard error"] >= 0 for row in found["rows"])
    printed = capsys.readouterr().out
    assert "| odd | total | level 1 | level 2 | prior | codes | total - PNG |" in printed
    assert "| patch pasted | " in printed and picture.stat().st_size > 100
    # The scores are the model's own.
    model, images = haim_tf.load("debug"), np.load(leaves)["x_val"][:3]
    scores = odd.scores_of(model, images)
    bits = [model.bits_per_dim(images, labels=label) for label in range(model.num_classes)]
    sizes = np.log(2.0) * images[0].size
    marginal = np.log(np.mean(np.exp(-sizes * (np.stack(bits) - np.min(bits, axis=0))), axis=0))
    np.testing.assert_allclose(scores["total"], np.min(bits, axis=0) - marginal / sizes, rtol=1e-5)
    np.testing.assert_allclose(scores["codes"] + scores["level 1"], scores["total"], rtol=1e-6)


def test_rare_classes_whole_path(benchmark, leaves, tmp_path, monkeypatch):
    trained = []

    def train(images, num_classes, steps, seed):
        """No training: always the rarest label, 0."""
        trained.append((images, steps, seed))
        keras.utils.set_random_seed(seed)
        layers = [
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(num_classes, None, False, "zeros"),
        ]
        return keras.Sequential([keras.Input(images.image_shape), *layers])

    monkeypatch.setattr(haim_tf.evaluation, "train_classifier", train)
    drawn = []
    sample = haim_tf.HierarchicalModel.sample

    def spy(self, num, labels, seed):
        drawn.append((num, labels, np.asarray(seed)))
        return np.full((num, 16, 16, 3), labels, "uint8")

    monkeypatch.setattr(haim_tf.HierarchicalModel, "sample", spy)
    output = tmp_path / "rare.json"
    common = ("--model=debug", f"--data={leaves}", "--rarest=2", "--size=8", "--steps=5", "--batch_size=4")
    benchmark("rare_classes", *common, f"--output={output}")
    found = json.loads(output.read_text())
    # The median class has 9 images: 7 and 6 are wanted of the two rarest, in full batches, each seed once.
    assert found["samples"] == {"0": 7, "1": 6} and [(n, label) for n, label, _ in drawn] == [
        (4, 0), (4, 0), (4, 1), (4, 1),
    ]  # fmt: skip
    assert len({tuple(pair) for _, _, seeds in drawn for pair in seeds}) == 16
    real, oversampled, samples = (trained[i][0] for i in (0, 3, 6))
    assert [seed for _, _, seed in trained] == [0, 1, 2] * 3 and {steps for _, steps, _ in trained} == {5}
    assert real.image_shape == (8, 8, 3) and len(real) == 77
    for images in (oversampled, samples):
        assert np.bincount(images.labels).tolist() == [9] * 10
        np.testing.assert_array_equal(images.images[:77], real.images[np.arange(77)])
    assert {tuple(np.unique(images)) for images in oversampled.images[77:84]} <= {
        tuple(np.unique(images)) for images in real.images[:2]
    }
    np.testing.assert_array_equal(samples.images[77:84], 0)
    np.testing.assert_array_equal(samples.images[84:], 1)
    for row in found["rows"]:
        assert row["recall of the rarest"] == 0.5 and row["accuracy"] == pytest.approx(0.1)
        assert row["recall of the rarest, standard error"] == 0
        assert row["recall of the rarest, binomial"] == pytest.approx(0.25)
    assert found["validation images"] == 4
    # Samples of an earlier run.
    monkeypatch.setattr(haim_tf.HierarchicalModel, "sample", sample)
    trained.clear()
    samples_flag = f"--samples={tmp_path / 'rare.samples.npz'}"
    benchmark("rare_classes", *common, f"--output={tmp_path / 'again.json'}", samples_flag)
    np.testing.assert_array_equal(trained[6][0].images, samples.images)


def test_scaling_counts_a_recipe(benchmark, tmp_path, capsys):
    level = {"downsampling": 2, "codebook_size": 8, "code_dim": 4, "width": 8, "blocks": 1}
    level["decoder"] = {"width": 8, "blocks": 1, "condition_width": 8, "condition_blocks": 1}
    model = {
        "image_shape": [8, 8, 1],
        "num_classes": "data",
        "levels": [level],
        "prior": {"width": 8, "blocks": 1},
    }
    stages = [
        {"train": ["decoder_1"], "steps": 6, "learning_rate": 0.1},
        {"train": ["decoder_1"], "steps": 3, "learning_rate": 0.1, "crop": 4, "batch_size": 8},
        {"train": ["codes", "prior"], "steps": 3, "learning_rate": 0.1},
    ]
    recipe = {"model": model, "stages": stages, "batch_size": 4, "interval": 3}
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    output = tmp_path / "cost.json"
    scaling = benchmark(
        "scaling",
        f"--recipe={tmp_path / 'recipe.json'}",
        '--model={"num_classes": 3}',
        "--rate=0.001",
        f"--output={output}",
    )
    whole, crop, both = json.loads(output.read_text())["stages"]
    network = haim_tf.HierarchicalModel(**{**model, "num_classes": 3})
    image = scaling.training_operations(network, "decoder_1")
    assert whole["PFLOP"] == pytest.approx(24 * image / 1e15)
    assert whole["hours"] == pytest.approx(24 * image / 1e6 / 3600)
    # A quarter of the pixels, but all of the codes.
    assert image / 4 < crop["PFLOP"] * 1e15 / 24 < image
    parts = [scaling.training_operations(network, part) for part in ("autoencoder_1", "prior")]
    assert both["PFLOP"] == pytest.approx(12 * sum(parts) / 1e15)
    assert "| codes, prior | 3 | 4 |" in capsys.readouterr().out
