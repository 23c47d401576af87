# Each target sets up the environment it needs; a stamp file inside makes the next call quick.
PYTHON ?= python3
VENV := .venv
VENV_JAX := .venv-jax
VENV_DOCS := .venv-docs
BIN := $(VENV)/bin
PACKAGING := setup.cfg pyproject.toml

.PHONY: samples test test-tensorflow test-slow test-jax fuzz lint format docs tutorials release clean

samples: $(VENV)/.installed
	$(BIN)/haim_tf sample --model=fashion_mnist28 --num=64 --output=samples.png

test: lint test-tensorflow test-jax

test-tensorflow: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n auto --dist loadfile -m "not slow and not jax"

test-slow: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m slow

test-jax: $(VENV_JAX)/.installed
	KERAS_BACKEND=jax $(VENV_JAX)/bin/python -m pytest -n auto --dist loadfile -m jax tests/jax

fuzz: $(VENV)/.installed-serve
	$(BIN)/python tests/fuzz/fuzz.py

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# What is uploaded, each tried in a clean environment of $(PYTHON).
release: $(VENV)/.installed-test
	rm -rf dist build
	$(BIN)/python -m build
	for package in dist/*; do PYTHON=$(PYTHON) .ci/smoke $$package || exit 1; done

docs: $(VENV_DOCS)/.installed
	$(VENV_DOCS)/bin/mkdocs build --strict

# The notebooks are kept with their outputs: anew where code or weights have changed.
tutorials: $(VENV)/.installed-tutorials
	$(BIN)/python docs/tutorials/execute.py

clean:
	rm -rf $(VENV) $(VENV_JAX) $(VENV_DOCS) site build dist *.egg-info .pytest_cache .ruff_cache .hypothesis samples.png

# The pip that Python 3.10 brings may be too old for editable installs without a setup.py.
%/.pip:
	$(PYTHON) -m venv $*
	$*/bin/python -m pip install --quiet --upgrade pip
	touch $@

$(VENV)/.installed: $(VENV)/.pip $(PACKAGING)
	$(BIN)/python -m pip install --editable .
	touch $@

$(VENV)/.installed-test: $(VENV)/.pip $(PACKAGING)
	$(BIN)/python -m pip install --editable ".[test]"
	touch $@ $(VENV)/.installed

# What is documented is read, not imported: none of the package's own dependencies.
$(VENV_DOCS)/.installed: $(VENV_DOCS)/.pip $(PACKAGING) Makefile
	$(VENV_DOCS)/bin/python -m pip install mkdocs-material "mkdocstrings[python]"
	touch $@

$(VENV)/.installed-serve: $(VENV)/.installed-test
	$(BIN)/python -m pip install --editable ".[serve,test]"
	touch $@

$(VENV)/.installed-tutorials: $(VENV)/.pip $(PACKAGING)
	$(BIN)/python -m pip install --editable ".[tutorials]"
	touch $@ $(VENV)/.installed

# No tensorflow here, hence no dependencies from setup.cfg.
$(VENV_JAX)/.installed: $(VENV_JAX)/.pip $(PACKAGING) Makefile
	$(VENV_JAX)/bin/python -m pip install absl-py filelock h5py jax "keras>=3.12" numpy pillow pytest pytest-xdist tqdm
	$(VENV_JAX)/bin/python -m pip install --no-deps --editable .
	touch $@
