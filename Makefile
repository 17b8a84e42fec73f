# make run     serve from this checkout: http://127.0.0.1:5000, data in ./roadstead-data
# make test    what continuous integration runs: style, types, tests
# make help    the rest
#
# ARGS goes through: make run ARGS="--listen 127.0.0.1:5001", make test ARGS="-k upload"

PYTHON ?= python3
ARGS ?=
# One more than there are processors: many tests wait for a server, or for time to pass.
WORKERS ?= $(shell expr `getconf _NPROCESSORS_ONLN` + 1)

VENV := .venv
BIN := $(VENV)/bin
INPUTS := pyproject.toml requirements/constraints.txt
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements/constraints.txt

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run test lint format soak bench constraints debian-packages clean

help: ## Show what there is to make
	@sed -nE 's/^([a-z-]+):.*## (.*)$$/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24

run: $(VENV)/installed-to-run ## Serve from this checkout
	@$(BIN)/python -m compileall -q src
	$(BIN)/roadstead serve $(ARGS)

test: lint debian-packages ## Check style and types, run all tests but the soak tests
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

lint: $(VENV)/installed-to-develop ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/installed-to-develop ## Put the code into its format and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

soak: $(VENV)/installed-to-develop debian-packages ## Run the tests that take minutes to hours
	$(BIN)/python -m pytest -m soak $(ARGS)

bench: $(VENV)/installed-to-develop debian-packages ## Measure; see docs/benchmarks.md
	$(BIN)/python -m benchmarks $(ARGS)

debian-packages:
	@packaging/install-debian-packages packaging/debian-test-packages.txt

constraints: ## Pin the newest versions that pyproject.toml allows
	@packaging/pin-constraints $(PYTHON) requirements/constraints.txt

clean: ## Remove the environment and caches; data stays
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis dist build
	find src tests -type d -name __pycache__ -prune -exec rm -rf {} +

# `run` compiles as pip does when it installs: with PYTHONDONTWRITEBYTECODE set, a checkout is compiled at every start.

# A stamp is newer than what it was made from, so that the second call has nothing to do.
# What is needed to develop includes what is needed to run.

$(VENV)/installed-to-run: $(VENV)/made $(INPUTS)
	@echo 'Installing what Roadstead needs into $(VENV); the first time this takes a minute or two.'
	$(INSTALL) --editable .
	@touch $@

$(VENV)/installed-to-develop: $(VENV)/made $(INPUTS)
	@echo 'Installing what Roadstead and its tests need into $(VENV); the first time this takes a few minutes.'
	$(INSTALL) --editable '.[dev]'
	@touch $@ $(VENV)/installed-to-run

$(VENV)/made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo 'Roadstead needs Python 3.11 or newer; name one: make PYTHON=python3.12' >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) \
		|| { rm -rf $(VENV); echo 'Python could not make an environment; on Debian: apt-get install python3-venv' >&2; exit 1; }
	@touch $@
