# Two commands on a fresh machine: `make demo` and `make test`. Both set up system packages (where they may) and .venv.

PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check
STAMP := $(VENV)/.installed
export QT_QPA_PLATFORM ?= offscreen

.PHONY: demo test lint fuzz endurance screenshots tutorial click-times evidence performance schemas system-packages clean

demo: system-packages $(STAMP)
	PYTHONPATH=DiffusionSegment:Testing $(PY) -m headless.demo $(if $(CT),"$(CT)")

# A thread a process: threads of two test processes would wait for each other on two cores, many times as long. Files keep
# their order: VTK's views know one application a process, and those of the scene's tests must not come before the panel's.
test: system-packages $(STAMP) lint
	OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: $(STAMP)
	$(PY) -m ruff check DiffusionSegment Testing
	$(PY) -m mypy

# The panel in each of its states.
screenshots: $(STAMP)
	PYTHONPATH=DiffusionSegment:Testing $(PY) -m pythonqt.screenshots -o build/screenshots $(if $(CT),--ct "$(CT)")

# The pictures of the tutorial in README, and that of the panel, from the real model on the phantom.
tutorial: $(STAMP)
	PYTHONPATH=DiffusionSegment:Testing $(PY) -m pythonqt.tutorial -o Resources/Screenshots/tutorial --panel Resources/Screenshots/panel.png

# How long the panel makes a reader wait, from click to result and from stroke to correction.
click-times: $(STAMP)
	PYTHONPATH=DiffusionSegment:Testing $(PY) -m pythonqt.click_times $(if $(CT),--ct "$(CT)")

# Damaged inputs by the hundred thousand; what fails is stored in build/fuzz-failures.
fuzz: $(STAMP)
	mkdir -p build
	PYTHONPATH=DiffusionSegment:Testing $(PY) -m reliability.fuzz --count $(or $(COUNT),100000) --seed $(or $(SEED),1) -o build/fuzz.json

# A thousand segment-cancel cycles and eight hours' worth of clicks; what leaks is told.
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
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "Python 3.10 or newer is needed; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' || \
	  { echo "Python's venv is missing; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) $(TORCH)
	$(PIP) -e '.[test]'
	touch $(STAMP)

# Drawing without a display (OSMesa, EGL), Qt without a screen, and CMake for the packaging tests.
system-packages:
	@PYTHON="$(PYTHON)" bash .ci/system-packages

# Keeps .venv, which takes long to download; `rm -rf .venv` starts afresh.
clean:
	rm -rf build demo-output .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find DiffusionSegment Testing -name __pycache__ -type d -prune -exec rm -rf {} +
