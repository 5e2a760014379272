# make demo      set everything up, and see what elute does
# make test      the same, then the checks and the unit suite
# make journeys  what a person does, end to end, with a real browser where there is one
# make bench     the benchmarks
#
# Each may be run again; what is there already is not done again.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
export OMP_WAIT_POLICY ?= passive

.DEFAULT_GOAL := help
.PHONY: help demo test journeys bench clean

help:
	@sed -n 's/^# //p' Makefile

# PyTorch goes first and by itself: its version is pinned, and no other package may choose another one.
$(VENV)/.base: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing PyTorch and elute into $(VENV) (a few minutes the first time)"
	@$(PIP) torch==2.13.0
	@$(PIP) --editable .
	@touch $@

$(VENV)/.cells: $(VENV)/.base
	@$(PIP) --editable ".[cells]"
	@touch $@

$(VENV)/.dev: $(VENV)/.cells
	@$(PIP) --editable ".[arrays,cells,geneformer,tissue,routing,particles,app,tensorboard,wandb,dev]"
	@$(PIP) --no-deps circuit-tracer  # of it the model of a graph's file alone: what it needs besides is gigabytes
	@touch $@

demo: $(VENV)/.cells
	@$(BIN)/elute demo

test: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest --ignore=tests/journeys --numprocesses=2 --quiet

journeys: $(VENV)/.dev
	$(BIN)/python -m pytest tests/journeys --numprocesses=2 --dist=loadfile --quiet

# The libraries that elute is measured against, in an environment of their own.
benchmarks/peers/.venv/.ready: benchmarks/peers/build.sh benchmarks/peers/requirements.txt
	@echo "installing the peers into benchmarks/peers/.venv (a few minutes the first time)"
	@PYTHON=$(PYTHON) benchmarks/peers/build.sh

bench: $(VENV)/.dev benchmarks/peers/.venv/.ready
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
