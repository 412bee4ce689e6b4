"""Full load from wrk, which counts good answers and refusals apart."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from house import EXAMPLE
from tests.stress.service import HOST, Service

SCRIPT = Path(__file__).with_name("load.lua")


@dataclass
class Load:
    """What clients got."""

    seconds: float
    good: int
    refused: int  # 429 or 503, as they should be if there are too many
    other: int
    broken: int  # connections; wrk makes another at once
    p50_ms: float
    p99_ms: float

    @property
    def rate(self) -> float:
        """Return the good answers a second."""
        return self.good / self.seconds


def load(service: Service, connections: int, seconds: float) -> Load:
    """Send the example over so many connections, on each as soon as the answer is there."""
    if not shutil.which("wrk"):
        raise SystemExit("wrk is missing: install it, on Debian with `apt-get install wrk`")
    url = f"http://{HOST}:{service.port}/predict"
    done = subprocess.run(
        ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", SCRIPT, "--timeout", "30s", url],  # noqa: S607
        input=json.dumps(EXAMPLE),
        capture_output=True,
        text=True,
        check=True,
    )
    return Load(**json.loads(done.stdout.splitlines()[-1]))


@contextmanager
def background(service: Service, connections: int, seconds: float) -> Iterator[Future[Load]]:
    """Load a service for so long, from another thread."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(load, service, connections, seconds)
