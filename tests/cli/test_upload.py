"""`haim_tf upload`; what is uploaded, and that it loads again, is tested in tests/presets/test_hub.py."""

import pytest

from haim_tf import presets


@pytest.fixture
def uploaded(monkeypatch):
    calls = []

    def upload(folder, to, **options):
        calls.append((folder, to, options))
        return "https://there/you/mine"

    monkeypatch.setattr(presets, "upload", upload)
    return calls


def test_upload(run, uploaded):
    code, output, errors = run("upload", "--model=debug", "--to=hf://you/mine", "--private", "--license=mit")
    assert (code, errors) == (0, "")
    assert output == 'debug is at https://there/you/mine: haim_tf.load("hf://you/mine")\n'
    assert uploaded == [(presets.find("debug"), "hf://you/mine", {"private": True, "license": "mit"})]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model=debug"], "--to must be given"),
        (["--model=debgu", "--to=hf://you/mine"], "there is no model 'debgu'"),
        (["--model=debug", "--to=you/mine"], "a preset on the hub must be hf://owner/name"),
    ],
)
def test_bad_input(run, flags, message):
    code, output, errors = run("upload", *flags)
    assert (code, output) == (2, "")
    assert errors.startswith(f"haim_tf upload: {message}") and errors.count("\n") == 1
