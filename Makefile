# make demo    the whole way once, on drawn road scenes          make test    the tests
# make check   format, lint, types, floors                       make bench   speed and quality beside the peers
# make conformance   run the conformance suite with all installed libraries, write docs/conformance.md
# Every target sets up what it needs in .venv, from requirements.lock.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
COMPILED := $(VENV)/.compiled

.PHONY: demo test test-slow check format bench conformance lock wheel-test clean

demo: $(READY)
	$(BIN)/pixelwise demo --out demo --overwrite

# One thread a worker: more would wait for each other. WORKERS=0 runs all in one process.
WORKERS ?= auto
test: $(COMPILED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

test-slow: $(COMPILED)
	$(BIN)/python -m pytest -m slow

check: $(READY)
	$(BIN)/ruff format --check src tests benchmarks conformance
	$(BIN)/ruff check src tests benchmarks conformance
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(READY)
	$(BIN)/ruff format src tests benchmarks conformance
	$(BIN)/ruff check --fix src tests benchmarks conformance

# ROOT: folder with the data sets (see recipes/). Nine hours for all of them; resumable.
ROOT ?= data
bench: $(READY)
	$(BIN)/python -m benchmarks.quality_per_minute --root $(ROOT)

conformance: $(READY)
	$(BIN)/python -m conformance

# Build the wheel, install it into an empty environment and run the demo from there: make wheel-test PYTHON=python3.12
WHEEL := .wheel
wheel-test: $(READY)
	rm -rf $(WHEEL)
	$(BIN)/uv build --quiet --wheel --out-dir $(WHEEL)/dist .
	$(BIN)/uv venv --quiet --python $(PYTHON) $(WHEEL)/venv
	$(BIN)/uv pip install --quiet --python $(WHEEL)/venv/bin/python --compile-bytecode --constraint requirements.lock \
	  $(WHEEL)/dist/*.whl
	cd $(WHEEL) && venv/bin/pixelwise demo --time-limit 60s --out demo

# Package names, versions and hashes of everything, for Python 3.11 to 3.13; no addresses.
lock: $(READY)
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
	  --no-emit-index-url --no-emit-find-links --all-extras --group dev pyproject.toml -o requirements.lock

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
	  { echo "python: expected 3.11, 3.12 or 3.13, found $$($(PYTHON) -V). Install one, or say make PYTHON=python3.12 …"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	test -x $(BIN)/uv || { $(BIN)/python -m ensurepip --upgrade >/dev/null && $(BIN)/python -m pip install --quiet uv; }
	$(BIN)/uv pip install --quiet --python $(BIN)/python -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	touch $(READY)

# Forty seconds once; where Python keeps no bytecode of its own, every command of the tests would spend eight.
$(COMPILED): $(READY)
	env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m compileall -q -j 0 $(VENV)/lib >/dev/null 2>&1 || true
	touch $(COMPILED)

clean:
	rm -rf $(VENV) $(WHEEL) demo .mypy_cache .ruff_cache .pytest_cache .hypothesis
