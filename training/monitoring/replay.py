"""Put the records of a prediction log through another model of the store."""

from collections import Counter
from heapq import nlargest
from time import perf_counter
from typing import NamedTuple

import numpy as np
from pydantic import BaseModel

from serving.isolation import Unpredicted
from serving.observability import LOG_COLUMNS
from serving.records import Row
from serving.regressor import Regressor
from training.monitoring.prediction_log import Chunk, Entry
from training.monitoring.validation import Validator
from training.stored_model import StoredModel

WORST_ROWS = 10
TIMED_ROWS = 1000  # of the log, predicted one by one
WARM_UP_ROWS = 20


class Difference(NamedTuple):
    """A record with the prediction of the candidate."""

    entry: Entry  # with the prediction of the log
    prediction: float

    @property
    def value(self) -> float:
        """By how much the prediction moves."""
        return self.prediction - self.entry["prediction"]

    def record(self) -> dict[str, object]:
        """Return the record."""
        return to_record(self.entry)

    def size(self) -> float:
        """Return the size of the difference."""
        return abs(self.value)


class Replay:
    """What has come of the records that were replayed so far."""

    def __init__(self, record_type: type[BaseModel], candidate: StoredModel) -> None:
        self.validator = Validator(record_type)
        self.candidate = candidate
        self.n_records = 0
        self.n_requests = 0
        self.n_refused = 0  # records
        self.refused_requests: dict[tuple[str, str], None] = {}  # times and IDs, in their order
        self.reasons: Counter[str] = Counter()
        self.last = ("", "")  # time and model tag of the last prediction
        self.differences: dict[str, list[float]] = {}  # by the model that is in the log
        self.worst: dict[str, list[Difference]] = {}
        self.timed_rows: list[Row] = []

    def add(self, chunk: Chunk) -> None:
        """Validate and predict the records of some lines of a log; raise TrainingError."""
        entries = chunk.entries
        self.n_records += len(entries)
        self.n_requests += sum(not entry.get("record_number") for entry in entries)
        times = [(entry["timestamp"], entry["model_tag"]) for entry in entries]
        self.last = max([self.last, *times])
        valid = self.validate(entries)
        predictions = self.candidate.predict([row for _, row in valid])
        by_tag: dict[str, list[Difference]] = {}
        for (entry, row), prediction in zip(valid, predictions, strict=True):
            if isinstance(prediction, Unpredicted):
                reason = f"The model can't predict the record: {type(prediction.error).__name__}"
                self.refuse(entry, [reason])
                continue
            by_tag.setdefault(entry["model_tag"], []).append(Difference(entry, prediction))
            if len(self.timed_rows) < TIMED_ROWS:
                self.timed_rows.append(row)
        for tag, differences in by_tag.items():
            self.differences.setdefault(tag, []).extend(each.value for each in differences)
            worst = [*self.worst.get(tag, []), *differences]
            self.worst[tag] = nlargest(WORST_ROWS, worst, key=Difference.size)

    def validate(self, entries: list[Entry]) -> list[tuple[Entry, Row]]:
        """Return the entries whose record the record type accepts, with their rows."""
        results = self.validator.validate([to_record(entry) for entry in entries])
        valid = []
        for entry, result in zip(entries, results, strict=True):
            if isinstance(result, tuple):
                valid.append((entry, result))
            else:
                self.refuse(entry, [message for _, message in result])
        return valid

    def refuse(self, entry: Entry, reasons: list[str]) -> None:
        """Count a record that the service would refuse, and the request that it is of."""
        self.n_refused += 1
        self.refused_requests[entry["timestamp"], entry["request_id"]] = None
        self.reasons.update(reasons)


def to_record(entry: Entry) -> dict[str, object]:
    """Return the record that a line of the log is about."""
    return {name: value for name, value in entry.items() if name not in LOG_COLUMNS}


def measure_latency(models: dict[str, Regressor], rows: list[Row]) -> dict[str, np.ndarray]:
    """Return the milliseconds of each model for each row, predicted in turn and one by one."""
    times: dict[str, list[float]] = {name: [] for name in models}
    for row in [*rows[:WARM_UP_ROWS], *rows]:
        for name, model in models.items():
            start = perf_counter()
            model.predict([row])
            times[name].append(1000 * (perf_counter() - start))
    return {name: np.array(each[-len(rows) :]) for name, each in times.items()}
