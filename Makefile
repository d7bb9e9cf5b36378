# Works on a bare machine with Python 3.11 (with venv) and make; the environment is made on first use.
.DEFAULT_GOAL := help
.PHONY: help env demo test check bench bench-gateway fuzz docs lint types floors fmt lock sbom clean

PYTHON ?= $(firstword $(shell command -v python3.11 python3 python 2>/dev/null) python3.11)
BIN := .venv/bin
# Without byte-code, imports take two to four times as long.
unexport PYTHONDONTWRITEBYTECODE
export RAGAS_DO_NOT_TRACK = true
export DO_NOT_TRACK = 1
export HF_HUB_OFFLINE = 1

help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

env: ## Make .venv from the lock, or find that it is current
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || \
		{ echo "Python 3.11 is missing ($(PYTHON) is not it); install it, or say where: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@"$(PYTHON)" tools/bootstrap.py

demo: env ## Run the whole platform on real data and print each step with its result, time and cost
	@$(BIN)/python examples/demo/demo.py

test: env ## Run every test
	@$(BIN)/pytest

check: lint types floors test ## Format, lint, types, floors and tests: what CI runs

bench: env ## Measure the figures that the documents quote
	@$(BIN)/python bench/start.py
	@$(BIN)/python bench/money.py --calls 100000

bench-gateway: env ## Measure the gateway beside its peers (installs them under ~/.cache/trilith-bench)
	@$(BIN)/python -m bench.gateway $(ARGUMENTS)

fuzz: env ## Send the gateway what its OpenAPI page allows, and what it does not, for some minutes
	@PYTHONPATH=tests $(BIN)/python bench/fuzz.py

docs: env ## Write the generated pages under docs/reference
	@$(BIN)/python tools/docs.py

lint: env ## Check format and lint rules
	$(BIN)/ruff format --check
	$(BIN)/ruff check

types: env ## Check types
	$(BIN)/mypy

floors: env ## Check that packages import only from floors below their own
	$(BIN)/lint-imports

fmt: env ## Format and sort imports
	$(BIN)/ruff check --fix-only --quiet
	$(BIN)/ruff format

lock: ## Resolve pyproject.toml again into requirements/lock.txt (releases of a week ago and older)
	@"$(PYTHON)" tools/bootstrap.py --lock $(ARGUMENTS)

sbom: env ## Write the bill of materials of the lock, in CycloneDX's JSON, to dist/trilith.cdx.json
	@$(BIN)/python tools/sbom.py

clean: ## Remove the environment, caches and build output
	rm -rf .venv .uv .cache build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
