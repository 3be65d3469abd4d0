# Two commands do everything on a fresh machine: `make demo` and `make test`. On Windows without make, the lines
# below can be typed one by one.

PYTHON ?= python3
BIN := .venv/bin

# PyPI's torch for Linux brings 3 GB of CUDA. Where no NVIDIA driver answers, the CPU build is taken from PyTorch's own
# index, which is asked for torch alone. If it cannot be reached, pip warns and takes PyPI's.
CPU_INDEX = $(if $(filter Linux,$(shell uname -s)),$(if $(shell nvidia-smi -L 2>/dev/null),,$\
	--extra-index-url https://download.pytorch.org/whl/cpu --retries 1 --timeout 15))

# Python compiles what it imports and keeps that, unless it was told to write no bytecode.
NO_COMPILE = $(if $(PYTHONDONTWRITEBYTECODE),,--no-compile)

# A new environment with the torch for this machine.
define environment
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --log $(@D)/pip.log $(NO_COMPILE) --no-deps $(CPU_INDEX) --constraint requirements.txt torch
endef

.PHONY: demo test test-slow check messages faults docs lock bundle fuzz gpu bench bench-quality bench-data clean

demo: .venv/run-ready
	$(BIN)/mamegpt demo

# On as many processes as there are cores, four at most; one file alone: .venv/bin/python -m pytest tests/test_config.py
test: .venv/ready check
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist worksteal -m "not slow"

# The long ones, likewise, and exported folders loaded with transformers 4.
test-slow: .venv/ready .venv4/ready
	MAMEGPT_TRANSFORMERS4_PYTHON=$(CURDIR)/.venv4/bin/python $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist worksteal -m slow

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The catalogue of translations: templates as the source has them, and the compiled file that is read at run time.
messages: .venv/ready
	$(BIN)/python tests/helpers/catalogue.py

# What a run loses that is killed, damaged, or on a full disk: nothing (some minutes; the disks want root).
faults: .venv/ready
	$(BIN)/python -m tests.faults.campaign

# The pages of docs/, every warning an error: a link that leads nowhere is one.
docs: .venv/ready
	$(BIN)/python -m sphinx --fail-on-warning --quiet -b html docs docs/_build

# All packages with their hashes, for every system: what CI installs.
lock: .venv/ready
	(sed -n 1,2p requirements-lock.txt; echo setuptools | $(BIN)/uv pip compile --quiet --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-annotate --no-header --group dev requirements.txt -) \
		> requirements-lock.new
	mv requirements-lock.new requirements-lock.txt

# A folder that installs mamegpt without a network, for another platform or Python if these are named.
PLATFORM ?=
PYTHON_VERSION ?=
bundle: .venv/ready
	$(BIN)/python -m release.bundle $(PLATFORM) $(if $(PYTHON_VERSION),--python $(PYTHON_VERSION))

# The parsers of data from outside, under atheris (Linux); FUZZ names one target, SECONDS is the time of each.
FUZZ ?=
SECONDS ?= 60
fuzz: .venv/ready
	$(BIN)/python -m pip install --quiet -r fuzz/requirements.txt
	$(BIN)/python -m fuzz.run $(SECONDS) $(FUZZ)

# What was only tested without a GPU, proved on one; without one: .venv/bin/python -m benchmarks.gpu --device cpu
gpu: .venv/run-ready
	$(BIN)/python -m benchmarks.gpu

# How fast mamegpt and others train the same model here; see the docstrings in benchmarks/.
bench: .venv-bench/ready
	.venv-bench/bin/python -m benchmarks.peers.bench_train

bench-quality: .venv-bench/ready
	.venv-bench/bin/python -m benchmarks.peers.bench_time_to_quality
	.venv-bench/bin/python -m benchmarks.peers.bench_curves

# How fast mamegpt and others cut a topic out of parquet files.
bench-data: .venv-data/ready
	.venv-data/bin/python -m benchmarks.peers.bench_data

# What running needs, and then what tests and checks need besides.
.venv/run-ready: requirements.txt pyproject.toml
	@echo "installing PyTorch and the other packages into .venv, once; this takes some minutes ..."
	$(environment)
	$(BIN)/python -m pip install --log .venv/pip.log $(NO_COMPILE) --requirement requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	@echo "set up: $$(awk '/ Downloading .*\)$$/ {sub(/.*\(/, ""); sub(/\)/, ""); n += $$1 * ($$2 == "MB" ? 1 : 0.001)} \
		END {printf "%.0f", n}' .venv/pip.log) MB fetched, $$(du -sm .venv | cut -f1) MB on disk in .venv"
	@rm .venv/pip.log
	touch $@

.venv/ready: .venv/run-ready
	$(BIN)/python -m pip install --quiet 'pip>=25.1'  # the first that knows --group
	$(BIN)/python -m pip install --requirement requirements.txt --group dev
	touch $@

.venv4/ready: tests/requirements-transformers4.txt
	$(environment)
	.venv4/bin/python -m pip install --quiet -r tests/requirements-transformers4.txt
	touch $@

.venv-bench/ready: requirements.txt benchmarks/peers/requirements.txt benchmarks/peers/requirements-peers.txt
	$(environment)
	.venv-bench/bin/python -m pip install --quiet -r benchmarks/peers/requirements.txt
	.venv-bench/bin/python -m pip install --quiet --no-deps -r benchmarks/peers/requirements-peers.txt
	touch $@

.venv-data/ready: requirements.txt benchmarks/peers/requirements-data.txt
	$(environment)
	.venv-data/bin/python -m pip install --quiet -r benchmarks/peers/requirements-data.txt
	.venv-data/bin/python -m pip install --quiet --no-deps --editable .
	touch $@

clean:
	rm -rf .venv .venv4 .venv-bench .venv-data .mypy_cache .ruff_cache .pytest_cache
