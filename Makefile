# Every task has one command. `make` alone lists them. Needs only Debian, python3 (3.11 or newer) and root.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
ONLY ?=
ONCE ?=

# Programs that a target needs besides Python: "program:Debian package". Only missing ones are installed.
TEST_PROGRAMS := gcc:gcc g++:g++ make:make cmake:cmake autoreconf:autoconf automake:automake libtoolize:libtool \
  node:nodejs npm:npm go:golang-go cargo:cargo mvn:maven jlink:openjdk-17-jdk-headless
BENCH_PROGRAMS := wrk:wrk node:nodejs npm:npm

define need
@missing=""; for pair in $(1); do command -v "$${pair%%:*}" >/dev/null || missing="$$missing $${pair##*:}"; done; \
if [ -n "$$missing" ]; then echo "installing$$missing"; \
apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; fi
endef

# Some environments set it: then every start compiles sixty thousand lines again, and what is measured is the compiler.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo test check fmt bench clean

help: ## list the tasks
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## make .venv with Martlet and its development tools (does nothing when up to date)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is older than 3.11: install python3.11 or newer, or say make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv >/dev/null; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet uv
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --editable . --group dev
	@touch $@

demo: setup ## run the example shop with its first requests (ONCE=1: then stop; else until Ctrl-C)
	@ONCE=$(ONCE) $(BIN)/python examples/demo.py

test: setup ## run every test, installing what tests need
	$(call need,$(TEST_PROGRAMS))
	$(BIN)/python -m pytest

check: setup ## format, lint, types, floors, tidiness: everything that needs no running platform (< 60 s)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/test_tidy.py

fmt: setup ## format the code, apply safe fixes, rewrite the generated pages of docs/reference
	$(BIN)/ruff format
	$(BIN)/ruff check --fix
	$(BIN)/python docs/generate.py

bench: setup ## measure Martlet beside its peers; prints one table (ONLY=name: one benchmark)
	$(call need,$(BENCH_PROGRAMS))
	$(BIN)/python -m bench.run $(ONLY)

clean: ## remove what was built (.venv, caches, bench/.peers); keeps your data
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache dist bench/.peers
	find src tests bench docs examples -name __pycache__ -type d -prune -exec rm -rf {} +
