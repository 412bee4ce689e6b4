"""Prometheus metrics of the predictions, the batches and the served model."""

from collections import Counter as Counts
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.utils import floatToGoString

# Histogram buckets in seconds: from one row of a fast model to the default of REQUEST_TIMEOUT.
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)

# The metrics `request_faults` and `feature_gaps` keep their old names, for dashboards and alerts.
REQUEST_ERRORS = Counter(
    "request_faults", "Prediction requests rejected as invalid, by kind of error", ["kind"]
)
OUTSIDE_RANGE = Counter(
    "feature_outside_training_range",
    "Valid values unlike the training data: numbers outside their range, categories, booleans or "
    "texts that do not occur in them",
    ["feature"],
)
MISSING_VALUES = Counter(
    "feature_gaps", "Records in which the value of a feature is missing (null)", ["feature"]
)
UNPREDICTABLE_RECORDS = Counter(
    "unpredictable_records", "Valid records that the model could not predict"
)
WHAT_IF_RECORDS = Counter(
    "what_if_records",
    "Predicted records with the header X-What-If, which other metrics of predictions leave out",
)
BATCH_QUEUE_SECONDS = Histogram(
    "batch_queue_seconds",
    "Time that the first request of a batch spent in the queue",
    ["endpoint"],
    buckets=SECONDS,
)
BATCH_MODEL_SECONDS = Histogram(
    "batch_model_seconds", "Duration of one call of the model", ["endpoint"], buckets=SECONDS
)
SERVED_MODEL = Gauge("served_model_info", "The served model", ["tag"], multiprocess_mode="max")
TRAINING_DISTRIBUTION = Gauge(
    "training_prediction_ratio",
    "Fraction of the predictions for the training data at or below le",
    ["le"],
    multiprocess_mode="max",
)


class Observer(Protocol):
    """A histogram that observes many values at once."""

    def observe_all(self, values: Sequence[float]) -> None:
        """Count each value."""


class PredictionMetrics:
    """Counts predictions, missing values, and values that are unlike the training data.

    A number is unlike them if it is outside the training range; a category, boolean or text, if it
    does not occur in them.
    """

    def __init__(
        self,
        feature_names: Sequence[str],
        training_range: Mapping[str, Sequence[float]],  # minimum, maximum of each number or integer
        training_values: Mapping[str, Collection[Any]],  # of each other feature
        histogram: Observer,  # of the predictions
        nullable: Collection[str] = (),  # names of the nullable features
    ) -> None:
        numbered = list(enumerate(feature_names))
        self.feature_names = feature_names
        self.nullable_indices = [n for n, name in numbered if name in nullable]
        # (feature index, minimum, maximum). Two lists: comparing with None takes time, and only
        # nullable features need it.
        self.ranges: list[tuple[int, float, float]] = []
        self.nullable_ranges: list[tuple[int, float, float]] = []
        for n, name in numbered:
            if name in training_range:
                minimum, maximum = training_range[name]
                ranges = self.nullable_ranges if name in nullable else self.ranges
                ranges.append((n, minimum, maximum))
        self.values = [  # None is never outside: MISSING_VALUES counts it
            (n, {*training_values[name], None}) for n, name in numbered if name in training_values
        ]
        for name in nullable:
            MISSING_VALUES.labels(name)  # creates the series, as in `create_error_series`
        self.histogram = histogram

    def observe(self, rows: Sequence[Sequence[Any]], predictions: Sequence[float]) -> None:
        """Count rows (n_samples, n_features) and their predictions (n_samples,)."""
        if outside := self.find_outside(rows):
            for n, count in Counts(outside).items():
                OUTSIDE_RANGE.labels(self.feature_names[n]).inc(count)
        if self.nullable_indices:
            missing = Counts(n for row in rows for n in self.nullable_indices if row[n] is None)
            for n, count in missing.items():
                MISSING_VALUES.labels(self.feature_names[n]).inc(count)
        self.histogram.observe_all(predictions)

    def find_outside(self, rows: Sequence[Sequence[Any]]) -> list[int]:
        """Return an index for each value outside the training data: that of its feature."""
        outside = [
            n
            for row in rows
            for n, minimum, maximum in self.ranges
            if not minimum <= row[n] <= maximum
        ]
        outside += [n for row in rows for n, known in self.values if row[n] not in known]
        if self.nullable_ranges:
            outside += [
                n
                for row in rows
                for n, minimum, maximum in self.nullable_ranges
                if row[n] is not None and not minimum <= row[n] <= maximum
            ]
        return outside

    def is_outside(self, row: Sequence[Any]) -> bool:
        """Return whether a row has a value outside the training range or the training values."""
        return bool(self.find_outside([row]))


def set_served_model(tag: str, prediction_distribution: Mapping[float, float]) -> None:
    """Publish the model's tag and the distribution of its predictions for the training data."""
    SERVED_MODEL.labels(tag).set(1)
    for bound, share in prediction_distribution.items():
        TRAINING_DISTRIBUTION.labels(floatToGoString(bound)).set(share)


def count_request_errors(kinds: Iterable[str]) -> None:
    """Count a rejected request once for each kind of its errors."""
    for kind in kinds:
        REQUEST_ERRORS.labels(kind).inc()


def create_error_series(kinds: Iterable[str]) -> None:
    """Create each series at 0: PromQL's `rate` misses an increase without a sample before it."""
    for kind in kinds:
        REQUEST_ERRORS.labels(kind)
