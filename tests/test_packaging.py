"""The wheel and the editable install, each in a clean environment: what they contain, and that they work."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import haim_tf

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGED = ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "haim_tf", "zoo")
# What an sdist carries beside it: the rest of a checkout.
ALONGSIDE = ("MANIFEST.in", "CITATION.cff", "CHANGELOG.md", "CONTRIBUTING.md", "Makefile", "ruff.toml", ".ci")
ALONGSIDE += ("mkdocs.yml", "benchmarks", "docs", "export", "tests")
MODELS = {path.parent.name for path in REPOSITORY.glob("zoo/*/config.json")}
PROBE = """
import importlib.resources, json, haim_tf
zoo = importlib.resources.files("haim_tf.zoo")
print(json.dumps({
    "file": haim_tf.__file__,
    "models": haim_tf.list_models(),
    "configs": sorted(p.name for p in zoo.iterdir() if p.joinpath("config.json").is_file()),
}))
"""


def run(*command, cwd):
    """Runs a command outside the repository, with nothing on its path by way of the environment."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A copy of what is packaged: building leaves files behind, and old ones would end up in the wheel."""
    folder = tmp_path_factory.mktemp("source")
    for name in PACKAGED + ALONGSIDE:
        path = REPOSITORY / name
        if path.is_dir():
            shutil.copytree(path, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, folder)
    # Python leaves such files in a checkout, and the pattern that collects the zoo would match them.
    (folder / "zoo/__pycache__").mkdir()
    (folder / "zoo/__pycache__/stale.pyc").touch()
    return folder


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory):
    output = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", output, source, cwd=output)
    (path,) = output.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def sdist(source, tmp_path_factory):
    """An sdist, unpacked."""
    output = tmp_path_factory.mktemp("sdist")
    run(sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", output, source, cwd=output)
    (path,) = output.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        archive.extractall(output / "unpacked", filter="data")
    (folder,) = (output / "unpacked").iterdir()
    return folder


def clean_environment(folder, *install):
    """A virtual environment with only this package installed, that borrows its dependencies from ours.

    Paths named in a .pth file have no effect beyond themselves, so an editable install of ours stays out.
    """
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
    site = next(folder.glob("lib*/python*/site-packages"))
    ours = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (site / "borrowed.pth").write_text("\n".join(ours))
    python = folder / "bin/python"
    pip = (python, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation")
    run(*pip, "--ignore-installed", *install, cwd=folder.parent)
    return folder


def test_wheel_contains_the_package_and_the_zoo_and_nothing_else(wheel):
    modules = {str(path.relative_to(REPOSITORY)) for path in REPOSITORY.glob("haim_tf/**/*.py")}
    modules.add("haim_tf/py.typed")
    zoo = {f"haim_tf/{path.relative_to(REPOSITORY)}" for path in REPOSITORY.glob("zoo/*/*")}
    zoo = {name for name in zoo if "__pycache__" not in name} | {"haim_tf/zoo/__init__.py"}
    names = zipfile.ZipFile(wheel).namelist()
    assert {name for name in names if ".dist-info/" not in name} == modules | zoo


def test_sdist_is_a_checkout(sdist):
    wanted = set()
    for name in PACKAGED + ALONGSIDE:
        paths = [REPOSITORY / name, *(REPOSITORY / name).rglob("*")]
        wanted |= {str(path.relative_to(REPOSITORY)) for path in paths if path.is_file()}
    wanted = {name for name in wanted if "__pycache__" not in name}
    assert "tests/test_packaging.py" in wanted and ".ci/run" in wanted
    found = {str(path.relative_to(sdist)) for path in sdist.rglob("*") if path.is_file()}
    assert wanted - found == set()
    extra = {name for name in found - wanted if ".egg-info/" not in name}
    assert extra == {"PKG-INFO"} | (extra & {".gitignore"})


def test_sdist_gives_the_same_wheel(sdist, wheel, tmp_path):
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, sdist, cwd=tmp_path)
    (path,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(path) as ours, zipfile.ZipFile(wheel) as theirs:
        assert sorted(ours.namelist()) == sorted(theirs.namelist())


def test_the_citation_names_paper_version_and_date():
    text = (REPOSITORY / "CITATION.cff").read_text()
    assert text.startswith("cff-version: 1.2.0\n") and "arXiv:1903.04933" in text
    version, date = (re.search(rf"^{key}: (\S+)$", text, re.M)[1] for key in ("version", "date-released"))
    assert version == haim_tf.__version__
    assert f"## {version} ({date})" in (REPOSITORY / "CHANGELOG.md").read_text()


@pytest.mark.parametrize("kind", ["wheel", "editable"])
def test_installed_package_works_from_another_directory(kind, wheel, source, tmp_path):
    install = (wheel,) if kind == "wheel" else ("--editable", source)
    environment = clean_environment(tmp_path / "environment", *install)
    found = json.loads(run(environment / "bin/python", "-I", "-c", PROBE, cwd=tmp_path))
    assert Path(found["file"]).is_relative_to(environment if kind == "wheel" else source)
    assert MODELS and MODELS == set(found["configs"])
    assert MODELS <= set(found["models"])
    assert MODELS <= set(run(environment / "bin/haim_tf", "list", cwd=tmp_path).split())
