# Every target sets up its own environment first; a second call reuses it.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTEST_ARGS ?=

.PHONY: setup demo test check check-real docs bench clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not ((3, 11) <= sys.version_info < (3, 14)))' || \
	  { echo "vtr needs Python 3.11 to 3.13; '$(PYTHON)' is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(STAMP)
	$(BIN)/vtr demo

test: $(STAMP)
	$(BIN)/python -m pytest -q -n 2 $(PYTEST_ARGS)

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Local checks on real files: VTR_REAL_DATA names the folder that holds videos/ and clip_golden/.
check-real: $(STAMP)
	VTR_REAL_DATA=$${VTR_REAL_DATA:-../shared} $(BIN)/python -m pytest -q -m real $(PYTEST_ARGS)

# The site lands in dist/site; its pages need no server and no network.
docs: $(STAMP)
	$(BIN)/python docs/make_reference.py
	$(BIN)/mkdocs build --strict --quiet
	@echo dist/site/index.html

bench: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python benchmarks/extract.py
	$(BIN)/python benchmarks/store.py
	$(BIN)/python benchmarks/planning.py
	$(BIN)/python benchmarks/samplers.py
	$(BIN)/python benchmarks/evaluate.py
	$(BIN)/python benchmarks/train.py
	$(BIN)/python benchmarks/finetune.py
	$(BIN)/python benchmarks/heads.py
	$(BIN)/python benchmarks/search.py
	$(BIN)/python benchmarks/scale.py

clean:
	rm -rf $(VENV) demo-world .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
