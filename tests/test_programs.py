"""Kept programs: the same samples without tracing or compiling, and whatever is wrong with the folder."""

import io
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from haim_tf import progress
from haim_tf.likelihoods import Categorical
from haim_tf.networks import PixelCNN
from haim_tf.programs import folder, identity
from haim_tf.sampling import Sampler, seed_pairs

LABELS = np.array([0, 2, 1])


def make_sampler(kind=PixelCNN):
    network = kind(Categorical(6), 4, 1, (2, 3), heads=2, num_classes=3)
    network.build()
    rng = np.random.default_rng(0)
    network.set_weights([rng.normal(0, 0.8, w.shape) for w in network.get_weights()])
    return Sampler(network, (3, 4), stream=1)


def sample(sampler):
    return sampler(seed_pairs(0, 3), 1.0, 1.0, labels=LABELS)[0]


def traces(sampler):
    return sampler._run.experimental_get_tracing_count()


@pytest.fixture(scope="module")
def expected():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HAIM_TF_PROGRAMS", "0")
        return sample(make_sampler())


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HAIM_TF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HAIM_TF_PROGRAMS", "1")
    return tmp_path / "home"


def kept(home):
    return sorted((home / "programs").glob("*"))


def test_traced_once_and_read_by_others(home, expected):
    first, second = make_sampler(), make_sampler()
    np.testing.assert_array_equal(sample(first), expected)
    (file,) = kept(home)
    assert file.parent.stat().st_mode & 0o777 == 0o700
    np.testing.assert_array_equal(sample(second), expected)
    assert (traces(first), traces(second)) == (1, 0) and kept(home) == [file]
    # Weights are inputs: others give other samples, by the same program.
    second.network.set_weights([-w for w in second.network.get_weights()])
    assert (sample(second) != expected).any() and traces(second) == 0


def test_nothing_is_kept_where_the_user_says_so(home, monkeypatch, expected):
    monkeypatch.setenv("HAIM_TF_PROGRAMS", "0")
    np.testing.assert_array_equal(sample(make_sampler()), expected)
    assert not home.exists()


def about_of_another_kind(content):
    damaged = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as whole, zipfile.ZipFile(damaged, "w") as archive:
        for name in whole.namelist():
            archive.writestr(name, b"[]" if name == folder.ABOUT else whole.read(name))
    return damaged.getvalue()


@pytest.mark.parametrize(
    "damage", [lambda content: content[:500], lambda content: b"", about_of_another_kind]
)
def test_a_damaged_file_is_made_anew(home, expected, damage):
    sample(make_sampler())
    (file,) = kept(home)
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    sampler = make_sampler()
    np.testing.assert_array_equal(sample(sampler), expected)
    assert traces(sampler) == 1 and folder.read(file) is not None


def test_one_that_does_not_run_is_made_anew(home, expected):
    sample(make_sampler())
    (file,) = kept(home)
    content = folder.read(file)
    folder.write(file, {**content, "variables": content["variables"][::-1]})
    sampler = make_sampler()
    np.testing.assert_array_equal(sample(sampler), expected)
    assert traces(sampler) == 1 and folder.read(file)["variables"] == content["variables"]


def test_no_folder_of_ones_own(home, expected):
    home.write_text("not a folder")
    np.testing.assert_array_equal(sample(make_sampler()), expected)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HAIM_TF_HOME", "~nobody-is-called-so/kept")
        np.testing.assert_array_equal(sample(make_sampler()), expected)
    home.unlink()
    (home / "programs").mkdir(parents=True)
    (home / "programs").chmod(0o777)
    np.testing.assert_array_equal(sample(make_sampler()), expected)
    assert not kept(home)


def test_a_full_disk(home, expected, full_disk):
    with full_disk(100):
        np.testing.assert_array_equal(sample(make_sampler()), expected)
    assert not kept(home)


def test_the_oldest_go_first(home, monkeypatch):
    place = home / "programs"
    place.mkdir(parents=True)
    content = {"graph": b"", "variables": [], "outputs": [], "executables": {"x": os.urandom(1000)}}
    for i in range(4):
        folder.write(place / f"{i}.zip", content)
        os.utime(place / f"{i}.zip", (i, i))
    folder.read(place / "0.zip")  # Used just now.
    monkeypatch.setattr(folder, "MAX_BYTES", 3 * (place / "0.zip").stat().st_size + 10)
    folder.write(place / "4.zip", content)
    assert [file.name for file in kept(home)] == ["0.zip", "3.zip", "4.zip"]


def test_each_version_has_its_own(home, monkeypatch):
    sample(make_sampler())
    for name, other in (("__version__", "9"), ("_sources", lambda: "other"), ("processor", lambda: "other")):
        before = len(kept(home))
        monkeypatch.setattr(identity, name, other)
        sample(make_sampler())
        assert len(kept(home)) == before + 1


def test_code_of_others_is_not_kept(home, expected):
    class Foreign(PixelCNN):
        pass

    np.testing.assert_array_equal(sample(make_sampler(Foreign)), expected)
    assert not kept(home)


def test_a_note_when_compiling_takes_long(monkeypatch, capsys):
    monkeypatch.setattr(progress, "SLOW_SECONDS", 0.0)
    monkeypatch.setenv("HAIM_TF_PROGRAMS", "0")
    sample(make_sampler())
    assert (
        capsys.readouterr().err == "compiling the sampler of 3x4 grids, 8 at a time: once in this process\n"
    )


PROCESS = """
import importlib.util
import sys

import haim_tf
import numpy as np
from haim_tf.programs import graphs

spec = importlib.util.spec_from_file_location("test_programs", sys.argv[1])
tests = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tests)

loaded, compiled = graphs.loaded, []

def watched(content, *args):
    program, found = loaded(content, *args)
    compiled.append(len(set(found) - set(content["executables"])))
    return program, found

graphs.loaded = watched
sampler = tests.make_sampler()
np.save(sys.argv[2], tests.sample(sampler))
print(tests.traces(sampler), *compiled)
"""


def test_a_second_process_neither_traces_nor_compiles(home, expected, tmp_path):
    """And says nothing, but for the note."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TF_")}
    for answer in ("1 1", "0 0"):
        command = [sys.executable, "-c", PROCESS, __file__, tmp_path / "grid.npy"]
        process = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert process.returncode == 0, process.stderr
        assert all(line.startswith("compiling the sampler") for line in process.stderr.splitlines())
        assert process.stdout.strip() == answer
        np.testing.assert_array_equal(np.load(tmp_path / "grid.npy"), expected)
