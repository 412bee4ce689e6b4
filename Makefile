# The commands of README.md and CONTRIBUTING.md, for people and CI. `make new` copies this file into each bundle,
# without its end.

# Do not print "Entering directory" when `make test` runs make: the output in README.md lacks it.
MAKEFLAGS += --no-print-directory
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
DEV_READY := .venv/ready-dev
# The longest list of requirements. `make lock` compiles it first; the other locks get the same versions.
DEV_LIST := $(if $(wildcard tests/requirements.in),tests/requirements,requirements-dev)
LISTS := $(filter-out $(DEV_LIST),$(basename $(wildcard requirements*.in benchmarks/requirements.in)))
LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --annotation-style line \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

.PHONY: serve train report drift score new new-variables test lint format image lock evaluate replay

serve: $(READY)
	@$(BIN)/python train.py --if-missing
	@exec $(BIN)/bentoml serve

train: $(READY)
	@$(BIN)/python train.py $(DATA:%=--data %)

report: $(READY)
	@$(BIN)/python train.py --if-missing
	@$(BIN)/python -m training report $(DATA:%=--data %)

drift: $(READY)
	@$(BIN)/python -m training drift $(or $(LOG),$(error Say where the prediction log is: make drift LOG=FOLDER)) $(DATA:%=--data %)

score: $(READY)
	@$(BIN)/python -m training score \
		$(or $(DATA),$(error Say which file: make score DATA=rows.csv OUT=predictions.csv)) \
		$(or $(OUT),$(error Say where to: make score DATA=$(DATA) OUT=predictions.csv))

evaluate: $(READY)
	@$(BIN)/python -m training evaluate $(or $(LOG),$(error Say where the prediction log is: make evaluate LOG=FOLDER OUTCOMES=CSV)) \
		--outcomes $(or $(OUTCOMES),$(error Say what happened: make evaluate LOG=FOLDER OUTCOMES=CSV)) $(DATA:%=--data %) $(WRITE:%=--write %)

replay: $(READY)
	@$(BIN)/python -m training replay $(or $(LOG),$(error Say where the prediction log is: make replay LOG=FOLDER MODEL=TAG)) \
		--model $(or $(MODEL),$(error Say which model: make replay LOG=FOLDER MODEL=TAG)) $(BOUND:%=--bound %)

# Write a bundle for another table; DROP=id,date excludes these columns.
new: new-variables $(READY)
	@$(BIN)/python -m training new "$(DATA)" --target "$(TARGET)" --name "$(NAME)" --out "$(OUT)" --drop "$(DROP)"

new-variables:
	@$(if $(and $(DATA),$(TARGET),$(NAME),$(OUT)),,$(error Say what from and where to: make new \
		DATA=cars.csv TARGET=price NAME=car_price OUT=../car_price))

test: $(DEV_READY)
	@$(BIN)/python -m pytest -n 2 -m "not slow"

lint: $(DEV_READY)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports
	@$(BIN)/mypy

format: $(DEV_READY)
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

image: $(READY)
	@deploy/image.sh

# Compile the locks from the direct requirements; UPGRADE=bentoml upgrades bentoml to its newest version.
lock: $(READY)
	@$(LOCK) $(UPGRADE:%=--upgrade-package %) $(DEV_LIST).in --output-file $(DEV_LIST).txt
	@for name in $(LISTS); do \
		$(LOCK) $(UPGRADE:%=--upgrade-package %) --constraint $(DEV_LIST).txt \
			$$name.in --output-file $$name.txt || exit; \
	done

.venv-ray/ready: requirements-ray.txt $(READY)
	$(PYTHON) -m venv .venv-ray
	$(BIN)/uv pip install --python .venv-ray/bin/python --requirement requirements-ray.txt
	@touch $@

$(DEV_READY): $(DEV_LIST).txt $(READY)
	@echo "Installing the packages of the tests into .venv: about 10 s"
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --requirement $(DEV_LIST).txt
	@touch $@

$(READY): requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	"This needs Python 3.11 or newer: say which with make PYTHON=/path/to/python3.11")'
	@echo "Installing the packages of requirements.txt into .venv: about 20 s"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet "$$(sed -n 's/^\(uv==[^ ]*\).*/\1/p' requirements.txt)"
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --requirement requirements.txt
	@touch $@

# Only in this repository: the slow tests, the stress test and the benchmark.

.PHONY: test-slow bench stress

test-slow: $(DEV_READY) .venv-ray/ready
	@$(BIN)/python -m pytest -m slow

bench: $(READY) .venv-bench/ready
	@$(BIN)/python train.py --if-missing
	@.venv-bench/bin/python benchmarks/bench.py

stress: $(DEV_READY)
	@$(BIN)/python train.py --if-missing
	@$(BIN)/python -m tests.stress --minutes $(or $(MINUTES),0)

.venv-bench/ready: benchmarks/requirements.txt $(READY)
	$(PYTHON) -m venv .venv-bench
	$(BIN)/uv pip install --python .venv-bench/bin/python --requirement benchmarks/requirements.txt
	@touch $@
