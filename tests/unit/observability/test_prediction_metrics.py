"""Metrics of predictions, batches and rejected requests."""

import pytest
from prometheus_client import REGISTRY, Histogram

from serving._bentoml.prediction_histogram import PredictionHistogram
from serving.observability.prediction_metrics import PredictionMetrics
from serving.record_errors import ERROR_KINDS

BOUNDS = (10.0, 20.5, 30.0)


def histogram_samples(histogram):
    """Return the buckets, the sum and the count of a histogram."""
    (family,) = histogram.collect()
    values = {
        sample.labels.get("le") or sample.name.removeprefix(f"{family.name}_"): sample.value
        for sample in family.samples
    }
    del values["created"]
    return values


@pytest.mark.parametrize(
    "values",
    [[], [10.0], [-1e9, 9.9, 10.1, 20.5, 20.6, 30.0, 30.1, 1e9], [25.0] * 1000],
    ids=["no value", "bound", "all buckets", "1000 values"],
)
def test_observe_all_counts_like_observe(values):
    """In the same buckets, which include their upper bounds, and with the same sum."""
    # A metric starts with the values in its file: each case needs names of its own.
    name = f"{len(values)}_values"
    together = PredictionHistogram(f"together_{name}", "", buckets=BOUNDS, registry=None)
    singly = Histogram(f"singly_{name}", "", buckets=BOUNDS, registry=None)
    together.observe_all(values)
    for value in values:
        singly.observe(value)
    assert histogram_samples(together) == pytest.approx(histogram_samples(singly))


def count_outside(feature):
    """Return how many values of a feature were counted as outside the training range."""
    labels = {"feature": feature}
    return REGISTRY.get_sample_value("feature_outside_training_range_total", labels) or 0


@pytest.fixture
def observe():
    """A function that observes rows, and returns the increase of the counter of each feature.

    The features are a number, a category and a boolean. The training data have numbers from 1 to 3,
    diesel and petrol, and only False.
    """
    names = ("age", "fuel", "repaired")
    histogram = PredictionHistogram("counted_values", "", buckets=BOUNDS, registry=None)
    metrics = PredictionMetrics(
        names, {"age": [1, 3]}, {"fuel": ["diesel", "petrol"], "repaired": [False]}, histogram
    )

    def observe(*rows):
        before = [count_outside(name) for name in names]
        metrics.observe(rows, [15.0] * len(rows))
        return [count_outside(name) - count for name, count in zip(names, before, strict=True)]

    return observe


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        pytest.param([(2, "petrol", False)], [0, 0, 0], id="inside"),
        pytest.param([(1, "petrol", False), (3.0, "diesel", False)], [0, 0, 0], id="at the bounds"),
        pytest.param([(0.9, "petrol", False)], [1, 0, 0], id="below"),
        pytest.param([(1e308, "petrol", False)], [1, 0, 0], id="above"),
        pytest.param([(0, "gas", True)], [1, 1, 1], id="all features"),
        pytest.param(
            [(0, "gas", False), (2, "gas", False), (9, "petrol", True)],
            [2, 2, 1],
            id="several rows",
        ),
    ],
)
def test_values_outside_the_training_range_are_counted_by_feature(observe, rows, expected):
    """So are categories and booleans that the training data lack."""
    assert observe(*rows) == expected


def count_errors():
    """Return how many requests were counted under each kind of error."""
    return {
        kind: REGISTRY.get_sample_value("request_faults_total", {"kind": kind})
        for kind in ERROR_KINDS
    }


RECORD_START = (
    b'{"LSTAT": 1, "CRIM": 1, "ZN": 1, "INDUS": 1, "CHAS": 1, "NOX": 1, "RM": 1, "AGE": 1, '
)


RECORD_END = b'"DIS": 1, "RAD": 1, "TAX": 1, "PTRATIO": 1, "B": 1'


REQUESTS = {
    "invalid JSON": ("/predict", b"{", {"json"}),
    "number instead of a record": ("/predict", b"1", {"type"}),
    "only an unknown feature": ("/predict", b'{"POOL": 1}', {"missing", "unknown"}),
    "string": ("/predict", RECORD_START + RECORD_END.replace(b"1", b'"1"', 1) + b"}", {"type"}),
    "below minimum": (
        "/predict",
        RECORD_START + RECORD_END.replace(b"1", b"-1", 1) + b"}",
        {"value"},
    ),
    "neither 0 nor 1": (
        "/predict",
        RECORD_START.replace(b'"CHAS": 1', b'"CHAS": 2') + RECORD_END + b"}",
        {"value"},
    ),
    "NaN": ("/predict", RECORD_START + RECORD_END.replace(b"1", b"NaN", 1) + b"}", {"value"}),
    "repeated feature": ("/predict", RECORD_START + b'"RM": 2, ' + RECORD_END + b"}", {"repeated"}),
    "empty array": ("/predict_batch", b"[]", {"empty"}),
    "too many values": ("/predict", b"," * 200, {"too_many"}),
    "too many errors": ("/predict_batch", b"[" + b"{}," * 99 + b"{}]", {"too_many"}),
    "two errors of one kind": ("/predict_batch", b"[1, 2]", {"type"}),
    "valid record": ("/predict", RECORD_START + RECORD_END + b"}", set()),
}


@pytest.mark.parametrize(("path", "body", "kinds"), REQUESTS.values(), ids=REQUESTS)
def test_rejected_request_is_counted_once_under_each_kind_of_error(path, body, kinds, client):
    """The counters of all other kinds stay the same."""
    before = count_errors()
    response = client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == (400 if kinds else 200)
    assert count_errors() == {kind: count + (kind in kinds) for kind, count in before.items()}
