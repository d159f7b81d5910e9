# `make demo` and `make test` need Python 3.11 or newer with venv, and nothing else: they install the rest into .venv.

CANDIDATES := python3.11 python3.12 python3.13 python3
SUITABLE := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in $(CANDIDATES); do $$p -c '$(SUITABLE)' >/dev/null 2>&1 && echo $$p && break; done)

.PHONY: demo test test-fast lint soak clean

demo: .venv/installed
	.venv/bin/gentraj demo --run-dir runs/demo

test: .venv/installed-dev
	.venv/bin/python -m pytest -n auto --dist worksteal

test-fast: .venv/installed-dev
	.venv/bin/python -m pytest -n auto --dist worksteal -m "not slow"

lint: .venv/installed-dev
	.venv/bin/ruff check .
	.venv/bin/pyright --pythonpath .venv/bin/python
	.venv/bin/lint-imports

soak: .venv/installed-dev
	OMP_NUM_THREADS=1 .venv/bin/python -m benchmarks.soak $(SOAK)

clean:
	rm -rf .venv .pytest_cache .ruff_cache .import_linter_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Each file says that the installation beside it is complete, so that a second call installs nothing.
.venv/installed: pyproject.toml | .venv/bin/python
	.venv/bin/python -m pip install --quiet --editable .
	touch $@

.venv/installed-dev: pyproject.toml | .venv/bin/python
	.venv/bin/python -m pip install --quiet --editable '.[dev]'
	touch $@ .venv/installed

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or newer with venv found; name one: make PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv .venv
