# Every target makes its own environment first; nothing else is needed but python3 with venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# at most four processes with TensorFlow
PYTEST := -m pytest --numprocesses=auto --maxprocesses=4

# what most of the package stands on, in a minute: for the versions of others that we claim
CORE := $(addprefix tests/compress/, core/test_linux.py core/test_parent_watch.py plan data/tasks \
	train/test_train.py train/test_added_losses.py prune/weights/test_masks.py prune/weights/test_pruner.py \
	prune/channels/test_pruning.py exporting/test_export.py) \
	$(addprefix tests/search/, samplers/test_samplers.py study/test_study.py)

.PHONY: demo test test-slow test-lowest test-313 check docs settings bench clean

demo: $(READY)
	$(BIN)/paretune run --data digits --budget 85s --out runs/demo

# tests of one file stay together: they share fixtures; several workers with a thread for every core each take 1.4
# times as long, because idle threads spin
test test-slow test-lowest test-313: export TF_NUM_INTRAOP_THREADS ?= 1
test test-slow test-lowest test-313: export OMP_NUM_THREADS ?= 1
test test-slow test-lowest test-313: export OPENBLAS_NUM_THREADS ?= 1
test: $(READY)
	$(BIN)/python $(PYTEST) --dist=loadfile -m "not slow and not matrix" --durations=10

# longer ones, each where there is time: small networks of keras.applications, random graphs, faults
test-slow: $(READY)
	$(BIN)/python $(PYTEST) --dist=worksteal -m "slow and not matrix" --durations=60

# the lowest versions that pyproject.toml claims; that old ones warn of new ones is no failure
test-lowest: $(READY)
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-lowest
	$(BIN)/uv pip install --quiet --compile-bytecode --python .venv-lowest -c constraints-lowest.txt -e ".[test]"
	.venv-lowest/bin/python -m pytest -W default -m "not slow and not matrix" $(CORE)

# the highest Python
test-313: $(READY)
	@if $(BIN)/uv python find 3.13 || $(BIN)/uv python install 3.13; then \
		set -ex; \
		$(BIN)/uv venv --quiet --clear --python 3.13 .venv-313; \
		$(BIN)/uv pip install --quiet --compile-bytecode --python .venv-313 -c constraints.txt -e ".[test]"; \
		.venv-313/bin/python -m pytest -m "not slow and not matrix" $(CORE); \
	else \
		echo "test-313 skipped: there is no Python 3.13 here, and uv could not fetch one"; \
	fi

check: $(READY) settings
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tests.readability

# the site into site/, every warning an error
docs: $(READY) settings
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

# what the build makes of the options: anew where these have changed
settings: $(READY)
	$(BIN)/python -m search.plan.write_settings

# half a day on a quiet machine, each with its peers where these are installed;
# `python -m benchmarks --list` says what each proves
bench: $(READY)
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) .venv-lowest .venv-313 build dist site *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +

# the exact set that was tested; without it: pip install -e .
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -c constraints.txt -e ".[dev]"
	touch $@
