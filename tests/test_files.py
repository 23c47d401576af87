"""Files checked before long work, and never half-written."""

import json
import os

import pytest

from haim_tf import files


def test_write_json(tmp_path):
    path = files.check_new_file(tmp_path / "figures.json")
    files.write_json(path, {"a": 1})
    assert json.loads(path.read_text()) == {"a": 1}
    with pytest.raises(TypeError):
        files.write_json(tmp_path / "other.json", {"a": object()})
    assert os.listdir(tmp_path) == ["figures.json"]


def test_check_new_file(tmp_path):
    (tmp_path / "there").write_text("kept")
    with pytest.raises(ValueError, match="exists"):
        files.check_new_file(tmp_path / "there")
    with pytest.raises(FileNotFoundError, match="no folder"):
        files.check_new_file(tmp_path / "absent" / "figures.json")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match="cannot write"):
        files.write_json(tmp_path / "folder", {})
    assert sorted(os.listdir(tmp_path)) == ["folder", "there"]
