# The commands of the README, the same for people and CI.

# `make test` replays the commands of the README, `make train` among them.
MAKEFLAGS += --no-print-directory
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready

.PHONY: serve train report drift test lint bench stress image

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

test: $(READY)
	@$(BIN)/python -m pytest

lint: $(READY)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports
	@$(BIN)/mypy

bench: $(READY) .venv-bench/ready
	@$(BIN)/python train.py --if-missing
	@.venv-bench/bin/python benchmarks/bench.py

stress: $(READY)
	@$(BIN)/python train.py --if-missing
	@$(BIN)/python -m tests.stress --minutes $(or $(MINUTES),0)

image: $(READY)
	@deploy/image.sh

.venv-bench/ready: requirements.txt benchmarks/requirements.txt
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --requirement benchmarks/requirements.txt
	@touch $@

$(READY): requirements.txt requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	"This needs Python 3.11 or newer: say which with make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --requirement requirements-dev.txt
	@touch $@
