# What only this repository has: the slow tests, the stress test and the benchmark.

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
