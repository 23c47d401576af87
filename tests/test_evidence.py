"""The evidence script: its smoke mode end to end, resumed; the page; what counts as held."""

import json
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from absl import flags

import haim_tf
from haim_tf import training
from haim_tf.data import ImageData

ROOT = Path(__file__).parents[1]


@pytest.fixture
def page(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import evidence_page

    return evidence_page


@pytest.mark.slow(reason="trains, samples and judges three arms")
def test_smoke_mode_measures_resumes_and_writes_the_page(
    script, eagerly, running, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    # Sheets of each training, for which every network's program would be made once more.
    monkeypatch.setattr(training.outcome, "save_pictures", lambda *arguments: None)
    for name in ("sample", "decode"):
        # With programs: a picture takes hundreds of steps.
        drawing = running(getattr(haim_tf.HierarchicalModel, name), eagerly=False)
        monkeypatch.setattr(haim_tf.HierarchicalModel, name, drawing)
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 40), ("test", 16), ("score", 10)):
        arrays[f"x_{split}"] = rng.integers(0, 256, (count, 8, 8, 3), "uint8")
        arrays[f"y_{split}"] = np.arange(count) % 3
    arrays["y_score"] = 1 + np.arange(10) % 2  # Two of the three classes are scored.
    np.savez(tmp_path / "data.npz", **arrays)
    command = [
        ROOT / "benchmarks/evidence.py",
        "--smoke",
        "--data=data.npz",
        "--score_split=score",
        "--output=out",
        "--page=page.md",
    ]
    # Main decoders that are told the label ask for more than others.
    smoke = json.loads((ROOT / "benchmarks/evidence.json").read_text())["smoke"]
    told = {"decoder": {**smoke["decoder"], "labels": True}}
    command.append(f"--set={json.dumps(told)}")
    script(*command, "--arms=masked_3,end_to_end,no_codes")
    masked, end_to_end, flat = (
        json.loads((tmp_path / f"out/{arm}-0.json").read_text())
        for arm in ("masked_3", "end_to_end", "no_codes")
    )
    assert set(masked) == set(end_to_end) == {"model", "codes", "samples"} and set(flat) == {
        "model",
        "samples",
    }
    assert masked["model"]["levels"]["level_1"]["error_auxiliary"] > 0
    assert end_to_end["model"]["levels"]["level_1"]["error_auxiliary"] is None
    assert "teacher_1" in masked["model"]["parameters"]
    for figures in (masked, end_to_end):
        assert figures["codes"]["error_best"] > 0
    assert masked["samples"]["counts"] == [8, 12]  # Validation images of the scored classes, samples.
    share = masked["samples"]["classification_accuracy_score"]
    assert masked["samples"]["standard_error"] == pytest.approx((share * (1 - share) / 10) ** 0.5)
    assert masked["samples"]["num_samples"] == 12
    text = (tmp_path / "page.md").read_text()
    assert f"{masked['model']['bits_per_dim']['total']:.3f}" in text
    assert f"{flat['samples']['frechet_distance']:.3f}" in text
    assert "![end_to_end](page/end_to_end_codes.png)" in text
    assert (tmp_path / "page/no_codes_samples_sheet.png").is_file()

    # The figures that are there are kept, and other settings are refused.
    (tmp_path / "out/no_codes-0.json").write_text(json.dumps({**flat, "samples": {"recall": 0.123}}))
    assert "training" in "".join(capsys.readouterr())
    script(*command, "--arms=no_codes")
    assert "training" not in "".join(capsys.readouterr())
    text = (tmp_path / "page.md").read_text()
    assert "0.123" in text and "masked_3" not in text and text.count("# Evidence") == 1
    with pytest.raises(ValueError, match=r"other settings \(probe_steps\)"):
        script(*command, f"--set={json.dumps({**told, 'probe_steps': 3})}", "--arms=no_codes")


def test_images_without_splits_are_refused(script, tmp_path):
    """All of them would be trained on and scored."""
    np.savez(tmp_path / "data.npz", images=np.zeros((6, 8, 8, 3), "uint8"), labels=np.arange(6) % 3)
    with pytest.raises(ValueError, match=r"training images and those of split val are the same"):
        script(
            ROOT / "benchmarks/evidence.py",
            "--smoke",
            f"--data={tmp_path}/data.npz",
            f"--output={tmp_path}/out",
        )


