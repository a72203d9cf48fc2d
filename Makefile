# Everything starts from a bare Python 3.11 or 3.12; PYTHON chooses which.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup test test-docker test-slow lint types demo clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt setup.sh
	PYTHON=$(PYTHON) VENV=$(VENV) sh setup.sh
	@touch $@

test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2

test-docker: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m "docker and not slow"

test-slow: setup
	$(BIN)/python -m pytest -q -m "slow or docker or gpu"

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

types: setup
	$(BIN)/pyright --pythonpath $(BIN)/python

demo: setup
	$(BIN)/verigym train recipes/quickstart.toml --out runs/quickstart

clean:
	rm -rf $(VENV) build *.egg-info
