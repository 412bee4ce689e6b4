# The commands of the README and of CONTRIBUTING.md, the same for people and CI.

# `make test` replays the commands of the README, `make train` among them.
MAKEFLAGS += --no-print-directory
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
DEV_READY := .venv/ready-dev
LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --annotation-style line \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

.PHONY: serve train report drift test test-slow lint format bench stress image lock

serve: $(READY)
	@$(BIN)/python train.py --if-missing
	@exec $(BIN)/bentoml serve

train: $(READY)
	@$(BIN)/python train.py

report: $(READY)
	@$(BIN)/python train.py --if-missing
	@$(BIN)/python -m training report

drift: $(READY)
	@$(BIN)/python -m training drift $(or $(LOG),$(error Say where the prediction log is: make drift LOG=FOLDER))

test: $(DEV_READY)
	@$(BIN)/python -m pytest -n 2 -m "not slow"

test-slow: $(DEV_READY)
	@$(BIN)/python -m pytest -m slow

lint: $(DEV_READY)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports
	@$(BIN)/mypy

format: $(DEV_READY)
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(READY) .venv-bench/ready
	@$(BIN)/python train.py --if-missing
	@.venv-bench/bin/python benchmarks/bench.py

stress: $(DEV_READY)
	@$(BIN)/python train.py --if-missing
	@$(BIN)/python -m tests.stress --minutes $(or $(MINUTES),0)

image: $(READY)
	@deploy/image.sh

# Compile the locks from the direct requirements; UPGRADE=bentoml takes its newest version. The other
# locks get the versions of requirements-dev.txt.
lock: $(READY)
	@$(LOCK) $(UPGRADE:%=--upgrade-package %) requirements-dev.in --output-file requirements-dev.txt
	@for name in requirements requirements-serve benchmarks/requirements; do \
		$(LOCK) $(UPGRADE:%=--upgrade-package %) --constraint requirements-dev.txt \
			$$name.in --output-file $$name.txt || exit; \
	done

.venv-bench/ready: benchmarks/requirements.txt $(READY)
	$(PYTHON) -m venv .venv-bench
	$(BIN)/uv pip install --python .venv-bench/bin/python --requirement benchmarks/requirements.txt
	@touch $@

$(DEV_READY): requirements-dev.txt $(READY)
	@echo "Installing the packages of the tests into .venv: about 10 s"
	@$(BIN)/uv pip install --python $(BIN)/python --requirement requirements-dev.txt
	@touch $@

$(READY): requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	"This needs Python 3.11 or newer: say which with make PYTHON=/path/to/python3.11")'
	@echo "Installing the packages of requirements.txt into .venv: about 20 s"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet "$$(sed -n 's/^\(uv==[^ ]*\).*/\1/p' requirements.txt)"
	@$(BIN)/uv pip install --python $(BIN)/python --requirement requirements.txt
	@touch $@
