"""What is set before TensorFlow is loaded: quiet, and never against the user."""

import os

import pytest

from haim_tf import startup

OURS = f"--tf_xla_persistent_cache_directory={startup.EXECUTABLES} --tf_xla_persistent_cache_device_types=CPU"


@pytest.fixture
def loaded(monkeypatch):
    """What the environment is once TensorFlow is loaded: level and flags."""

    def load(version="2.21.0", **environment):
        environment = {"HAIM_TF_PROGRAMS": "1"} | environment
        for name in ("TF_CPP_MIN_LOG_LEVEL", "TF_XLA_FLAGS", "HAIM_TF_PROGRAMS"):
            monkeypatch.delenv(name, raising=False)
            if name in environment:
                monkeypatch.setenv(name, environment[name])
        monkeypatch.setattr(startup, "_version", lambda: version)
        with startup._loading_tensorflow():
            os.write(2, b"I0000 00:00:1795720660.412107   32400 port.cc:153] oneDNN\nothers'\n")
        return os.environ.get("TF_CPP_MIN_LOG_LEVEL"), os.environ.get("TF_XLA_FLAGS")

    return load


def test_quiet_and_kept(loaded, capfd):
    assert loaded() == ("3", OURS)
    assert capfd.readouterr().err == "others'\n"


def test_what_the_user_set_stays(loaded, capfd):
    own = "--tf_xla_persistent_cache_directory=/mine"
    assert loaded(TF_CPP_MIN_LOG_LEVEL="0", TF_XLA_FLAGS=own) == ("0", own)
    assert "oneDNN" in capfd.readouterr().err
    assert loaded(TF_XLA_FLAGS="--tf_xla_auto_jit=1") == ("3", f"--tf_xla_auto_jit=1 {OURS}")


@pytest.mark.parametrize("setting", [{"HAIM_TF_PROGRAMS": "0"}, {"version": "2.99.0"}, {"version": ""}])
def test_no_flags_where_nothing_is_kept_or_the_version_is_not_known(loaded, setting):
    assert loaded(**setting) == ("3", None)


def test_a_module_is_executed_inside(tmp_path, monkeypatch):
    (tmp_path / "late_module.py").write_text("import os\nos.write(2, b'')\ninside = True\n")
    monkeypatch.syspath_prepend(tmp_path)
    said = []

    class Around:
        def __enter__(self):
            said.append("before")

        def __exit__(self, *error):
            said.append("after")

    startup.on_import("late_module", Around)
    import late_module

    assert late_module.inside and said == ["before", "after"]


def test_lines_come_through_when_an_import_fails(capfd):
    with pytest.raises(ImportError), startup.held_back(b"I0"):
        os.write(2, b"I0 dropped\nwhy it failed\n")
        raise ImportError
    assert capfd.readouterr().err == "why it failed\n"
