"""Replay the records of a prediction log with another model, the candidate."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from heapq import nlargest
from operator import attrgetter
from time import perf_counter
from typing import NamedTuple

import numpy as np
from pydantic import BaseModel

from serving.isolation import Unpredicted
from serving.observability import LOG_COLUMNS
from serving.records import Row
from serving.regressor import Regressor
from training.monitoring.prediction_log import Entry
from training.monitoring.validation import Validator
from training.stored_model import StoredModel

LARGEST_CHANGES = 10  # kept for each model in the log
TIMED_ROWS = 1000  # of the log, predicted one at a time
WARM_UP_ROWS = 20


class Change(NamedTuple):
    """A logged prediction and that of the candidate for the same record."""

    entry: Entry
    prediction: float  # of the candidate

    @property
    def change(self) -> float:
        """The prediction of the candidate minus the logged one."""
        return self.prediction - self.entry["prediction"]

    @property
    def abs_change(self) -> float:
        """The absolute change."""
        return abs(self.change)


class LastPrediction(NamedTuple):
    """When the last prediction was made, and by which model."""

    timestamp: str = ""
    model_tag: str = ""


class ReplayResults:
    """Accumulated results of the entries that were replayed."""

    def __init__(self, record_type: type[BaseModel], candidate: StoredModel) -> None:
        self.validator = Validator(record_type)
        self.candidate = candidate
        self.n_records = 0
        self.n_requests = 0
        self.n_rejected = 0  # records
        # Time and ID, since a client may use an ID again. A dict keeps their order.
        self.rejected_requests: dict[tuple[str, str], None] = {}
        self.reasons: Counter[str] = Counter()
        self.last = LastPrediction()
        self.changes: defaultdict[str, list[float]] = defaultdict(list)  # by the model in the log
        self.largest: defaultdict[str, list[Change]] = defaultdict(list)
        self.timed_rows: list[Row] = []

    def add(self, entries: Sequence[Entry]) -> None:
        """Validate and predict the records of some entries; raise TrainingError."""
        self.count(entries)
        valid = self.validate(entries)
        predictions = self.candidate.predict([row for _, row in valid])
        changes: defaultdict[str, list[Change]] = defaultdict(list)
        for (entry, row), prediction in zip(valid, predictions, strict=True):
            if isinstance(prediction, Unpredicted):
                reason = f"The model can't predict the record: {type(prediction.error).__name__}"
                self.reject(entry, [reason])
                continue
            changes[entry["model_tag"]].append(Change(entry, prediction))
            if len(self.timed_rows) < TIMED_ROWS:
                self.timed_rows.append(row)
        for tag, of_tag in changes.items():
            self.add_changes(tag, of_tag)

    def count(self, entries: Sequence[Entry]) -> None:
        """Count records and requests, and note the last prediction."""
        self.n_records += len(entries)
        self.n_requests += sum(not entry.get("record_number") for entry in entries)
        predictions = (LastPrediction(each["timestamp"], each["model_tag"]) for each in entries)
        self.last = max([self.last, *predictions])

    def validate(self, entries: Sequence[Entry]) -> list[tuple[Entry, Row]]:
        """Return the entries with a valid record, and its row; reject the others."""
        results = self.validator.validate([to_record(entry) for entry in entries])
        valid = []
        for entry, (row, messages) in zip(entries, results, strict=True):
            if row is None:
                self.reject(entry, messages)
            else:
                valid.append((entry, row))
        return valid

    def reject(self, entry: Entry, reasons: Sequence[str]) -> None:
        """Count a record that the service would reject, and its request."""
        self.n_rejected += 1
        self.rejected_requests[entry["timestamp"], entry["request_id"]] = None
        self.reasons.update(reasons)

    def add_changes(self, tag: str, changes: Sequence[Change]) -> None:
        """Add the changes from the predictions of one model in the log."""
        self.changes[tag] += [each.change for each in changes]
        largest = [*self.largest[tag], *changes]
        self.largest[tag] = nlargest(LARGEST_CHANGES, largest, key=attrgetter("abs_change"))


def to_record(entry: Entry) -> dict[str, object]:
    """Return the record of an entry."""
    return {name: value for name, value in entry.items() if name not in LOG_COLUMNS}


def measure_latency(models: dict[str, Regressor], rows: list[Row]) -> dict[str, np.ndarray]:
    """Return the milliseconds (n_rows,) that each model takes for each row alone.

    The models take turns at each row, so that the load of the machine affects all of them.
    """
    times: dict[str, list[float]] = {name: [] for name in models}
    for row in [*rows[:WARM_UP_ROWS], *rows]:
        for name, model in models.items():
            start = perf_counter()
            model.predict([row])
            times[name].append(1000 * (perf_counter() - start))
    return {name: np.array(each[-len(rows) :]) for name, each in times.items()}
