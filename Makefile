# The project's commands. `make help` lists them; the first one to try is `make demo`.
# Everything is installed into $(VENV) with plain pip, at the versions of constraints.txt. Stamp files in
# $(VENV) remember what is installed, so that a second call installs nothing.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV ?= .venv
BIN := $(VENV)/bin
# The first Python 3.11+ that can make a virtual environment; `make PYTHON=/path/to/python demo` overrides it.
FIND_PYTHON := for p in python3.11 python3.12 python3.13 python3; do "$$p" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$p"; break; }; done
PYTHON ?= $(shell $(FIND_PYTHON))
PIP := $(BIN)/python -m pip install --disable-pip-version-check --prefer-binary --no-warn-script-location -c constraints.txt
# Tests run in this many processes, each with one thread for linear algebra.
JOBS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); echo $$((n < 4 ? n : 4)))
# `make test-all BROWSER=no` leaves out what needs Chromium.
BROWSER ?= yes
NOTEBOOKS := $(sort $(wildcard notebooks/*.ipynb))
NBVAL_SANITIZE := $(wildcard notebooks/nbval.cfg)

.PHONY: help install demo test test-all test-slow test-notebooks chromium lint app lab docs release clean

help:  ## this list
	@echo "DeepMLF kit. Commands:"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

# pip itself first, at its pinned version, so that every machine resolves the list alike.
$(VENV)/.python:
	@if [ -z "$(PYTHON)" ]; then \
	  echo "No Python 3.11 or newer with the venv module was found." >&2; \
	  echo "Install one (Debian, Ubuntu: apt-get install python3 python3-venv) or name one: make PYTHON=/path/to/python3.11 demo" >&2; \
	  exit 1; fi
	@echo "Creating $(VENV) with $(PYTHON)"
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	$(PIP) --quiet --upgrade pip
	@touch $@

# torch first and alone: the largest download starts at once, and its own index settings (if you have any) apply.
$(VENV)/.torch: $(VENV)/.python constraints.txt
	@echo "Installing PyTorch, then the kit. The first time this downloads a lot; later calls install nothing."
	$(PIP) torch
	@touch $@

$(VENV)/.kit: $(VENV)/.torch pyproject.toml constraints.txt
	$(PIP) -e '.[all]'
	@touch $@

# One resolution for the kit and the extra: a test machine goes through the package list once.
$(VENV)/.test: $(VENV)/.torch pyproject.toml constraints.txt
	$(PIP) -e '.[all,test]'
	@touch $@ $(VENV)/.kit

$(VENV)/.real: $(VENV)/.test pyproject.toml constraints.txt
	$(PIP) -e '.[all,test,real,quantized,docs]'
	@touch $@

install: $(VENV)/.kit  ## create .venv and install the kit with all extras

demo: $(VENV)/.kit  ## install, train on the sample set, print the table, write runs/demo/report.html
	$(BIN)/deepmlf demo

test: $(VENV)/.test  ## install what tests need and run the fast tests
	@scripts/system-packages.sh libraries
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile

# Both halves run even where the first one fails.
test-all: $(VENV)/.real chromium  ## slow, browser and real-model tests, then every notebook
	@status=0; $(MAKE) test-slow || status=1; $(MAKE) test-notebooks || status=1; exit $$status

chromium:
	@[ "$(BROWSER)" = no ] || scripts/system-packages.sh chromium

test-slow: $(VENV)/.real
	@scripts/system-packages.sh libraries
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --timeout 1500 \
	  -m "$(if $(filter no,$(BROWSER)),(slow or real) and not browser,slow or browser or real)"

test-notebooks: $(VENV)/.real
ifeq ($(NOTEBOOKS),)
	@echo "No notebooks to run."
else
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --timeout 1500 \
	  --nbval-lax --nbval-current-env --nbval-cell-timeout 600 \
	  $(if $(NBVAL_SANITIZE),--nbval-sanitize-with $(NBVAL_SANITIZE)) $(NOTEBOOKS)
endif

lint: $(VENV)/.test  ## ruff (lint, format) and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Without a network it goes on with what is there.
app: $(VENV)/.kit  ## fetch the models it answers with (once), then the live demo in your browser
	@$(BIN)/deepmlf fetch || echo "Going on without: the app answers with the embedded language model."
	$(BIN)/deepmlf app

lab: $(VENV)/.kit  ## JupyterLab on the notebooks
	$(BIN)/jupyter lab notebooks

# setuptools comes with PyTorch, at its pinned version.
docs: $(VENV)/.real  ## the documentation as a site: site/index.html
	$(BIN)/python scripts/docs_site.py

release: $(VENV)/.kit  ## build sdist and wheel into dist/ and check them
	$(BIN)/python scripts/release.py

clean:  ## remove .venv, caches and build output (runs/ stays)
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
