"""Prometheus metrics of the worker processes and their memory."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import psutil
from prometheus_client import Counter, Gauge
from starlette.requests import Request
from starlette.responses import Response

WORKER_STARTS = Counter("worker_starts", "Workers that were started, first ones and replacements")
LIVE_WORKERS = Gauge("live_workers", "Workers that are alive", multiprocess_mode="livesum")
MEMORY = Gauge(
    "service_memory_bytes",
    "Resident memory of the supervisor and all workers",
    multiprocess_mode="livemostrecent",
)


def register_worker() -> None:
    """Count this worker as live, and remove the live gauges of dead workers.

    The Prometheus client leaves those behind: the requests of a dead worker would stay in progress
    forever.
    """
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    for file in Path(folder).glob("gauge_live*.db") if folder else ():
        if not psutil.pid_exists(int(file.stem.rpartition("_")[2])):
            with suppress(FileNotFoundError):  # another new worker was faster
                file.unlink()
    WORKER_STARTS.inc()
    LIVE_WORKERS.set(1)


def with_memory_metric(
    scrape: Callable[[Request], Awaitable[Response]],
) -> Callable[[Request], Awaitable[Response]]:
    """Return the /metrics view with a measurement of the memory before each scrape."""

    async def measure_and_scrape(request: Request) -> Response:
        await asyncio.to_thread(measure_memory)
        return await scrape(request)

    return measure_and_scrape


def measure_memory() -> None:
    """Set the metric to the memory of the supervisor and its children, the workers."""
    supervisor = psutil.Process().parent() or psutil.Process()
    total = 0
    for process in (supervisor, *supervisor.children()):
        with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
            total += process.memory_info().rss
    MEMORY.set(total)
