# Every target builds .venv from constraints.txt when it is missing or out of date.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo clients test check fmt

help: ## list the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 8

demo: $(STAMP) ## distil the demo corpus: one teacher, one student, one report
	$(BIN)/distill run configs/demo.yaml

clients: $(STAMP) ## the environment of a foreign client, which a test makes when it is missing
	$(BIN)/python benchmarks/rival.py

test: $(STAMP) ## run the tests, one process and one thread a core
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

check: $(STAMP) ## lint, format and type checks; known holes in dependencies
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@.ci/audit $(BIN)/pip-audit

fmt: $(STAMP) ## fix the format and what the linter can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The stamp is written last: an interrupted installation starts over.
$(STAMP): constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "found Python %d.%d, wanted 3.11 or newer; run: make PYTHON=python3.11" % sys.version_info[:2])'
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@
