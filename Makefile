# Everything a person runs here. Each target that needs it first makes `.venv` in this folder, with pip, when it is missing or out of date.
#
#   make quickstart   run notebooks/00_quickstart.ipynb and print where the executed notebook is
#   make lab          open the notebooks in JupyterLab
#   make test         the test suite (<= 10 minutes on two cores);  make deep: the long tests too
#   make lint         ruff, mypy --strict, import-linter, nbstripout
#   make bench        the benchmarks
#   make clean        remove build outputs and caches; `.venv` and your runs stay
#
# Another build of torch (README, "Another torch"):  make quickstart TORCH_SPEC="torch==2.13.0" PIP_TORCH_ARGS="--index-url ..."

SHELL := /bin/bash

TORCH_SPEC ?= torch==2.13.0
PIP_TORCH_ARGS ?=
PYTEST_ARGS ?=

BIN := .venv/bin
STAMP := .venv/.installed

export SKIP_JUPYTER_BUILDER := 1
export JUPYTER_PREFER_ENV_PATH := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help setup quickstart lab test deep lint bench clean
.DELETE_ON_ERROR:

help:
	@sed -n '3,8s/^# *//p' Makefile

setup: $(STAMP)

# A Python counts when it really starts (pyenv leaves shims that do not) and can make environments (Debian splits that off).
$(STAMP): pyproject.toml
	@set -euo pipefail; \
	supported='import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))'; \
	if ! $(BIN)/python -c "$$supported" >/dev/null 2>&1; then \
	    chosen=; \
	    for candidate in python3.11 python3.12 python3.13 python3; do \
	        if $$candidate -c "$$supported" >/dev/null 2>&1; then chosen=$$candidate; break; fi; \
	    done; \
	    if [ -z "$$chosen" ]; then \
	        echo "pluralis_lab needs Python 3.11, 3.12 or 3.13 with its venv module, and found none." >&2; \
	        echo "Debian and Ubuntu: sudo apt-get install python3.11 python3.11-venv (or 3.12, 3.13); elsewhere: pyenv install 3.11, or conda (environment.yml)." >&2; \
	        exit 1; \
	    fi; \
	    echo "making .venv with $$($$chosen --version)"; \
	    $$chosen -m venv --clear .venv; \
	fi; \
	echo "installing $(TORCH_SPEC), then pluralis-lab and its tools (minutes the first time)"; \
	$(BIN)/python -m pip install --quiet $(PIP_TORCH_ARGS) "$(TORCH_SPEC)"; \
	$(BIN)/python -m pip install --quiet --editable ".[dev]"; \
	touch $(STAMP)

quickstart: $(STAMP)
	$(BIN)/python notebooks/run_quickstart.py

lab: $(STAMP)
	$(BIN)/jupyter lab notebooks

test: $(STAMP)
	$(BIN)/python -m pytest $(PYTEST_ARGS)

deep: $(STAMP)
	$(BIN)/python -m pytest -m "deep or not deep" --timeout 1800 $(PYTEST_ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/nbstripout --keep-id --extra-keys "metadata.papermill cell.metadata.papermill" --verify notebooks/*.ipynb

bench: $(STAMP)
	@set -euo pipefail; shopt -s nullglob; scripts=(benchmarks/bench_*.py); \
	if [ $${#scripts[@]} -eq 0 ]; then echo "benchmarks/ holds no bench_*.py yet"; fi; \
	for script in "$${scripts[@]}"; do echo "== $$script"; $(BIN)/python "$$script"; done

clean:
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage htmlcov
	find . -name __pycache__ -not -path './.venv/*' -type d -prune -exec rm -rf {} +
