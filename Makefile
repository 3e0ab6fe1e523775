PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: demo test cost fuzz check docs clean

# Run the first study for real: four learning curves, verdicts, a report.
demo: $(STAMP)
	$(BIN)/latebloom run grokking-numerical-stability --store .latebloom

# make test FAMILY=bandits: those of one family, with its studies and applications.
FAMILY ?=
test: $(STAMP)
	$(BIN)/python -m pytest -n auto --dist worksteal $(if $(FAMILY),--family $(FAMILY))

# All tests; fails where a family's take more than 60 CPU seconds a paper.
cost: $(STAMP)
	$(BIN)/python -m pytest -n auto --dist worksteal --cost-limit 60

# The property tests with many examples that no run has drawn before.
fuzz: $(STAMP)
	HYPOTHESIS_PROFILE=fuzz $(BIN)/python -m pytest -n auto --dist worksteal -m hypothesis

check: $(STAMP)
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

docs: $(STAMP)
	$(BIN)/mkdocs build --strict

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "latebloom needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt --editable '.[dev,docs]'
	touch $(STAMP)

clean:
	rm -rf .venv .latebloom site
