"""Progress: on standard error, control codes on terminals only, out of the way of what comes next."""

import io
import os
import pty
import subprocess
import sys

import pytest

import haim_tf
from haim_tf import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_plain_lines_where_there_is_no_terminal(capsys, monkeypatch):
    bar = progress.Bar(3, "batches")
    bar.add(1)
    assert capsys.readouterr() == ("", "")  # It has only begun.
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    bar.add(2, loss=0.5)
    assert capsys.readouterr() == ("", "3/3 batches  loss 0.5\n")
    progress.Bar(3, "batches", show=False).add(1)
    assert capsys.readouterr() == ("", "")


def test_a_bar_on_a_terminal_vanishes(capsys, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with progress.Bar(2, "batches") as bar:
        bar.add(1)
    for stop in (lambda bar: bar.add(2), lambda bar: progress.close_all()):
        stop(progress.Bar(2, "batches"))
    text = sys.stderr.getvalue()
    assert "2 batches" in text or "0/2" in text
    # What comes next starts at the beginning of an empty line.
    assert text.endswith("\r") and not text.split("\r")[-2].strip()
    assert not progress._open_bars and capsys.readouterr().out == ""


SAMPLE = ["sample", "--model=small", "--num=3", "--batch_size=2", "--output=x.png"]


@pytest.fixture
def place(tmp_path):
    """A folder with the preset of one small network."""
    haim_tf.HierarchicalModel((4, 4, 1), [], {"width": 4, "blocks": 1}).save_to_preset(tmp_path / "small")
    return tmp_path


def test_a_command_writes_its_result_alone_to_standard_output(place):
    process = subprocess.run(
        [sys.executable, "-m", "haim_tf", *SAMPLE], cwd=place, capture_output=True, text=True
    )
    assert (process.returncode, process.stdout) == (0, "3 images in x.png\n")
    assert not {"\r", "\b", "\x1b"} & set(process.stderr)


def test_a_terminal_shows_the_bar_apart_from_the_result(place):
    ours, theirs = pty.openpty()
    process = subprocess.run(
        [sys.executable, "-m", "haim_tf", *SAMPLE], cwd=place, stdout=subprocess.PIPE, stderr=theirs
    )
    shown = os.read(ours, 1 << 16).decode()
    os.close(theirs)
    os.close(ours)
    assert process.stdout == b"3 images in x.png\n"
    assert "network passes" in shown and shown.endswith("\r")


@pytest.mark.parametrize("arguments", [["list"], ["--help"], ["info", "imagenet64"]])
def test_a_reader_that_stops_early_is_no_error(arguments):
    process = subprocess.Popen(
        [sys.executable, "-m", "haim_tf", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert (process.wait(), errors) == (0, b"")


def test_work_goes_on_where_nobody_reads_of_it(monkeypatch):
    class Gone(io.StringIO):
        def write(self, text):
            raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(sys, "stderr", Gone())
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    progress.tell("under way")
    progress.Bar(3, "batches").add(2)
