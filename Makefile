# Two commands on a fresh machine: `make demo` and `make test`. Both set up system packages (where they may) and .venv.
# `make docs` needs neither PyTorch nor .venv.

PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check
STAMP := $(VENV)/.installed
DOCS_VENV := build/docs-venv
DOCS_STAMP := $(DOCS_VENV)/.installed
export QT_QPA_PLATFORM ?= offscreen

.PHONY: demo test docs lint package fuzz endurance screenshots tutorial click-times evidence performance schemas system-packages clean

demo: system-packages $(STAMP)
	PYTHONPATH=DiffusionSegment:Testing $(PY) -m headless.demo $(if $(CT),"$(CT)")

# One thread per process: on two cores, threads of two test processes would block each other. Files keep their order: VTK's
# views allow one application per process, and those of the tests of scene must not come before those of panel.
test: system-packages $(STAMP) lint
	OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: $(STAMP)
	$(PY) -m ruff check DiffusionSegment Testing docs
	$(PY) -m mypy

# The documentation as a site in build/site, with the API from docstrings; a broken link is an error. The docstrings are read
# without importing the modules, so that the few packages of the extra `docs` suffice, in an environment of their own.
docs: $(DOCS_STAMP)
	$(DOCS_VENV)/bin/python -m mkdocs build --strict

$(DOCS_STAMP): pyproject.toml
	$(PYTHON) -m venv $(DOCS_VENV)
	$(DOCS_VENV)/bin/python docs/site/requirements.py > $(DOCS_VENV)/requirements.txt
	$(DOCS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r $(DOCS_VENV)/requirements.txt
	touch $(DOCS_STAMP)

# The extension as one file, build/DiffusionSegment-VERSION.zip, with what CMake installs.
package:
	$(PYTHON) Testing/packaging/extension_zip.py -o build

# Screenshots of the panel in each of its states.
screenshots: $(STAMP)
	PYTHONPATH=DiffusionSegment:Testing $(PY) -m pythonqt.screenshots -o build/screenshots $(if $(CT),--ct "$(CT)")

# The pictures of the tutorial in README, and of the panel, with the real model on the phantom.
tutorial: $(STAMP)
	PYTHONPATH=DiffusionSegment:Testing $(PY) -m pythonqt.tutorial -o Resources/Screenshots/tutorial --panel Resources/Screenshots/panel.png

# Response times of the panel, from click to result and from stroke to correction.
click-times: $(STAMP)
	PYTHONPATH=DiffusionSegment:Testing $(PY) -m pythonqt.click_times $(if $(CT),--ct "$(CT)")

# A hundred thousand damaged inputs; failing ones are stored in build/fuzz-failures.
fuzz: $(STAMP)
	mkdir -p build
	PYTHONPATH=DiffusionSegment:Testing $(PY) -m reliability.fuzz --count $(or $(COUNT),100000) --seed $(or $(SEED),1) -o build/fuzz.json

# A thousand segment-cancel cycles and the clicks of eight hours; reports leaks.
endurance: $(STAMP)
	mkdir -p build
	PYTHONPATH=DiffusionSegment:Testing $(PY) -m reliability.endurance --cycles 1000 --clicks 960 -o build/endurance.json

# docs/EVIDENCE.md and its plots from the result files in docs/results.
evidence: $(STAMP)
	PYTHONPATH=DiffusionSegment $(PY) -m DiffusionSegmentResearch evidence

# JSON Schema of report.json, review.json and model.json, from the types that read and write them.
schemas: $(STAMP)
	PYTHONPATH=DiffusionSegment $(PY) -m DiffusionSegmentBackend.schema.json_schema -o docs/schemas

# docs/PERFORMANCE.md from docs/results/performance.json, which `diffusion-segment-research benchmark` writes.
performance: $(STAMP)
	PYTHONPATH=DiffusionSegment $(PY) -m DiffusionSegmentResearch performance

$(STAMP): pyproject.toml | system-packages
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' || \
	  { echo "Python's venv is missing; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) $(TORCH)
	$(PIP) -e '.[test,nnunet,cohort,service,pacs]'
	touch $(STAMP)

# Drawing without a display (OSMesa, EGL), Qt without a screen, and CMake for the packaging tests.
system-packages:
	@PYTHON="$(PYTHON)" bash .ci/system-packages

# Keeps .venv, which takes long to download.
clean:
	rm -rf build demo-output .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find DiffusionSegment Testing -name __pycache__ -type d -prune -exec rm -rf {} +
