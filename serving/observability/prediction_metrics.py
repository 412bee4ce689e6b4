"""Prometheus metrics of the predictions, the batches and the served model."""

from collections import Counter as Counts
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.utils import floatToGoString

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
FEATURE_GAPS = Counter("feature_gaps", "Records in which a feature is null", ["feature"])
UNPREDICTABLE_RECORDS = Counter(
    "unpredictable_records", "Valid records that the model could not predict"
)
WHAT_IF_RECORDS = Counter(
    "what_if_records", "Predicted records with the header X-What-If, which are no traffic"
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
        training_values: Mapping[str, Collection[Any]],  # of each other feature
        histogram: Observer,
        nullable: Collection[str] = (),  # the features that may be null
    ) -> None:
        names = list(enumerate(feature_names))
        self.feature_names = feature_names
        ranges = [
            (n, training_range[name][0], training_range[name][1])
            for n, name in names
            if name in training_range
        ]
        self.nullable = [n for n, name in names if name in nullable]
        # Apart, because a comparison with None costs each value some time.
        self.ranges = [each for each in ranges if each[0] not in self.nullable]
        self.nullable_ranges = [each for each in ranges if each[0] in self.nullable]
        self.values = [
            (n, {*training_values[name], None}) for n, name in names if name in training_values
        ]
        for name in nullable:  # a series that begins at its first gap shows no rate for it
            FEATURE_GAPS.labels(name)
        self.histogram = histogram

    def observe(self, rows: Sequence[Sequence[Any]], predictions: Sequence[float]) -> None:
        """Count rows (n_samples, n_features) and their predictions (n_samples,)."""
        if outside := self.outside(rows):
            for n, count in Counts(outside).items():
                OUTSIDE_RANGE.labels(self.feature_names[n]).inc(count)
        if self.nullable:
            gaps = Counts(n for row in rows for n in self.nullable if row[n] is None)
            for n, count in gaps.items():
                FEATURE_GAPS.labels(self.feature_names[n]).inc(count)
        self.histogram.observe_all(predictions)

    def outside(self, rows: Sequence[Sequence[Any]]) -> list[int]:
        """Return the number of the feature of each value that is outside what training had."""
        outside = [
            n
            for row in rows
            for n, least, greatest in self.ranges
            if not least <= row[n] <= greatest
        ]
        outside += [n for row in rows for n, known in self.values if row[n] not in known]
        if self.nullable_ranges:
            outside += [
                n
                for row in rows
                for n, least, greatest in self.nullable_ranges
                if row[n] is not None and not least <= row[n] <= greatest
            ]
        return outside

    def is_outside(self, row: Sequence[Any]) -> bool:
        """Tell whether a value of a row is outside what training had."""
        return bool(self.outside([row]))


def set_served_model(tag: str, prediction_distribution: Mapping[float, float]) -> None:
    """Publish the tag of the model, and the distribution of its predictions at training."""
    SERVED_MODEL.labels(tag).set(1)
    for bound, share in prediction_distribution.items():
        TRAINING_DISTRIBUTION.labels(floatToGoString(bound)).set(share)


def count_request_errors(kinds: Iterable[str]) -> None:
    """Count a rejected request once under each kind of its errors."""
    for kind in kinds:
        REQUEST_ERRORS.labels(kind).inc()


def create_error_series(kinds: Iterable[str]) -> None:
    """Create the series of each kind: one that begins at its first error shows no rate for it."""
    for kind in kinds:
        REQUEST_ERRORS.labels(kind)
