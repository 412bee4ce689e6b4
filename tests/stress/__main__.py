"""Run all scenarios one after another, and print what held."""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from rich.console import Console
from tqdm import tqdm

from tests.stress.disk import full_disk
from tests.stress.faults import killed_worker, stopped_service
from tests.stress.fuzz import fuzzed_records
from tests.stress.hostile import hostile_requests
from tests.stress.models import refused_models
from tests.stress.overload import cold_start, overload
from tests.stress.row import Row, table
from tests.stress.schema import described_requests
from tests.stress.service import Home, new_home
from tests.stress.size import Size
from tests.stress.slow import slow_clients
from tests.stress.soak import soak

Scenario = Callable[[Home, Size], Iterator[Row]]
SCENARIOS: list[Scenario] = [
    fuzzed_records,
    described_requests,
    hostile_requests,
    refused_models,
    slow_clients,
    killed_worker,
    stopped_service,
    full_disk,
    overload,
    cold_start,
    soak,
]


def main() -> int:
    """Return the exit status: 1 if something did not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.stress", description=__doc__)
    parser.add_argument("--minutes", type=float, default=0, help="in all; what is left is soaked")
    names = [scenario.__name__ for scenario in SCENARIOS]
    parser.add_argument("--only", choices=names, help="run this scenario alone")
    arguments = parser.parse_args()
    minutes = arguments.minutes
    end = time.monotonic() + 60 * minutes
    chosen = [s for s in SCENARIOS if arguments.only in (None, s.__name__)]
    rows = []
    with new_home() as home, tqdm(chosen, unit="scenario", disable=None) as scenarios:
        for scenario in scenarios:
            scenarios.set_description(scenario.__name__.replace("_", " "))
            left = int(end - time.monotonic())
            rows += scenario(home, replace(Size(), soak_seconds=max(left, Size.soak_seconds)))
    Console(width=160).print(table(rows))
    return not all(row.ok for row in rows)


if __name__ == "__main__":
    sys.exit(main())