@pytest.fixture
def evidence(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import evidence

    yield evidence
    for flag in flags.FLAGS.get_flags_for_module(evidence):
        delattr(flags.FLAGS, flag.name)
    del sys.modules["evidence"]


def test_arms_may_be_added_but_not_changed(evidence, tmp_path):
    common = {"seeds": [0], "samples": 4000}
    for arms in ({"masked": {"window": 3}}, {"no_codes": None}):
        evidence.claim(tmp_path, {**common, "arms": arms})
    kept = json.loads((tmp_path / "settings.json").read_text())
    assert kept == {**common, "arms": {"masked": {"window": 3}, "no_codes": None}}
    with pytest.raises(ValueError, match=r"other settings \(masked\)"):
        evidence.claim(tmp_path, {**common, "arms": {"masked": {"window": 9}}})


def test_probes_find_what_codes_hold_and_nothing_else(evidence):
    """Images dark above or below: codes tell which half, and nothing of labels that have no part in it."""
    keras.utils.set_random_seed(0)
    network = {"width": 4, "blocks": 1}
    level = {"downsampling": 2, "codebook_size": 8, "code_dim": 4, "width": 8, "blocks": 1}
    model = haim_tf.HierarchicalModel((8, 8, 1), [{**level, "decoder": network}], network, mixtures=2)
    rng = np.random.default_rng(0)

    def halves(count):
        labels = rng.integers(2, size=count)
        images = rng.integers(0, 20, (count, 8, 8, 1), "uint8")
        for image, label in zip(images, labels, strict=True):
            image[4 * label : 4 * label + 4] += 200
        return ImageData(images, labels)

    train, val = halves(200), halves(100)
    settings = {"level": level, "probe_steps": 150}
    found = evidence.measure_codes(model, settings, 0, train, val, None, None)
    assert found["linear_probe"] > 0.95 and found["convolutional_probe"] > 0.95
    variance = np.var(val.images / 127.5, axis=0).mean()
    assert found["error_best"] < variance / 4
    for data in (train, val):
        data.labels[:] = rng.integers(2, size=len(data))
    settings["probe_steps"] = 50
    found = evidence.measure_codes(model, settings, 0, train, val, None, None)
    assert 0.3 < found["linear_probe"] < 0.7 and 0.3 < found["convolutional_probe"] < 0.7


def claim_runs(error, probe, shuffled, total, score, seeds=(0, 1)):
    return {
        s: {
            "model": {
                "bits_per_dim": {"total": total + s, "level_1": 3.0},
                "levels": {"level_1": {"bits_per_dim_shuffled_codes": shuffled}},
            },
            "codes": {"error_best": error, "linear_probe": probe, "convolutional_probe": probe},
            "samples": {"classification_accuracy_score": score},
        }
        for s in seeds
    }


def test_claims_are_judged_by_their_figures(page):
    settings = {
        "arms": {"feed_forward": {}, "masked_3": {"window": 3}, "masked_9": {"window": 9}, "no_codes": None}
    }
    runs = {
        "feed_forward": claim_runs(0.02, 0.10, 3.16, 4.0, 0.05),
        "masked_3": claim_runs(0.01, 0.01, 3.14, 4.0, 0.03),
        "masked_9": claim_runs(0.04, 0.12, 3.5, 5.0, 0.07),
        "no_codes": claim_runs(None, None, 0.0, 4.0, 0.04),
    }
    rows = [line for line in page.claims(runs, settings) if line.startswith("|")][2:]
    assert [row.split("|")[-2].strip() for row in rows] == [
        *("yes", "yes", "yes"),
        *("yes", "yes", "yes"),
        *("**no**", "yes", "**no**"),
        *("yes", "**no**", "yes"),
    ]
    assert "0.160 | >= 0.150" in rows[3]
    unmeasured = page.claims({**runs, "no_codes": {}}, settings)
    assert sum("not measured" in row for row in unmeasured) == 6


def test_the_repositorys_page_can_be_filled(page, tmp_path):
    text = (ROOT / "docs/evidence.md").read_text()
    assert text.count(page.BEGIN) == text.count(page.END) == 1
    broken = tmp_path / "page.md"
    broken.write_text("# Evidence\n")
    names = ("num_scored", "accuracy", "standard_error", "frechet_distance", "precision", "recall")
    judge = {**dict.fromkeys(names, 1), "images": [2, 1], "num_classes": [2, 1]}
    (tmp_path / "judge.json").write_text(json.dumps(judge))
    settings = {
        "arms": {},
        "seeds": [0],
        "level": {"downsampling": 4, "codebook_size": 8},
        "image_shape": [8, 8, 1],
        "training": {"batch_size": 2},
        "code_steps": 1,
        "decoder_steps": 1,
    }
    with pytest.raises(ValueError, match="must have each of these lines once"):
        page.write(broken, tmp_path, settings)
