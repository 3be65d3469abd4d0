# Two commands do everything on a fresh machine: `make demo` and `make test`. On Windows without make, the lines
# below can be typed one by one.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-all check clean

demo: .venv/ready
	$(BIN)/mamegpt demo

test: .venv/ready check
	$(BIN)/python -m pytest -m "not slow"

test-all: .venv/ready
	$(BIN)/python -m pytest

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.venv/ready: requirements.txt requirements-dev.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $@

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache
