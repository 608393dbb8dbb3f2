# Two commands on a fresh machine: `make demo` and `make test`. Both set up .venv by themselves.

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
TORCH := torch==2.13.0
export PYTHONPATH := DiffusionSegment:Testing
export QT_QPA_PLATFORM ?= offscreen

.PHONY: demo test lint system-packages clean

demo: $(STAMP)
	$(PY) -m headless.demo $(if $(CT),"$(CT)")

test: $(STAMP) lint
	$(PY) -m pytest

lint: $(STAMP)
	$(PY) -m ruff check DiffusionSegment Testing
	$(PY) -m mypy

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "Python 3.10 or newer is needed; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' || \
	  { echo "Python's venv is missing; on Debian: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check $(TORCH)
	$(PY) -m pip install --quiet --disable-pip-version-check -e '.[test]'
	touch $(STAMP)

# What drawing without a display and Qt without a screen need on Debian and Ubuntu.
system-packages:
	apt-get update -qq
	apt-get install -y -qq --no-install-recommends \
	  libosmesa6 libegl1 libgl1 libglib2.0-0 libxkbcommon0 libdbus-1-3 libfontconfig1 fonts-dejavu-core

clean:
	rm -rf $(VENV) build demo-output .pytest_cache .mypy_cache .ruff_cache .hypothesis
