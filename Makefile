# Each target makes its own environment; nothing has to be installed first but Python 3.11 or later.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.dev
DEMO_STAMP := $(VENV)/.demo

# The tests wait for processes more than they compute: one more at a time than there are processors.
WORKERS ?= $(shell echo $$(($$(getconf _NPROCESSORS_ONLN) + 1)))
PYTEST := $(BIN)/python -m pytest -p tests.support.progress --numprocesses $(WORKERS) --dist worksteal -rfEX
# The tests start hundreds of Pythons, and each would compile the package again if the compiled files were not kept.
unexport PYTHONDONTWRITEBYTECODE
COMPILE := $(BIN)/python -m compileall -q mlld_sdk actors supervision transport

.DEFAULT_GOAL := help
.PHONY: help demo test test-long chaos lint format bench docs clean

$(VENV)/pyvenv.cfg:
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else \
	"mlld-otp needs Python 3.11 or later, $(PYTHON) is older; name one: make PYTHON=python3.12 $(MAKECMDGOALS)")'
	$(PYTHON) -m venv $(VENV)

$(DEMO_STAMP): $(VENV)/pyvenv.cfg pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	touch $@

$(STAMP): $(VENV)/pyvenv.cfg pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@ $(DEMO_STAMP)

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(DEMO_STAMP)  ## kill an engine, an agent and a whole service for real, and watch the work finish
	$(BIN)/python -m mlld_sdk demo

test: $(STAMP)  ## everything but the long runs, in four to five minutes; real mlld and Erlang are used when they are there
	$(COMPILE)
	$(PYTEST) -m "not long and not types"

test-long: $(STAMP)  ## the long chaos runs
	$(BIN)/python -m pytest -m long --timeout 3600

MINUTES ?= 10
chaos: $(STAMP)  ## break everything for MINUTES (10), and print what was tried and what was lost, doubled or wrong
	$(COMPILE)
	nice -n 10 $(BIN)/python -m tests.chaos --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

lint: $(STAMP)  ## formatting, lint, the arrows between rooms, types, and what is written by scripts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/mypy --strict tests/types/*.py examples/*.py
	$(BIN)/basedpyright
	$(BIN)/python -m pytest -q -m types tests/house
	$(BIN)/python tests/types/twins.py
	$(BIN)/python docs/make_reference.py --check
	$(BIN)/python docs/draw_house.py --check
	$(BIN)/python benchmarks --check docs/performance.md

format: $(STAMP)  ## mend what can be mended by itself
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)  ## every benchmark beside its peers, into docs/performance.md
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	$(BIN)/python benchmarks --into docs/performance.md

docs: $(STAMP)  ## the pages as a site, in build/docs
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	$(BIN)/python docs/make_reference.py
	$(BIN)/python docs/make_events.py
	$(BIN)/python docs/draw_house.py
	$(BIN)/python -m sphinx -q -W --keep-going docs build/docs

clean:  ## remove the environment and what was built
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache
