# `make` shows what there is. Needs python3 (3.11 or newer), make and git; GNU Make 3.81 suffices.
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Stamps are written last, and the mark is there as long as an installation is under way.
INSTALLED := $(VENV)/.installed
INSTALLING := $(VENV)/.installing
COMPILED := $(VENV)/.compiled

export PIP_DISABLE_PIP_VERSION_CHECK = 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo ui test chaos lint format secrets audit-deps constraints clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: $(COMPILED) ## make .venv with everything in it (minutes, once)
	@echo "$(VENV) is ready; next: make demo"

demo: $(COMPILED) ## build the whole graph over the demo corpus and ask it a question
	@$(BIN)/acidburn demo

ui: $(COMPILED) ## open Dagster's UI on this project
	@$(BIN)/acidburn ui

test: $(COMPILED) ## run all tests
	@$(BIN)/pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile --no-loadscope-reorder

chaos: $(COMPILED) ## break a running stack in forty ways and see it heal (half an hour)
	@$(BIN)/python -m acidburn_assets_tests.chaos $(CHAOS)

lint: $(INSTALLED) ## style, types and layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(INSTALLED) ## let ruff rewrite the sources
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

secrets: $(INSTALLED) ## look for credentials in what git holds
	@$(BIN)/python .ci/secret_scan.py

audit-deps: $(INSTALLED) ## ask the advisory service about the pinned versions (needs the network)
	@$(BIN)/python .ci/audit_deps.py

constraints: ## resolve everything but torch anew, and write constraints.txt
	rm -rf build/resolved && $(PYTHON) -m venv build/resolved
	build/resolved/bin/pip install --quiet "$$(grep '^torch==' constraints.txt)" --editable '.[dev]'
	grep '^#' constraints.txt > build/constraints.txt
	build/resolved/bin/pip list --format=freeze --exclude-editable --exclude pip > build/resolved.txt
	sed 's/+.*$$//' build/resolved.txt >> build/constraints.txt
	mv build/constraints.txt constraints.txt

clean: ## remove .venv and what was built or cached; never the state folder or .env
	rm -rf $(VENV) build dist *.egg-info
	rm -rf .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis .coverage
	find acidburn_assets acidburn_assets_tests -type d -name __pycache__ -prune -exec rm -rf {} +

# A killed pip can leave a package half written that it later takes for a whole one. Such a venv is
# made anew; pip's own cache keeps the downloads.
#
# torch: the pinned version comes from the index that pip is set up with. On Linux the usual one
# carries the CUDA build (gigabytes); to have the CPU build, name the index of CPU wheels in
# PIP_EXTRA_INDEX_URL, or a folder that holds the wheel in PIP_FIND_LINKS.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "acidburn needs Python 3.11 or newer, and '$(PYTHON)' is not: make setup PYTHON=python3.12" >&2; \
		exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "'$(PYTHON)' cannot make virtual environments. On Debian and Ubuntu: apt-get install python3-venv" >&2; \
		exit 1; }
	@if [ -e $(INSTALLING) ]; then \
		echo "The last setup was interrupted: $(VENV) is made anew, downloads are reused."; \
		$(PYTHON) -m venv --clear $(VENV); \
	else \
		$(PYTHON) -m venv $(VENV); \
	fi
	@touch $(INSTALLING)
	$(BIN)/pip install --constraint constraints.txt --editable '.[dev]'
	@rm $(INSTALLING)
	@touch $@

$(COMPILED): $(INSTALLED)
	@echo "Compiling the clusterer for this processor: about 75 seconds, once."
	@$(BIN)/python -c 'from acidburn_assets.adapters import clusterer; clusterer.warm()'
	@touch $@
