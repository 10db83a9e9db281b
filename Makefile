# Two commands do all the set-up: `make demo` runs the main job, `make test` passes the tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOWEST := .venv-lowest
LOWEST_TESTS := tests/test_accessor.py tests/test_terrain.py tests/test_polygons.py tests/cube tests/prepare tests/recipe
# Number of processes that run tests; the tests of one file stay in one process.
TEST_PROCESSES ?= 2
# Number of times that `make soak` runs each property test, with new random examples each time; it runs the slowest tests once, too.
# So many rounds of runs are ended in every stage, and a fifth as many rounds of jobs; the tables are in runs/kills.
SOAK_ROUNDS ?= 20
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt

.PHONY: demo test lint soak lowest audit wheel clean benchmarks-science

demo: $(VENV)/.demo
	$(BIN)/smgeo run recipes/quickstart.yaml --out runs/quickstart
	@echo "open runs/quickstart/report.html in a browser; the maps are in runs/quickstart/maps"

test: $(VENV)/.dev lint
	$(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/mypy

soak: $(VENV)/.dev
	SOAK_ROUNDS=$(SOAK_ROUNDS) $(BIN)/python -m pytest -m "hypothesis or soak" --hypothesis-profile soak --numprocesses $(TEST_PROCESSES)

# Scores at real stations that were left out, beside plain scikit-learn; at most three hours on two cores. DATA is the folder of the data.
benchmarks-science: $(VENV)/.dev
	$(BIN)/python benchmarks/science.py $(or $(DATA),$(SMGEO_DATA))

# A fast part of the tests, on the lowest versions that pyproject.toml allows.
lowest: $(LOWEST)/.installed
	$(LOWEST)/bin/python -m pytest $(LOWEST_TESTS) --ignore tests/cube/test_kill.py

# Known vulnerabilities of the pinned packages. It fails if the database does not know a package or cannot be reached.
audit: $(BIN)/python
	$(PIP) pip-audit
	$(BIN)/python -m pip_audit --strict --disable-pip --no-deps --progress-spinner off --requirement constraints.txt

wheel: $(VENV)/.dev
	$(BIN)/python -m build --wheel

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "smgeo needs Python 3.11 or later; try: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) --editable '.[all]'
	@touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) --editable '.[dev]'
	@touch $@ $(VENV)/.demo

# uv takes the package index and the certificates from pip's configuration.
$(LOWEST)/.installed: $(VENV)/.dev pyproject.toml
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(LOWEST)
	if index=$$($(BIN)/python -m pip config get global.index-url 2> /dev/null); then export UV_DEFAULT_INDEX="$$index"; fi; \
	for key in global.cert :env:.cert; do \
	  if cert=$$($(BIN)/python -m pip config get $$key 2> /dev/null); then export SSL_CERT_FILE="$$cert"; fi; \
	done; \
	$(BIN)/uv pip install --quiet --python $(LOWEST) --resolution lowest-direct --editable '.[all,test]'
	@touch $@

clean:
	rm -rf $(VENV) $(LOWEST) runs dist build .mypy_cache .ruff_cache
