"""Metrics of the predictions, the model and the workers: what is counted, and under what."""

import math
import subprocess
import sys

import pytest
from prometheus_client import REGISTRY, Histogram
from prometheus_client.multiprocess import MultiProcessCollector

from serving._bentoml.prediction_histogram import PredictionHistogram
from serving.observability.metrics import PredictionMetrics, register_worker
from serving.records import ERROR_KINDS

BOUNDS = (10.0, 20.5, 30.0)


def samples(histogram):
    """Return the buckets, the sum and the count of a histogram."""
    (family,) = histogram.collect()
    named = {
        sample.labels.get("le") or sample.name.removeprefix(f"{family.name}_"): sample.value
        for sample in family.samples
    }
    del named["created"]
    return named


@pytest.mark.parametrize(
    "values", [[], [10.0], [-1e9, 9.9, 10.1, 20.5, 20.6, 30.0, 30.1, 1e9], [25.0] * 1000]
)
def test_values_are_counted_together_as_one_by_one(values):
    """In the same buckets, which hold their upper bound, and with the same sum."""
    together = PredictionHistogram("values_together", "", buckets=BOUNDS, registry=None)
    singly = Histogram("values_singly", "", buckets=BOUNDS, registry=None)
    together.observe_all(values)
    for value in values:
        singly.observe(value)
    assert samples(together) == pytest.approx(samples(singly))


def test_values_that_are_not_finite_are_not_counted():
    """One would be in the sum for ever."""
    values = PredictionHistogram("finite_values", "", buckets=BOUNDS, registry=None)
    values.observe_all([math.nan, math.inf, -math.inf, 15.0])
    assert (samples(values)["sum"], samples(values)["count"]) == (15, 1)


def outside(feature):
    """Return how many values of a feature were counted as outside what training had."""
    labels = {"feature": feature}
    return REGISTRY.get_sample_value("feature_outside_training_range_total", labels) or 0


@pytest.fixture
def count():
    """A function that counts records of a number, a category and a boolean; it returns the counts.

    Training had numbers from 1 to 3, petrol and diesel, and no true.
    """
    names = ("age", "fuel", "repaired")
    histogram = PredictionHistogram("counted_values", "", buckets=BOUNDS, registry=None)
    metrics = PredictionMetrics(
        names, {"age": [1, 3]}, {"fuel": ["diesel", "petrol"], "repaired": [False]}, histogram
    )

    def count(*rows):
        before = [outside(name) for name in names]
        metrics.observe(rows, [15.0] * len(rows))
        return [outside(name) - number for name, number in zip(names, before, strict=True)]

    return count


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        pytest.param([(2, "petrol", False)], [0, 0, 0], id="inside"),
        pytest.param([(1, "petrol", False), (3.0, "diesel", False)], [0, 0, 0], id="ends"),
        pytest.param([(0.9, "petrol", False)], [1, 0, 0], id="below"),
        pytest.param([(1e308, "petrol", False)], [1, 0, 0], id="above"),
        pytest.param([(0, "gas", True)], [1, 1, 1], id="each"),
        pytest.param(
            [(0, "gas", False), (2, "gas", False), (9, "petrol", True)], [2, 2, 1], id="batch"
        ),
    ],
)
def test_values_outside_the_training_range_are_counted_by_feature(count, rows, expected):
    """Numbers outside the range, and categories and booleans that training did not have."""
    assert count(*rows) == expected


def faults():
    """Return how many requests were counted under each kind of fault."""
    return {
        kind: REGISTRY.get_sample_value("request_faults_total", {"kind": kind})
        for kind in ERROR_KINDS
    }


HOUSE = b'{"LSTAT": 1, "CRIM": 1, "ZN": 1, "INDUS": 1, "CHAS": 1, "NOX": 1, "RM": 1, "AGE": 1, '
REST = b'"DIS": 1, "RAD": 1, "TAX": 1, "PTRATIO": 1, "B": 1'
FAULTY = {
    "no JSON": ("/predict", b"{", {"json"}),
    "no record": ("/predict", b"1", {"type"}),
    "one feature, none of ours": ("/predict", b'{"POOL": 1}', {"missing", "unknown"}),
    "text": ("/predict", HOUSE + REST.replace(b"1", b'"1"', 1) + b"}", {"type"}),
    "out of bounds": ("/predict", HOUSE + REST.replace(b"1", b"-1", 1) + b"}", {"value"}),
    "neither 0 nor 1": (
        "/predict",
        HOUSE.replace(b'"CHAS": 1', b'"CHAS": 2') + REST + b"}",
        {"value"},
    ),
    "no number": ("/predict", HOUSE + REST.replace(b"1", b"NaN", 1) + b"}", {"value"}),
    "given twice": ("/predict", HOUSE + b'"RM": 2, ' + REST + b"}", {"repeated"}),
    "no records": ("/predict_batch", b"[]", {"empty"}),
    "too many values": ("/predict", b"," * 200, {"too_many"}),
    "too many faults": ("/predict_batch", b"[" + b"{}," * 99 + b"{}]", {"too_many"}),
    "two faults of a kind": ("/predict_batch", b"[1, 2]", {"type"}),
    "none": ("/predict", HOUSE + REST + b"}", set()),
}


@pytest.mark.parametrize(("path", "body", "kinds"), FAULTY.values(), ids=FAULTY)
def test_request_is_counted_once_under_each_kind_of_its_faults(path, body, kinds, client):
    """Whatever it holds, under no other label."""
    before = faults()
    answer = client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == (400 if kinds else 200)
    assert faults() == {kind: count + (kind in kinds) for kind, count in before.items()}


@pytest.fixture
def scraped(tmp_path, monkeypatch):
    """A function that returns the live gauges of a folder of workers' files."""

    def scrape():
        families = MultiProcessCollector(None, str(tmp_path)).collect()
        return {sample.name: sample.value for family in families for sample in family.samples}

    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    return scrape


WORKER = """
import sys
from serving._bentoml.prediction_histogram import PredictionHistogram
from serving.observability.metrics import register_worker
register_worker([])
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def worker(scraped):
    """A function that starts a process that counts itself as a worker."""
    processes = []

    def start():
        process = subprocess.Popen(
            [sys.executable, "-c", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        processes.append(process)
        assert process.stdout.readline() == b"ready\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_dead_worker_is_counted_out_by_its_successor(worker, scraped):
    """Of the gauges; what it has counted stays."""
    first, _ = worker(), worker()
    assert scraped() == scraped() | {"live_workers": 2, "worker_starts_total": 2}
    first.kill()
    first.wait()
    worker()
    assert scraped() == scraped() | {"live_workers": 2, "worker_starts_total": 3}


def test_nothing_is_counted_out_without_a_folder(monkeypatch, tmp_path):
    """As in a test of one's own, which calls the Service's application."""
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR")
    monkeypatch.chdir(tmp_path)
    gauge = tmp_path / "gauge_livesum_0.db"
    gauge.touch()
    register_worker(ERROR_KINDS)
    assert gauge.exists()
