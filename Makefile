# Everything a newcomer needs: `make demo`, `make test`. Nothing asks a question.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

WORKFLOWS := $(wildcard .github/workflows/*.yml examples/workflows/*.yml)

# Processes that tests are spread over.
TEST_WORKERS ?= 2

.PHONY: demo test lint docs wheel clean help

help:
	@echo "make demo   set up $(VENV), verify the quickstart, show what a divergence looks like"
	@echo "make test   set up $(VENV), run the tests (DIFFTRACE_TEST_FULL=1: with their long loops in full)"
	@echo "make lint   style, types, layering, workflows"
	@echo "make docs   build docs/ into build/docs, every warning an error"
	@echo "make wheel  build sdist and wheel into dist/"

$(READY): pyproject.toml constraints-dev.txt
	@echo "== setting up $(VENV) (downloads torch on the first run, which can take minutes)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet -c constraints-dev.txt --group dev -e ".[torch]"
	@touch $@

demo: $(READY)
	$(BIN)/python examples/demo.py

test: $(READY)
	$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist worksteal

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/check-jsonschema --builtin-schema vendor.github-actions action.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows $(WORKFLOWS)
	$(BIN)/actionlint -shellcheck $(BIN)/shellcheck -pyflakes= $(WORKFLOWS)
	$(BIN)/zizmor --offline --no-progress --no-config --quiet action.yml $(WORKFLOWS)

docs: $(READY)
	$(BIN)/python docs/generate.py --check
	$(BIN)/mkdocs build --strict

wheel: $(READY)
	rm -rf dist
	$(BIN)/python -m build --outdir dist

clean:
	rm -rf $(VENV) dist build
