"""Soak test: full load for a long time without errors and without memory growth."""

from collections.abc import Iterator

from tqdm import trange

from tests.stress.config import StressConfig
from tests.stress.load_generator import LoadResult, run_load
from tests.stress.result import Result
from tests.stress.server import ModelStore, run_server

CONNECTIONS = 64
STEP_SECONDS = 10
MAX_MEMORY_GROWTH = 0.01


def soak(store: ModelStore, config: StressConfig) -> Iterator[Result]:
    """Load the server in steps and measure its memory after each step."""
    step_seconds = min(STEP_SECONDS, config.soak_seconds)
    steps = config.soak_seconds // step_seconds
    loads: list[LoadResult] = []
    memory_mb: list[float] = []
    with run_server(store) as server:
        for _ in trange(steps, unit="step", leave=False, disable=None):
            loads.append(run_load(server, CONNECTIONS, step_seconds))
            memory_mb.append(server.memory_mb())
        log_errors = server.count_log_errors()
    succeeded = sum(load.succeeded for load in loads)
    failed = log_errors + sum(
        load.rejected + load.unexpected + load.connection_errors for load in loads
    )
    seconds = sum(load.seconds for load in loads)
    measured = f"{succeeded / seconds:.0f}/s for {seconds:.0f} s"
    yield Result("soak, full load", succeeded + failed, failed, measured, "no error", not failed)
    # The baseline is the memory after the first minute, which is the warm-up. A run of a minute or
    # less has no later measurement: its baseline is the middle of the run.
    baseline = memory_mb[min(60 // step_seconds, len(memory_mb)) - 1]
    if memory_mb[-1] is baseline:
        baseline = memory_mb[len(memory_mb) // 2]
    growth = memory_mb[-1] / baseline - 1
    measured = f"{baseline:.1f} to {memory_mb[-1]:.1f} MB, {growth:+.1%}"
    target = f"<= +{MAX_MEMORY_GROWTH:.0%}"
    ok = growth <= MAX_MEMORY_GROWTH
    yield Result("soak, server memory", len(memory_mb), 0, measured, target, ok)
