"""The documentation: snippets run, the reference has every name, tables every key, links lead somewhere."""

import configparser
import importlib
import inspect
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import haim_tf
from haim_tf import training
from haim_tf.models.hierarchy import LEVEL_KEYS, OPTIONAL_LEVEL_KEYS
from haim_tf.networks import AUXILIARY_DECODERS, AutoregressiveNetwork, PixelCNN
from haim_tf.training import read_recipe
from haim_tf.training.recipe import (
    DEFAULTS,
    OPTIONAL,
    STAGE_DEFAULTS,
    STAGE_OPTIONAL,
    STAGE_OVERRIDES,
    check_recipe,
    with_classes_of,
)

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

# Snippets: what stands in for what takes long; `make test-slow` runs them as they stand.
TINY = {"(28, 28, 1)": "(16, 16, 3)", "(32, 32, 3)": "(16, 16, 3)"}
TINY |= {f'load("{name}"': 'load("debug"' for name in ("fashion_mnist28", "imagenet32", "imagenet64")}
QUICK = {
    "README.md": {**TINY, '"Ankle boot"': '"three"', "steps_per_epoch=200, epochs=5": "steps_per_epoch=2"},
    "docs/likelihood.md": {
        **TINY,
        "(28, 28)": "(16, 16)",
        "rows=14,": "rows=8, candidates=2,",
        "num=4, candidates=16": "num=1, candidates=2",
        "distribution.sample(16,": "distribution.sample(4,",
    },
    "docs/recipes.md": TINY,
    "docs/parts.md": {},
    "docs/serving.md": {},
}
# Those that cost little as they stand.
CHEAP = {"docs/parts.md", "docs/serving.md"}
# Tests of its own run it, tests/test_finetuning.py.
ELSEWHERE = {"docs/finetuning.md"}


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def snippets(path, language="python"):
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(encoding="utf-8"), re.S | re.M)


def test_every_page_with_snippets_is_run():
    assert {name_of(path) for path in PAGES if snippets(path)} == set(QUICK) | ELSEWHERE


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working folder with what the pages take for granted."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2)):
        for label in range(10):
            folder = tmp_path / "my_folder" / split / f"class{label}"
            folder.mkdir(parents=True)
            for i in range(count):
                image = rng.integers(0, 40, (32, 32, 3)) + 20 * label
                Image.fromarray(image.astype("uint8")).save(folder / f"{i}.png")
    monkeypatch.chdir(tmp_path)
    # What a page registers is gone afterwards.
    monkeypatch.setattr(AUXILIARY_DECODERS, "_makers", dict(AUXILIARY_DECODERS._makers))
    return tmp_path


def run(name, place, replaced):
    path = ROOT / name
    if name == "docs/recipes.md":  # The page's own example is checked below; here is a small one.
        level = {"downsampling": 2, "codebook_size": 8, "code_dim": 4, "width": 4, "blocks": 1}
        model = {"image_shape": [8, 8, 3], "levels": [{**level, "decoder": {"width": 4, "blocks": 1}}]}
        model["prior"] = {"width": 4, "blocks": 1}
        recipe = {"model": model, "stages": [{"steps": 250, "learning_rate": 0.01}]}
        (place / "my_recipe.json").write_text(json.dumps(recipe))
    if name == "docs/serving.md":
        # As that model does, it takes guidance.
        network = {"width": 4, "blocks": 1}
        level = {"downsampling": 2, "codebook_size": 4, "code_dim": 2, **network, "decoder": network}
        prior = {**network, "label_dropout": 0.1}
        model = haim_tf.HierarchicalModel((4, 4, 1), [level], prior, num_classes=10, mixtures=1)
        haim_tf.saved_model.export(
            model, place / "models/fashion_mnist28", batch_sizes=[1], warmup=False, xla=False
        )
    found = {"__name__": "__main__"}
    for code in snippets(path):
        for old, new in replaced.items():
            code = code.replace(old, new)
        exec(compile(code, str(path), "exec"), found)
    return found


@pytest.mark.parametrize("name", QUICK)
def test_snippets_run(name, place, request, monkeypatch):
    if name == "docs/recipes.md":  # Pictures of a training have a test of their own.
        request.getfixturevalue("eagerly")
        monkeypatch.setattr(training.outcome, "save_pictures", lambda *arguments: None)
    text = (ROOT / name).read_text(encoding="utf-8")
    own = {old: new for old, new in QUICK[name].items() if old not in TINY}
    assert all(old in text for old in own), "the page has changed: so must what stands in for its parts"
    found = run(name, place, QUICK[name])
    if name == "README.md":
        assert found["codes"] and (place / "my_model" / "model.weights.h5").is_file()
    elif name == "docs/recipes.md":
        assert isinstance(haim_tf.load("runs/smoke/preset"), type(found["model"]))
    elif name == "docs/parts.md":
        assert isinstance(found["again"].autoencoders[0].decoder, found["LinearDecoder"])


@pytest.mark.slow(reason="the models of the zoo, trained and sampled as the pages say")
@pytest.mark.parametrize("name", sorted({*QUICK, *ELSEWHERE} - CHEAP))
def test_snippets_run_as_they_stand(name, place):
    run(name, place, {})


# Notebooks --------------------------------------------------------------------------------------------------

NOTEBOOKS = sorted((ROOT / "docs/tutorials").glob("*.ipynb"))


def code_of(path):
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_kept_as_they_were_executed_and_small(path):
    assert [cell["execution_count"] for cell in code_of(path)] == list(range(1, len(code_of(path)) + 1))
    outputs = [output for cell in code_of(path) for output in cell["outputs"]]
    assert outputs and not [output for output in outputs if output["output_type"] == "error"]
    assert path.stat().st_size < 300_000
    assert f"- tutorials/{path.stem}.md\n" in (ROOT / "mkdocs.yml").read_text()
    assert f"](docs/tutorials/{path.name})" in (ROOT / "README.md").read_text()


