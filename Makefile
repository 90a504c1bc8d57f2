# Every target makes its own environment first; nothing else is needed but python3 with venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test test-slow check bench clean

demo: $(READY)
	$(BIN)/paretune run --data digits --trials 24 --epochs 30 --out runs/demo

test: $(READY)
	$(BIN)/python -m pytest -m "not slow and not matrix" --durations=10

# longer ones: the smallest network of each family of keras.applications, random graphs, faults
test-slow: $(READY)
	$(BIN)/python -m pytest -m slow --durations=20

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# hours on a quiet machine, each with its peers where these are installed (benchmarks/_peers.py);
# `python -m benchmarks --list` tells what runs
bench: $(READY)
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +

# the exact set that was tested; without it: pip install -e .
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@
