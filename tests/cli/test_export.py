"""`haim_tf export`."""

import json

import pytest


def test_version_after_version(run, tmp_path, monkeypatch):
    from haim_tf import saved_model

    # What is in the signatures is tested where they are made; tracing them takes its time.
    monkeypatch.setattr(saved_model.Program, "signatures", lambda self: {})
    monkeypatch.chdir(tmp_path)
    flags = ("--model=debug", "--output=models/debug")
    assert run("export", *flags) == (0, "debug in models/debug/1\n", "")
    code, output, _ = run(
        "export", *flags, "--dtype=float16", "--batch_sizes=4, 1", "--name=noise", "--noxla"
    )
    assert (code, output) == (0, "debug in models/debug/2\n")
    description = json.loads((tmp_path / "models/debug/2/assets.extra/haim_tf.json").read_text())
    assert description["name"] == "noise" and description["batch_sizes"] == [1, 4]
    assert description["dtype"] == "float16" and description["xla"] is False
    assert description["class_names"][7] == "seven" and description["num_classes"] == 10
    assert sorted(path.name for path in (tmp_path / "models/debug").iterdir()) == ["1", "2"]


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--batch_sizes=1,many", "--batch_sizes must be positive ints, got '1,many'"),
        ("--batch_sizes=0", "batch_sizes must be an integer of at least 1, got 0"),
        ("--dtype=int8", "flag --dtype=int8: value should be one of"),
        ("--model=debugs", "there is no model 'debugs': did you mean 'debug'?"),
    ],
)
def test_bad_flags_leave_nothing_behind(run, tmp_path, flag, message):
    flags = [] if flag.startswith("--model") else ["--model=debug"]
    code, _, errors = run("export", *flags, f"--output={tmp_path / 'models'}", flag)
    assert code == 2
    assert errors.startswith(f"haim_tf export: {message}") and errors.count("\n") == 1
    assert not list(tmp_path.iterdir())
