# `make demo` and `make test` need Python 3.10 or newer and nothing else: they make a virtual environment of their own.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: demo test test-slow style clean

INSTALL = $(BIN)/python -m pip install --quiet --constraint constraints.txt

# What the demo needs; on top of it, what the tests do.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 10) else "hf_latent needs Python 3.10 or newer: make PYTHON=/path/to/python")'
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) torch
	$(INSTALL) --editable '.[examples]'
	touch $@

$(VENV)/.tests-installed: $(VENV)/.installed
	$(INSTALL) --editable '.[dev]'
	touch $@

demo: $(VENV)/.installed
	$(BIN)/python examples/demo.py --output_dir demo_output

test: $(VENV)/.tests-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2

test-slow: $(VENV)/.tests-installed
	$(BIN)/python -m pytest -m slow

style: $(VENV)/.tests-installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) demo_output outputs
