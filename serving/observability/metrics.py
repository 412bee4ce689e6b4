"""What Prometheus is told of predictions, model and workers; of requests, telemetry.py tells it."""

import asyncio
import os
from bisect import bisect_left
from collections import Counter as Counts
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from functools import cache
from math import isfinite
from pathlib import Path

import psutil
from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.utils import floatToGoString
from starlette.requests import Request
from starlette.responses import Response

from serving.model import Training
from serving.records import FAULT_KINDS

# From a prediction on one row (0.3 ms) to what REQUEST_TIMEOUT gives up.
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)

FAULTS = Counter("request_faults", "Prediction requests refused for faults of the kind", ["kind"])
QUEUE = Histogram(
    "batch_queue_seconds", "Wait of a batch's first request", ["endpoint"], buckets=SECONDS
)
MODEL = Histogram(
    "batch_model_seconds", "Time of the model for a batch", ["endpoint"], buckets=SECONDS
)
SERVED = Gauge("served_model_info", "The served model", ["tag"], multiprocess_mode="max")
EXPECTED = Gauge(
    "training_prediction_ratio",
    "Share of the predictions for the training data that are not over le",
    ["le"],
    multiprocess_mode="max",
)
STARTS = Counter("worker_starts", "Workers that were started, first ones and replacements")
LIVE = Gauge("live_workers", "Workers that are alive", multiprocess_mode="livesum")
MEMORY = Gauge(
    "service_memory_bytes",
    "Resident memory of the supervisor and all workers",
    multiprocess_mode="livemostrecent",
)


class Values(Histogram):
    """A histogram of predictions, in which those of a batch are counted together.

    1000 of them take 0.2 ms so, and 4 ms one by one.
    """

    def observe_all(self, values: Sequence[float]) -> None:
        """Count all values that are finite; one that is not would spoil the sum for ever."""
        finite = [value for value in values if isfinite(value)]
        self._sum.inc(sum(finite))
        buckets = Counts(bisect_left(self._upper_bounds, value) for value in finite)
        for bucket, count in buckets.items():
            self._buckets[bucket].inc(count)


def describe_model(tag: str, training: Training) -> Values:
    """Tell which model is served; return the histogram of its predictions."""
    SERVED.labels(tag).set(1)
    for bound, share in training.prediction_distribution.items():
        EXPECTED.labels(floatToGoString(bound)).set(share)
    return histogram(tuple(training.prediction_distribution))


@cache
def histogram(bounds: Sequence[float]) -> Values:
    """Return the histogram of predictions with these upper bounds."""
    # In no registry, which would take one such name: what is scraped are the workers' files.
    return Values("prediction_value", "What was predicted", buckets=bounds, registry=None)


def count_faults(kinds: Iterable[str]) -> None:
    """Count a request under each kind of fault that its body has."""
    for kind in kinds:
        FAULTS.labels(kind).inc()


def count_worker() -> None:
    """Count this worker in, and out those that died: nobody else does.

    Their requests would be in progress for ever.
    """
    for kind in FAULT_KINDS:
        FAULTS.labels(kind)  # a series that begins at its first fault shows no rate for it
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    for file in Path(folder).glob("gauge_live*.db") if folder else ():
        if not psutil.pid_exists(int(file.stem.rpartition("_")[2])):
            with suppress(FileNotFoundError):  # another new worker was faster
                file.unlink()
    STARTS.inc()
    LIVE.set(1)


def with_memory(
    scrape: Callable[[Request], Awaitable[Response]],
) -> Callable[[Request], Awaitable[Response]]:
    """Have the memory measured before each scrape, when only one worker knows of it."""

    async def measure_and_scrape(request: Request) -> Response:
        await asyncio.to_thread(measure_memory)
        return await scrape(request)

    return measure_and_scrape


def measure_memory() -> None:
    """Add up the memory of the supervisor and of its children, the workers."""
    supervisor = psutil.Process().parent() or psutil.Process()
    total = 0
    for process in (supervisor, *supervisor.children()):
        with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
            total += process.memory_info().rss
    MEMORY.set(total)