@pytest.mark.slow(reason="models of the zoo, sampled, fine-tuned, served")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run(path, tmp_path, monkeypatch):
    if path.stem == "serve":
        pytest.importorskip("ray", reason="ray[serve] is not installed")
    monkeypatch.chdir(tmp_path)
    found = {"__name__": "__main__"}
    try:
        for cell in code_of(path):
            exec(compile("".join(cell["source"]), str(path), "exec"), found)
    finally:
        if "server" in found:  # Where a cell failed while it ran.
            found["server"].terminate()
            found["server"].wait()


# The reference ---------------------------------------------------------------------------------------------


def test_the_reference_has_every_public_name():
    listed = []
    for page in sorted((ROOT / "docs/reference").glob("*.md")):
        listed += re.findall(r"^::: haim_tf\.(\S+)$", page.read_text(encoding="utf-8"), re.M)
    assert len(listed) == len(set(listed))
    packages = [name for name in haim_tf.__all__ if inspect.ismodule(getattr(haim_tf, name))]
    public = {f"{name}.{each}" for name in packages for each in getattr(haim_tf, name).__all__}
    # What methods of the model return, and no one makes by hand.
    public |= {f"distribution.{name}" for name in ("ImageDistribution", "PriorDistribution")}
    assert set(listed) == public
    for name in listed:
        package, _, attribute = name.partition(".")
        assert hasattr(importlib.import_module(f"haim_tf.{package}"), attribute)


def test_the_reference_s_first_page_has_every_name_of_the_package():
    text = (ROOT / "docs/reference/index.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| \[?`haim_tf\.(\w+)`", text, re.M)) == set(haim_tf.__all__)


@pytest.mark.parametrize("page", sorted((ROOT / "docs/reference").glob("*.md")), ids=lambda path: path.stem)
def test_the_site_shows_every_page_of_the_reference(page):
    assert f"- reference/{page.name}\n" in (ROOT / "mkdocs.yml").read_text(encoding="utf-8")


def test_the_site_s_environment_is_what_the_extra_says():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    wanted = config["options.extras_require"]["docs"].split()
    (line,) = re.findall(r"\$\(VENV_DOCS\)/bin/python -m pip install (.*)", (ROOT / "Makefile").read_text())
    assert shlex.split(line) == wanted


# The page on recipes ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recipes():
    return (ROOT / "docs/recipes.md").read_text(encoding="utf-8")


def table(text, title):
    """The table under a title: a dict of the names in the first column to the second one's text."""
    (section,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", text, re.S | re.M)
    rows = {}
    for keys, second in re.findall(r"^\| (`[^|]*) \| ([^|]*)\|", section, re.M):
        rows |= {key: second.strip() for key in re.findall(r"`(\w+)`", keys)}
    return rows


def test_every_key_of_a_recipe_is_told(recipes):
    told = table(recipes, "Keys of a recipe")
    assert set(told) == {"model", "stages", *DEFAULTS, *OPTIONAL}
    for key, default in DEFAULTS.items():
        assert json.loads(told[key].strip("`")) == default, key
    told = table(recipes, "Keys of a stage")
    assert set(told) == {"steps", "learning_rate", *STAGE_DEFAULTS, *STAGE_OVERRIDES, *STAGE_OPTIONAL}


def test_every_key_of_a_model_s_parts_is_told(recipes):
    assert set(table(recipes, "Keys of a level")) == {*LEVEL_KEYS, *OPTIONAL_LEVEL_KEYS}
    own = inspect.signature(PixelCNN.__init__).parameters
    given = inspect.signature(AutoregressiveNetwork.__init__).parameters
    # What the model itself says of a network.
    known = {"self", "kwargs", "likelihood", "codebook_size", "upsampling", "num_classes", "code_dim"}
    told = set(table(recipes, "Keys of a main decoder or prior"))
    # `kind` says which network; `labels` decides on a main decoder's `num_classes`.
    assert told == {*own, *given, "kind", "labels"} - known


def test_the_example_has_every_key_and_trains(recipes):
    (text,) = snippets(ROOT / "docs/recipes.md", "json")
    example = json.loads(text)
    assert set(example) == {"model", "stages", *DEFAULTS}
    keys = set().union(*example["stages"])
    assert keys == {"steps", "learning_rate", *STAGE_DEFAULTS, *STAGE_OVERRIDES, *STAGE_OPTIONAL}
    assert set().union(*example["model"]["levels"]) >= {*LEVEL_KEYS, "auxiliary"}
    images = haim_tf.data.ImageData(np.zeros((600, 32, 32, 3), "uint8"), np.arange(600) % 3)
    for variant in (None, "flat"):
        recipe = with_classes_of(read_recipe(example, variant=variant), images)
        model = haim_tf.HierarchicalModel(**recipe["model"])
        check_recipe(recipe, model, images)


# Links -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "page", [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "benchmarks/README.md"], ids=name_of
)
def test_links_between_files_lead_somewhere(page):
    """`make docs` checks all of them, anchors too; this much needs no MkDocs."""
    text = page.read_text(encoding="utf-8")
    check_links(text, page.parent)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_links_of_notebooks_lead_somewhere(path):
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "markdown":
            check_links("".join(cell["source"]), path.parent)


def check_links(text, folder):
    for target in re.findall(r"\]\(([^)\s#]+)[^)]*\)", text) + re.findall(r'<img src="([^"]+)"', text):
        # MkDocs follows links to files alone.
        assert "://" in target or (folder / target).is_file(), target
