"""Images set aside for scores: which split each lies in, and what labels count where classes are left out."""

from pathlib import Path

import numpy as np
import pytest

from haim_tf import data

SCRIPT = Path(__file__).parents[1] / "benchmarks/hold_back.py"


@pytest.fixture
def images(tmp_path):
    """Four classes, 5 training and 2 validation images each, of one value: label, split and place."""
    folder = tmp_path / "data"
    folder.mkdir()
    for split, count in (("train", 20), ("val", 8)):
        values = np.arange(count) + (100 if split == "val" else 0)
        np.save(
            folder / f"{split}_images.npy", np.tile(values[:, None, None, None], (1, 4, 4, 1)).astype("uint8")
        )
        np.save(folder / f"{split}_labels.npy", np.arange(count) % 4)
    return folder


@pytest.mark.parametrize("keep, new", [([], {1: 1, 3: 3}), (["--keep=0,1,3"], {1: 1, 3: 2})])
def test_the_last_images_of_a_class_and_its_validation_images_are_scored(script, images, tmp_path, keep, new):
    output = tmp_path / "out"
    script(SCRIPT, f"--data={images}", "--classes=3,1", "--per_class=2", f"--output={output}", *keep)
    found = {split: data.load(output, split) for split in ("train", "val", "score")}
    values = {split: part.images[:, 0, 0, 0].tolist() for split, part in found.items()}
    stay = (0, 1, 3) if keep else (0, 1, 2, 3)
    assert values["score"] == [101, 103, 105, 107, 13, 15, 17, 19]
    assert values["train"] == [v for v in range(20) if v % 4 in stay and v not in (13, 15, 17, 19)]
    assert values["val"] == [v for v in range(100, 108) if v % 4 in stay]
    assert found["score"].labels.tolist() == [new[1], new[3]] * 4


def test_what_is_scored_must_stay(script, images, tmp_path):
    with pytest.raises(ValueError, match=r"--classes must be among those that stay, \[3\] are not"):
        script(SCRIPT, f"--data={images}", "--classes=3,1", "--keep=0,1", f"--output={tmp_path / 'out'}")
