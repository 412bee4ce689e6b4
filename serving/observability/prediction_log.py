"""The prediction log: a line of JSON for each record of the requests that got predictions."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from prometheus_client import Counter
from pydantic_core import to_json

from serving.observability import LOG_COLUMNS
from serving.observability.background_writer import BackgroundWriter
from serving.observability.rotating_file import FILES, RotatingFile
from serving.observability.timestamp import format_timestamp
from serving.settings import Settings

REQUESTS_LOST = Counter(
    "prediction_log_requests_lost", "Requests that the prediction log could not take"
)
MAX_PENDING_REQUESTS = 10_000  # in memory; each may hold MAX_RECORDS records
MAX_INLINE_ROWS = 10  # larger requests are serialized by the writer's thread


class PredictedRequest(NamedTuple):
    """The logged part of a request."""

    seconds: float  # Unix time
    request_id: str
    model_tag: str
    rows: Sequence[Sequence[Any]]
    predictions: Sequence[float]


class PredictionLog:
    """Writes a line of JSON for each record of a request, to files of bounded size.

    A request that got an error is not logged, even if some of its records were predicted.

    `pandas.read_json(path, lines=True)` reads a file. If the disk is full or slow, lines are
    dropped and their requests counted; predictions go on.
    """

    def __init__(self, settings: Settings, feature_names: Iterable[str], worker_index: int) -> None:
        self.sample = settings.prediction_log_sample
        # A generator of its own, because a model may seed the global one of `random`.
        self.generator = Random()  # noqa: S311
        self.columns = (*LOG_COLUMNS[:-1], *feature_names, LOG_COLUMNS[-1])
        path = Path(settings.prediction_log, f"predictions-{worker_index}.jsonl")
        max_bytes = settings.prediction_log_mb * 1_000_000 // FILES // settings.workers
        self.file = RotatingFile(path, max_bytes)
        self.writer = BackgroundWriter(self.write, REQUESTS_LOST, MAX_PENDING_REQUESTS)

    def add(self, request: PredictedRequest) -> None:
        """Log a request if it is in the random sample."""
        if self.generator.random() < self.sample:
            # Serializing single records in the writer's thread cost 12 % of the requests per second
            # and 8 ms of p99; serializing large requests here would block the event loop.
            inline = len(request.rows) <= MAX_INLINE_ROWS
            self.writer.add(self.to_lines(request) if inline else request)

    def write(self, items: Sequence[PredictedRequest | bytes]) -> None:
        """Write the lines of requests; raise OSError if the disk does not take them."""
        lines = (item if isinstance(item, bytes) else self.to_lines(item) for item in items)
        self.file.write(b"".join(lines))

    def to_lines(self, request: PredictedRequest) -> bytes:
        """Return a line for each record of a request, with its index in the request."""
        seconds, request_id, model_tag, rows, predictions = request
        timestamp = format_timestamp(seconds)
        numbered = enumerate(zip(rows, predictions, strict=True))
        values = (
            (timestamp, request_id, number, model_tag, *row, prediction)
            for number, (row, prediction) in numbered
        )
        lines = (to_json(dict(zip(self.columns, each, strict=True))) for each in values)
        return b"".join(line + b"\n" for line in lines)
