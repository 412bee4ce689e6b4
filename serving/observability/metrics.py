"""Prometheus metrics of the predictions, the served model and the workers."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import psutil
from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.utils import floatToGoString
from starlette.requests import Request
from starlette.responses import Response

# From a prediction for one row (0.3 ms) to the default of REQUEST_TIMEOUT.
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)

REQUEST_ERRORS = Counter(
    "request_faults", "Prediction requests refused for faults of the kind", ["kind"]
)
OUTSIDE_RANGE = Counter(
    "feature_outside_training_range",
    "Legal values outside the training range, or not among the training values",
    ["feature"],
)
BATCH_QUEUE_SECONDS = Histogram(
    "batch_queue_seconds", "Wait of a batch's first request", ["endpoint"], buckets=SECONDS
)
BATCH_MODEL_SECONDS = Histogram(
    "batch_model_seconds", "Time of the model for a batch", ["endpoint"], buckets=SECONDS
)
SERVED_MODEL = Gauge("served_model_info", "The served model", ["tag"], multiprocess_mode="max")
TRAINING_DISTRIBUTION = Gauge(
    "training_prediction_ratio",
    "Share of the predictions for the training data that are not over le",
    ["le"],
    multiprocess_mode="max",
)
WORKER_STARTS = Counter("worker_starts", "Workers that were started, first ones and replacements")
LIVE_WORKERS = Gauge("live_workers", "Workers that are alive", multiprocess_mode="livesum")
MEMORY = Gauge(
    "service_memory_bytes",
    "Resident memory of the supervisor and all workers",
    multiprocess_mode="livemostrecent",
)


class Observer(Protocol):
    """A histogram that observes many values at once."""

    def observe_all(self, values: Sequence[float]) -> None:
        """Count each value."""


class PredictionMetrics:
    """Counts the predictions, and the values on which the model was not trained."""

    def __init__(
        self,
        feature_names: Sequence[str],
        training_range: Mapping[str, Sequence[float]],  # least and greatest value of each number
        training_values: Mapping[str, Collection[Any]],  # of each category and boolean
        histogram: Observer,
    ) -> None:
        names = list(enumerate(feature_names))
        self.feature_names = feature_names
        self.ranges = [(n, training_range[name]) for n, name in names if name in training_range]
        self.values = [
            (n, set(training_values[name])) for n, name in names if name in training_values
        ]
        self.histogram = histogram

    def observe(self, rows: Sequence[Sequence[Any]], predictions: Sequence[float]) -> None:
        """Count rows (n_samples, n_features) and their predictions (n_samples,)."""
        columns = list(zip(*rows, strict=True))
        for n, (least, greatest) in self.ranges:
            if min(columns[n]) < least or max(columns[n]) > greatest:
                self.count_outside(n, (not least <= value <= greatest for value in columns[n]))
        for n, known in self.values:
            if not known.issuperset(columns[n]):
                self.count_outside(n, (value not in known for value in columns[n]))
        self.histogram.observe_all(predictions)

    def count_outside(self, n: int, outside: Iterable[bool]) -> None:
        """Count the values of a feature that are outside what training had."""
        OUTSIDE_RANGE.labels(self.feature_names[n]).inc(sum(outside))


def set_served_model(tag: str, prediction_distribution: Mapping[float, float]) -> None:
    """Publish the tag of the model, and the distribution of its predictions at training."""
    SERVED_MODEL.labels(tag).set(1)
    for bound, share in prediction_distribution.items():
        TRAINING_DISTRIBUTION.labels(floatToGoString(bound)).set(share)


def count_request_errors(kinds: Iterable[str]) -> None:
    """Count a rejected request once under each kind of its errors."""
    for kind in kinds:
        REQUEST_ERRORS.labels(kind).inc()


def register_worker(error_kinds: Iterable[str]) -> None:
    """Count this worker as live, and remove the live gauges of dead workers.

    The Prometheus client leaves those behind: the requests of a dead worker would stay in progress
    for ever.
    """
    for kind in error_kinds:
        REQUEST_ERRORS.labels(kind)  # a series that begins at its first error shows no rate for it
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    for file in Path(folder).glob("gauge_live*.db") if folder else ():
        if not psutil.pid_exists(int(file.stem.rpartition("_")[2])):
            with suppress(FileNotFoundError):  # another new worker was faster
                file.unlink()
    WORKER_STARTS.inc()
    LIVE_WORKERS.set(1)


def measure_memory_before(
    scrape: Callable[[Request], Awaitable[Response]],
) -> Callable[[Request], Awaitable[Response]]:
    """Wrap the /metrics view, so that each scrape measures the memory first."""

    async def measure_and_scrape(request: Request) -> Response:
        await asyncio.to_thread(measure_memory)
        return await scrape(request)

    return measure_and_scrape


def measure_memory() -> None:
    """Add up the memory of the supervisor and its children, the workers."""
    supervisor = psutil.Process().parent() or psutil.Process()
    total = 0
    for process in (supervisor, *supervisor.children()):
        with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
            total += process.memory_info().rss
    MEMORY.set(total)
