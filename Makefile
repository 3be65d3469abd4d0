# Two commands do everything on a fresh machine: `make demo` and `make test`. On Windows without make, the lines
# below can be typed one by one.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-slow check faults docs lock fuzz bench bench-quality bench-data clean

demo: .venv/ready
	$(BIN)/mamegpt demo

# On as many processes as there are cores, four at most; one file alone: .venv/bin/python -m pytest tests/test_config.py
test: .venv/ready check
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist worksteal -m "not slow"

# The long ones, and exported folders loaded with transformers 4.
test-slow: .venv/ready .venv4/ready
	MAMEGPT_TRANSFORMERS4_PYTHON=$(CURDIR)/.venv4/bin/python $(BIN)/python -m pytest -m slow

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# What a run loses that is killed, damaged, or on a full disk: nothing (some minutes; the disks want root).
faults: .venv/ready
	$(BIN)/python -m tests.faults.campaign

# The pages of docs/, every warning an error: a link that leads nowhere is one.
docs: .venv/ready
	$(BIN)/python -m sphinx --fail-on-warning --quiet -b html docs docs/_build

# What CI installs: all packages with their hashes, for every system.
lock: .venv/ready
	$(BIN)/python -m pip install --quiet uv
	(sed -n 1p requirements-ci.txt; echo setuptools | $(BIN)/uv pip compile --quiet --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-annotate --no-header requirements-dev.txt -) > requirements-ci.new
	mv requirements-ci.new requirements-ci.txt

# The parsers of data from outside, under atheris (Linux); FUZZ names one target, SECONDS is the time of each.
FUZZ ?=
SECONDS ?= 60
fuzz: .venv/ready
	$(BIN)/python -m pip install --quiet -r fuzz/requirements.txt
	$(BIN)/python -m fuzz.run $(SECONDS) $(FUZZ)

# How fast mamegpt and others train the same model here; see the docstrings in benchmarks/.
bench: .venv-bench/ready
	.venv-bench/bin/python -m benchmarks.peers.bench_train

bench-quality: .venv-bench/ready
	.venv-bench/bin/python -m benchmarks.peers.bench_time_to_quality

# How fast mamegpt and others cut a topic out of parquet files.
bench-data: .venv-data/ready
	.venv-data/bin/python -m benchmarks.peers.bench_data

.venv/ready: requirements.txt requirements-dev.txt pyproject.toml
	$(PYTHON) -m venv .venv
	@echo "installing PyTorch and the other packages into .venv, once; this takes some minutes ..."
	$(BIN)/python -m pip install -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $@

.venv4/ready: requirements-transformers4.txt
	$(PYTHON) -m venv .venv4
	.venv4/bin/python -m pip install --quiet -r requirements-transformers4.txt
	touch $@

.venv-bench/ready: requirements.txt benchmarks/peers/requirements.txt benchmarks/peers/requirements-peers.txt
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet -r benchmarks/peers/requirements.txt
	.venv-bench/bin/python -m pip install --quiet --no-deps -r benchmarks/peers/requirements-peers.txt
	touch $@

.venv-data/ready: requirements.txt benchmarks/peers/requirements-data.txt
	$(PYTHON) -m venv .venv-data
	.venv-data/bin/python -m pip install --quiet -r benchmarks/peers/requirements-data.txt
	.venv-data/bin/python -m pip install --quiet --no-deps --editable .
	touch $@

clean:
	rm -rf .venv .venv4 .venv-bench .venv-data .mypy_cache .ruff_cache .pytest_cache
