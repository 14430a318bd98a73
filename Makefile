# Everything runs in .venv, which a target makes when it is first needed: a
# Debian with git, make, python3 and python3-venv is enough.

PYTHON ?= python3
JOBS ?= 2
RANKS ?= 2
DEMO_ARGS ?=
PYTEST_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
BENCH_VENV := .venv-bench
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
BENCH_PIP := $(BENCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check

.PHONY: help demo test test-all test-faults test-slurm check format golden bench docs clean distclean

help:
	@echo 'make demo    the main job on a model that the code itself makes, with a picture'
	@echo 'make test    the test suite'
	@echo 'make test-all  the tests that take minutes as well'
	@echo 'make test-faults  kills at every point and at 100 random moments; minutes'
	@echo 'make test-slurm  batch jobs under a SLURM that the tests start (root; .ci/slurm-one-node.sh install)'
	@echo 'make check   format, lint, types, import layers, sizes'
	@echo 'make format  let ruff rewrite what it can'
	@echo 'make golden  rewrite the golden files; read the diff'
	@echo 'make bench   the peers are installed into $(BENCH_VENV); minutes'
	@echo 'make docs    the reference of the public interface, as HTML'
	@echo 'make clean   remove what was built (distclean: the environments too)'

$(VENV)/.created:
	$(PYTHON) -m venv $(VENV)
	@touch $@

# The package is installed editable, so that only pyproject.toml makes a stamp stale.
$(VENV)/.demo: pyproject.toml | $(VENV)/.created
	$(PIP) --editable '.[plot,mpich]'
	@touch $@

$(VENV)/.test: pyproject.toml | $(VENV)/.created
	$(PIP) --editable '.[test,mpich]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/.created
	$(PIP) --editable '.[dev,mpich]'
	@touch $@

$(VENV)/.docs: pyproject.toml | $(VENV)/.created
	$(PIP) --editable '.[docs,mpich]'
	@touch $@

# An environment of its own: the peers' upper bounds must not choose our versions.
$(BENCH_VENV)/.bench: pyproject.toml
	$(PYTHON) -m venv $(BENCH_VENV)
	$(BENCH_PIP) --editable '.[bench,plot]'
	@touch $@

demo: $(VENV)/.demo
	$(BIN)/mpiexec -n $(RANKS) $(BIN)/backsweep demo $(DEMO_ARGS)

test: $(VENV)/.test
	$(BIN)/python -m pytest -n $(JOBS) $(PYTEST_ARGS)

test-all: $(VENV)/.test
	$(BIN)/python -m pytest -n $(JOBS) --all $(PYTEST_ARGS)

test-faults: $(VENV)/.test
	$(BIN)/python -m pytest -n $(JOBS) -m faults $(PYTEST_ARGS)

# A SLURM that is missing is a failure here; `make test` skips these tests then.
test-slurm: $(VENV)/.test
	BACKSWEEP_TEST_SLURM=1 $(BIN)/python -m pytest tests/slurm $(PYTEST_ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python .ci/sizes.py

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

golden: $(VENV)/.test
	$(BIN)/python -m pytest -m golden --rewrite-golden
	git --no-pager diff --stat -- tests/golden

bench: $(BENCH_VENV)/.bench
	$(BENCH_VENV)/bin/python -m benchmarks

docs: $(VENV)/.docs
	$(BIN)/pdoc --docformat numpy --output-directory build/docs backsweep

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV) $(BENCH_VENV)
