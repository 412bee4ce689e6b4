"""Run the stress scenarios one after another and print a table of their results."""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from rich.console import Console
from tqdm import tqdm

from tests.stress.config import StressConfig
from tests.stress.full_disk import full_disk
from tests.stress.invalid_models import invalid_models
from tests.stress.openapi_conformance import openapi_conformance
from tests.stress.overload import cold_start, overload
from tests.stress.process_signals import graceful_shutdown, worker_crash
from tests.stress.record_fuzzing import record_fuzzing
from tests.stress.request_fuzzing import request_fuzzing
from tests.stress.resource_exhaustion import resource_exhaustion
from tests.stress.result import Result, results_table
from tests.stress.server import ModelStore, temporary_model_store
from tests.stress.soak import soak
from tests.stress.unpredictable_records import unpredictable_records

Scenario = Callable[[ModelStore, StressConfig], Iterator[Result]]
SCENARIOS: list[Scenario] = [
    record_fuzzing,
    openapi_conformance,
    request_fuzzing,
    invalid_models,
    unpredictable_records,
    resource_exhaustion,
    worker_crash,
    graceful_shutdown,
    full_disk,
    overload,
    cold_start,
    soak,
]


def main() -> int:
    """Run the selected scenarios and return the exit status, 1 if a check failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.stress", description=__doc__)
    parser.add_argument(
        "--minutes",
        type=float,
        default=0,
        help="duration of the whole run; the soak test, which comes last, takes the time left",
    )
    names = [scenario.__name__ for scenario in SCENARIOS]
    parser.add_argument("--only", choices=names, help="run only this scenario")
    args = parser.parse_args()
    end = time.monotonic() + 60 * args.minutes
    selected = [s for s in SCENARIOS if args.only in (None, s.__name__)]
    results = []
    with (
        temporary_model_store() as store,
        tqdm(selected, unit="scenario", disable=None) as scenarios,
    ):
        for scenario in scenarios:
            scenarios.set_description(scenario.__name__.replace("_", " "))
            remaining = int(end - time.monotonic())
            soak_seconds = max(remaining, StressConfig.soak_seconds)
            results += scenario(store, replace(StressConfig(), soak_seconds=soak_seconds))
    Console(width=160).print(results_table(results))
    return not all(result.ok for result in results)


if __name__ == "__main__":
    sys.exit(main())
