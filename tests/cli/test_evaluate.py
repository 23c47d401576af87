"""`haim_tf evaluate` and the benchmark beside it."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import haim_tf
from haim_tf import evaluation

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder that is worked in, with data; the debug model has 16x16x3 images of 10 classes."""
    folder = tmp_path
    monkeypatch.chdir(folder)
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 20), ("test", 12)):
        arrays[f"x_{split}"] = rng.integers(0, 256, (count, 16, 16, 3), "uint8")
        arrays[f"y_{split}"] = rng.integers(0, 10, count)
    np.savez(folder / "data.npz", **arrays)
    return folder


def test_prints_a_table_and_writes_json(run, folder):
    flags = ["--model=debug", "--data=data.npz", "--num=8", "--seed=3", "--reconstructions=2"]
    flags += ["--output=metrics.json", "--scores=scores.csv"]
    code, output, errors = run("evaluate", *flags)
    assert code == 0, errors
    report = json.loads((folder / "metrics.json").read_text())
    described = [report[name] for name in ("model", "data", "split", "num", "seed", "num_reconstructions")]
    assert described == ["debug", "data.npz", "test", 8, 3, 2]  # What stands in for val.

    with np.load(folder / "data.npz") as arrays:
        images, labels = arrays["x_test"], arrays["y_test"]
    drawn = evaluation.choose_images(12, 8, 3)
    bits = haim_tf.load("debug").bits_per_dim(images[drawn], labels[drawn])
    assert report["bits_per_dim"]["total"] == pytest.approx(bits.mean(), rel=1e-5)

    with open(folder / "scores.csv", newline="") as file:
        scores = list(csv.DictReader(file))
    assert [int(row["image"]) for row in scores] == drawn.tolist()
    np.testing.assert_allclose([float(row["total"]) for row in scores], bits, rtol=1e-4)
    right = np.mean([row["label"] == row["predicted_label"] for row in scores])
    assert report["label_posterior"]["accuracy"] == right
    assert output.splitlines()[-3:] == [
        f"Label by Bayes' rule: accuracy {right:.4f}.",
        "figures in metrics.json",
        "scores of single images in scores.csv",
    ]

    rows = {" ".join(line.split()[:2]): line.split() for line in output.splitlines()}
    level = report["levels"]["level_2"]
    assert rows["level 2"][2:] == [
        f"{report['bits_per_dim']['level_2']:.4f}",
        f"{level['bits_per_dim_shuffled_codes']:.4f}",
        "4x4",
        "16",
        "64",
        f"{level['perplexity']:.1f}",
        f"{level['active_fraction']:.1%}",
        f"{level['error_auxiliary']:.4f}",
        f"{level['error_main']:.4f}",
    ]
    assert any(line.split()[:1] == ["total"] for line in output.splitlines())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model=debug", "--data=data.npz", "--output=data.npz"], "data.npz exists"),
        (["--model=debug", "--data=data.npz", "--num=13", "--output=new.json"], "0..12, got 13"),
        (["--model=debug"], "--data"),
        (["--model=debug", "--data=data.npz", "--output=a", "--scores=a"], "must be two files, got a"),
        (["--model=imagenet256", "--data=data.npz"], "this model is a configuration, to be trained"),
    ],
)
def test_bad_input_is_one_line_and_nothing_written(run, folder, flags, message):
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    code, _, errors = run("evaluate", *flags)
    assert code == 2
    line = errors.strip().splitlines()[-1]
    assert line.startswith("haim_tf evaluate:") and message in line
    assert "Traceback" not in errors
    assert before == {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_the_accuracy_score_script_keeps_its_samples_and_takes_them_up_again(script, folder):
    score_script = ROOT / "benchmarks/classification_accuracy_score.py"
    flags = ["--model=debug", "--data=data.npz", "--steps=2", "--seed=1"]
    drawing = ["--num_samples=12", "--batch_size=6", "--temperature=0.9"]
    script(score_script, *flags, *drawing, "--output=score.json")
    score = json.loads((folder / "score.json").read_text())
    assert (score["num_samples"], score["num_train"], score["num_val"], score["steps"]) == (12, 20, 12, 2)
    assert score["sampling"]["temperature"] == pytest.approx([0.9] * 3)
    assert (score["sampling"]["top_p"], score["sampling"]["guidance"]) == ([1.0] * 3, 1.0)

    with np.load(folder / "score.samples.npz") as samples:
        images, labels = samples["images"], samples["labels"]
    expected = haim_tf.load("debug").sample(6, labels=labels[:6], seed=1, temperature=0.9)
    assert (images[:6] == expected).all()

    script(score_script, *flags, "--samples=score.samples.npz", "--output=again.json")
    again = json.loads((folder / "again.json").read_text())
    assert again["accuracy_samples"] == score["accuracy_samples"] and again["num_samples"] == 12
    assert again["frechet_distance"] == pytest.approx(score["frechet_distance"], rel=1e-4)

    flags += ["--classes=0,1,2,3,4", "--num_samples=6", "--classifier=score.classifier.keras"]
    script(score_script, *flags, "--output=some.json")
    some = json.loads((folder / "some.json").read_text())
    with np.load(folder / "data.npz") as arrays:
        assert some["num_val"] == (arrays["y_test"] < 5).sum()
    with np.load(folder / "some.samples.npz") as samples:
        assert samples["labels"].max() < 5
    # Accuracies of other, more images; distances from the same.
    more = [*flags, "--samples=some.samples.npz", "--score_data=scored", "--score_split=score"]
    (folder / "scored").mkdir()
    np.save(
        folder / "scored/score_images.npy",
        np.random.default_rng(1).integers(0, 256, (30, 16, 16, 3), "uint8"),
    )
    np.save(folder / "scored/score_labels.npy", np.arange(30) % 10)
    script(score_script, *more, "--output=more.json")
    found = json.loads((folder / "more.json").read_text())
    assert (found["score_data"], found["score_split"]) == ("scored", "score")
    assert (found["num_scored"], found["num_val"]) == (15, some["num_val"])
    assert found["frechet_distance"] == pytest.approx(some["frechet_distance"], rel=1e-4)
    share = found["accuracy_real"]
    assert found["standard_error_real"] == pytest.approx((share * (1 - share) / 15) ** 0.5)
    for wrong, message in (
        (["--plain", "--top_p=0.9"], "--plain sets temperature, top_p and guidance"),
        (["--classes=99"], r"--classes must be among 0\.\.9, got '99'"),
    ):
        with pytest.raises(ValueError, match=message):
            script(score_script, *flags, *wrong, "--output=no.json")


def test_figures_are_told_where_their_file_cannot_be_written_any_more(run, folder, monkeypatch):
    def measure_and_lose_the_folder(*arguments, **options):
        shutil.rmtree("out")
        return measure(*arguments, **options)

    measure = evaluation.evaluate_and_score
    monkeypatch.setattr(evaluation, "evaluate_and_score", measure_and_lose_the_folder)
    (folder / "out").mkdir()
    flags = [
        "--model=debug",
        "--data=data.npz",
        "--num=2",
        "--reconstructions=1",
        "--output=out/metrics.json",
    ]
    code, output, errors = run("evaluate", *flags)
    assert code == 2 and "cannot write" in errors
    assert any(line.split()[:1] == ["total"] for line in output.splitlines())
