"""TensorBoard's events: what a run tells it, and nothing where it is not installed."""

import contextlib
import importlib.util
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from haim_tf.training.tensorboard import TensorBoard


@pytest.fixture
def told(monkeypatch):
    """A stand-in for `tf.summary`, which itself needs TensorBoard: a list of what it was told, in order."""
    told = []

    def create_file_writer(folder):
        told.append(("writer", folder))
        return SimpleNamespace(as_default=contextlib.nullcontext, close=lambda: told.append(("closed",)))

    def scalar(name, value, step):
        told.append((name, value, step))

    def image(name, images, step, max_outputs):
        told.append((name, len(images), step, max_outputs))

    monkeypatch.setattr(
        tf, "summary", SimpleNamespace(create_file_writer=create_file_writer, scalar=scalar, image=image)
    )
    return told


@pytest.mark.parametrize("installed", [True, False])
def test_figures_and_pictures(told, monkeypatch, tmp_path, installed):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if installed else None)
    board = TensorBoard(tmp_path / "events")
    board.scalars({"stage": 1, "step": 30, "loss": 2.5, "seconds": 1.0})
    board.images("samples", np.zeros((20, 4, 6, 1), "uint8"), step=60)
    board.close()
    expected = [
        ("writer", str(tmp_path / "events")),
        ("stage_2/loss", 2.5, 30),
        ("stage_2/seconds", 1.0, 30),
        ("samples", 20, 60, 16),
        ("closed",),
    ]
    assert told == (expected if installed else [])


def test_a_disk_that_is_full_at_the_end_is_no_fault_of_the_run(told, monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    board = TensorBoard(tmp_path)
    board.scalars({"stage": 0, "step": 1, "loss": 1.0})

    def close():
        raise OSError("no space left")

    board._writer.close = close
    board.close()
    assert board._writer is None


def test_events_that_cannot_be_written_are_left_out(monkeypatch, tmp_path):
    def refuse(folder):
        raise tf.errors.FailedPreconditionError(None, None, f"{folder} is not a directory")

    monkeypatch.setattr(tf, "summary", SimpleNamespace(create_file_writer=refuse))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    board = TensorBoard(tmp_path / "events")
    board.scalars({"stage": 1, "step": 30, "loss": 2.5})
    board.images("samples", np.zeros((20, 4, 6, 1), "uint8"), step=60)
    board.close()
