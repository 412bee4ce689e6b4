"""Closed-loop load from wrk, which counts successful and rejected requests separately."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from house import EXAMPLE
from tests.stress.server import HOST, Server

SCRIPT = Path(__file__).with_suffix(".lua")


@dataclass
class LoadResult:
    """Numbers of responses by kind, the duration, and latency percentiles."""

    seconds: float
    succeeded: int  # 200
    rejected: int  # 429 or 503: load shedding
    unexpected: int  # any other status
    connection_errors: int  # wrk opens a new connection at once
    p50_ms: float
    p99_ms: float

    @property
    def throughput(self) -> float:
        """Return the number of successful responses per second."""
        return self.succeeded / self.seconds


def run_load(
    server: Server, connections: int, seconds: float, honour_retry_after: bool = False
) -> LoadResult:
    """Send the example over each connection, again as soon as its response has arrived.

    With `honour_retry_after`, a connection that is rejected waits for a second.
    """
    if not shutil.which("wrk"):
        raise SystemExit("wrk is missing: install it, on Debian with `apt-get install wrk`")
    url = f"http://{HOST}:{server.port}/predict"
    options = ["-t1", f"-c{connections}", f"-d{seconds}s", "-s", SCRIPT, "--timeout", "30s"]
    arguments = ["honour"] if honour_retry_after else []
    completed = subprocess.run(
        ["wrk", *options, url, "--", *arguments],  # noqa: S607
        input=json.dumps(EXAMPLE),
        capture_output=True,
        text=True,
        check=True,
    )
    return LoadResult(**json.loads(completed.stdout.splitlines()[-1]))


@contextmanager
def background_load(
    server: Server, connections: int, seconds: float, honour_retry_after: bool = False
) -> Iterator[Future[LoadResult]]:
    """Run a load in another thread; wait for its end on exit."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(run_load, server, connections, seconds, honour_retry_after)
