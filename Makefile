# `make demo` and `make test` need Python 3.11 or newer with venv, and nothing else: they install the rest into .venv.

CANDIDATES := python3.11 python3.12 python3.13 python3
SUITABLE := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in $(CANDIDATES); do $$p -c '$(SUITABLE)' >/dev/null 2>&1 && echo $$p && break; done)
# One worker more than cores, as some tests wait for processes of their own.
WORKERS := $(shell expr $$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1) + 1)

.PHONY: demo test device test-fast lint notebooks audit lowest release-check site clean

demo: .venv/installed
	.venv/bin/gentraj demo --run-dir runs/demo

test: .venv/installed-dev
	.venv/bin/python -m pytest -n $(WORKERS) --dist worksteal

# On a CUDA device that is simulated over CPU memory: its rules, and no wait in a training step.
device: .venv/installed-dev
	PYTEST_PLUGINS=simulated_device PYTHONPATH=tests/device .venv/bin/python -m pytest -n $(WORKERS) --dist worksteal \
		tests/device tests/test_gpu.py

test-fast: .venv/installed-dev
	.venv/bin/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow"

lint: .venv/installed-dev
	.venv/bin/ruff check .
	.venv/bin/pyright --pythonpath .venv/bin/python
	.venv/bin/lint-imports

# Executes every tutorial with small sizes. `.venv/bin/python -m benchmarks.notebooks` stores their outputs anew.
notebooks: .venv/installed-dev
	.venv/bin/python -m benchmarks.notebooks --check --jobs 2

# Known vulnerabilities of what is installed, by pip-audit, which lives in an environment of its own.
audit: .venv/installed
	test -x .venv-audit/bin/pip-audit || { $(PYTHON) -m venv .venv-audit && .venv-audit/bin/python -m pip install --quiet pip-audit; }
	.venv-audit/bin/pip-audit --progress-spinner off --path .venv/lib/python*/site-packages

# The oldest releases that pyproject.toml allows (3 GB to download): runs of all kinds are loaded, act, and go on training.
lowest:
	rm -rf .venv-lowest
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet uv
	.venv-lowest/bin/uv pip install --quiet --python .venv-lowest/bin/python --resolution lowest-direct --editable . \
		'pytest>=8.2' 'pytest-timeout>=2.3' 'hypothesis>=6.100'
	OMP_NUM_THREADS=1 .venv-lowest/bin/python -m pytest tests/runs tests/training -W ignore -p no:cacheprovider

# Builds sdist and wheel, and tries the wheel in an environment of its own, without a network.
release-check: .venv/installed-dev
	OMP_NUM_THREADS=1 .venv/bin/python .ci/release.py

# The documentation site, into site/. Neither building nor viewing it needs a network.
site: .venv/installed-dev
	NO_MKDOCS_2_WARNING=1 OMP_NUM_THREADS=1 .venv/bin/python -m mkdocs build --quiet --strict

clean:
	rm -rf .venv .venv-audit .venv-lowest .pytest_cache .ruff_cache .import_linter_cache .hypothesis build dist site
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
