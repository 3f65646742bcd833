# Everything a newcomer needs: `make demo`, `make test`. Both create .venv from constraints.txt first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help install demo test lint types imports check openapi clean

help: ## Show the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

install: $(STAMP) ## Create .venv with paretune and everything it needs

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade 'pip>=24'
	$(BIN)/pip install --quiet -c constraints.txt -e '.[openvino,postgres,s3,demo,dev]'
	@touch $@

demo: $(STAMP) ## The main job on a real model, end to end (about five minutes)
	$(BIN)/python -m examples.demo --output demo-output

test: $(STAMP) ## All tests; no network, no server needed
	$(BIN)/python -m pytest

lint: $(STAMP) ## ruff: style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP) ## mypy, strict
	$(BIN)/mypy

imports: $(STAMP) ## The import rules between the packages
	$(BIN)/lint-imports

check: lint types imports ## lint, types and imports

openapi: $(STAMP) ## Write docs/reference/openapi.json anew
	$(BIN)/python -m api.openapi docs/reference/openapi.json

clean: ## Remove what make made
	rm -rf $(VENV) demo-output .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
