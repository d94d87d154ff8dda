# What a newcomer types: `make run`, then `make test`. What a developer types: `make check`.
PYTHON ?= python3
BIN := .venv/bin
RUN_READY := .venv/.run-ready
TEST_READY := .venv/.test-ready
PYTEST := $(BIN)/python -m pytest

.PHONY: run test check soak format clean bench

run: $(RUN_READY)
	$(BIN)/flowlaunch run jobs/lenet.py --cluster cluster.yaml

test: $(TEST_READY)
	$(BIN)/flowlaunch provision --cluster cluster.yaml
	$(PYTEST) -m "not soak"

# Under a minute: style, types, the direction of imports, and the tests of pure code.
check: $(TEST_READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(PYTEST) -q -n 2 tests/unit tests/architecture

soak: $(TEST_READY)
	$(BIN)/flowlaunch provision --cluster cluster.yaml
	$(PYTEST) -m soak --timeout 3600

bench: $(TEST_READY)
	$(BIN)/flowlaunch provision --cluster cluster.yaml
	$(BIN)/python benchmarks/launch.py
	$(BIN)/python benchmarks/check.py
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/checkpoints.py
	$(BIN)/python benchmarks/logs.py
	$(BIN)/python benchmarks/tail.py
	$(BIN)/python benchmarks/loud.py
	$(BIN)/python benchmarks/metrics.py

format: $(TEST_READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv build dist

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "flowlaunch needs CPython 3.10 or newer as $(PYTHON): make PYTHON=python3.12 …"; exit 69; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { $(PYTHON) -c 'import sys; print("%s cannot make virtual environments: on Debian and Ubuntu, apt install python3.%d-venv" % (sys.executable, sys.version_info[1]))'; exit 69; }
	$(PYTHON) -m venv .venv

$(RUN_READY): pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(TEST_READY): pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	@touch $@ $(RUN_READY)
