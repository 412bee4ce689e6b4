"""The prediction log: what was predicted from what, for those who improve the model."""

import errno
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from random import random

from bentoml._internal.context import server_context
from prometheus_client import Counter
from pydantic_core import to_json

from serving.model import LOG_COLUMNS
from serving.observability.background_writer import Spool
from serving.observability.telemetry import at
from serving.records import Row
from serving.settings import Settings

LOST = Counter("prediction_log_requests_lost", "Requests that the prediction log could not take")
MAX_REQUESTS = 10_000  # in memory; a request may hold MAX_RECORDS records
MAX_ROWS = 10  # of a request whose lines are made at once
FILES = 5

# When, for which request, by which model, from which rows, which predictions.
Entry = tuple[float, str, str, Sequence[Row], Sequence[float]]


class PredictionLog:
    """A line of JSON for each record that was predicted, in files of bounded size.

    `pandas.read_json(path, lines=True)` reads one. A disk that is full or slow costs lines, which
    are counted, and never a prediction.
    """

    def __init__(self, settings: Settings, feature_names: Iterable[str]) -> None:
        self.sample = settings.prediction_log_sample
        self.columns = (*LOG_COLUMNS[:-1], *feature_names, LOG_COLUMNS[-1])
        name = f"predictions-{server_context.worker_index or 1}.jsonl"
        size = settings.prediction_log_mb * 1_000_000 // FILES // settings.workers
        self.file = RotatingFile(Path(settings.prediction_log, name), size)
        self.spool = Spool(self.write, LOST, MAX_REQUESTS)

    def add(self, entry: Entry) -> None:
        """Take a request, or leave it out of the sample."""
        if random() < self.sample:  # noqa: S311
            # To make the lines of single records in the thread that writes cost 12 % of the
            # requests per second, and 8 ms of p99; those of many would hold the event loop up.
            self.spool.add(self.lines(entry) if len(entry[3]) <= MAX_ROWS else entry)

    def write(self, items: Sequence[Entry | bytes]) -> None:
        """Write the lines of requests; raise OSError if they do not fit."""
        lines = (item if isinstance(item, bytes) else self.lines(item) for item in items)
        self.file.write(b"".join(lines))

    def lines(self, entry: Entry) -> bytes:
        """Return a line for each record of a request."""
        seconds, request_id, tag, rows, predictions = entry
        start = at(seconds), request_id, tag
        lines = (
            to_json(dict(zip(self.columns, (*start, *row, prediction), strict=True)))
            for row, prediction in zip(rows, predictions, strict=True)
        )
        return b"".join(line + b"\n" for line in lines)


class RotatingFile:
    """A file of whole lines, and the few that were full before it, of which the oldest goes.

    `logging.handlers.RotatingFileHandler` leaves half a line behind when the disk is full, which
    makes the file unreadable.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self.path = path
        self.max_bytes = max_bytes
        self.mended = False  # is it as this process, or one before it, was to leave it?

    def write(self, data: bytes) -> None:
        """Append lines, to as many files as they need; raise OSError."""
        if not self.mended or not self.path.exists():  # for others may take it away
            self.mend()
        while data:
            room = max(self.max_bytes - self.path.stat().st_size, 0)
            end = data.rfind(b"\n", 0, room) + 1
            if not end and room == self.max_bytes:
                end = data.index(b"\n") + 1  # a line that is larger than a file should be
            self.append(data[:end])
            data = data[end:]
            if data:
                self.rotate()

    def append(self, data: bytes) -> None:
        """Append all of the data to the newest file, or nothing; raise OSError."""
        with self.path.open("ab", buffering=0) as file:
            size = file.tell()
            try:
                if file.write(data) < len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            except OSError:
                file.truncate(size)
                raise

    def mend(self) -> None:
        """Cut off the half line that a killed process may have left; raise OSError."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.touch()
        os.truncate(self.path, self.path.read_bytes().rfind(b"\n") + 1)
        self.mended = True

    def rotate(self) -> None:
        """Move each file one on, over the oldest."""
        paths = [self.path, *(self.path.with_suffix(f".{n}.jsonl") for n in range(1, FILES))]
        for newer, older in zip(paths[-2::-1], paths[:0:-1], strict=True):
            if newer.exists():
                newer.replace(older)
        self.path.touch()
