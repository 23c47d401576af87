"""`haim_tf choose_sampling`."""

import json

import numpy as np

import haim_tf


def test_writes_what_it_chose(run, tmp_path):
    model = haim_tf.load("debug")
    model.save_to_preset(tmp_path / "preset", metadata={"pretrained": True})
    images = np.random.default_rng(0).integers(0, 256, (24, 16, 16, 3)).astype("uint8")
    np.savez(tmp_path / "data.npz", images=images, labels=np.arange(24) % 2)
    flags = [f"--model={tmp_path / 'preset'}", f"--data={tmp_path / 'data.npz'}"]
    flags += ["--split=train[:-8]", "--tune_split=train[-8:]", "--num=4", "--draws=2", "--steps=2"]
    code, _, errors = run("choose_sampling", *flags)
    assert code == 0, errors
    metadata = json.loads((tmp_path / "preset" / "metadata.json").read_text())
    assert len(metadata["sampling_chosen"]["draws"]) == 2
    assert haim_tf.load(tmp_path / "preset").sampling_defaults == metadata["sampling"]
    card = (tmp_path / "preset" / "README.md").read_text()
    assert "## Sampling" in card and "in 2 draws" in card
