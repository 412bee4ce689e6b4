"""Batches of which the model fails on some rows, on all rows, or at random."""

import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving import isolation
from serving.isolation import (
    MAX_UNPREDICTED,
    Batch,
    BatchTimeoutError,
    FailureHistory,
    ModelFailedError,
    NonFinitePredictionError,
    Unpredicted,
)

GOOD, BAD, INFINITE = ("good",), ("bad",), ("infinite",)


class Model:
    """Predicts the number of calls so far, infinity for INFINITE; raises if a row is BAD."""

    def __init__(self):
        self.calls = []

    def predict(self, rows):
        """Predict rows."""
        self.calls.append(len(rows))
        if BAD in rows:
            raise ValueError("bad")
        return [math.inf if row == INFINITE else float(len(self.calls)) for row in rows]


def make_batch(requests, predict, **changes):
    """Return a batch whose unusual rows are those that are BAD."""
    arguments = {
        "is_unusual": lambda row: row == BAD,
        "golden_row": GOOD,
        "seconds": 60,
        "split_unusual": False,
    }
    return Batch(requests, predict, **arguments | changes)


@given(
    st.lists(st.lists(st.sampled_from([GOOD, BAD, INFINITE]), min_size=1, max_size=12), min_size=1),
    st.booleans(),
    st.sampled_from([lambda row: row == BAD, lambda row: False, lambda row: row == GOOD]),
)
def test_only_failing_rows_get_no_prediction(requests, split_unusual, is_unusual):
    """However they are spread over the requests, and whichever rows count as unusual."""
    batch = make_batch(
        requests, Model().predict, split_unusual=split_unusual, is_unusual=is_unusual
    )
    for rows, predictions in zip(requests, batch.run(), strict=True):
        assert len(rows) == len(predictions)
        for row, prediction in zip(rows, predictions, strict=True):
            assert math.isfinite(prediction) == (row == GOOD)
            if row != GOOD:
                assert isinstance(prediction, Unpredicted)
                assert isinstance(prediction.error, ValueError if row == BAD else ArithmeticError)


@pytest.mark.parametrize(
    ("split_unusual", "unusual", "calls"),
    [
        # All rows, the usual rows, the bad row.
        pytest.param(False, [BAD], [64, 63, 1], id="unusual row"),
        pytest.param(True, [BAD], [63, 1], id="unusual row after a failure"),
        # All rows, first halves down to the bad row, the golden row, then the second halves.
        pytest.param(False, [], [64, 32, 16, 8, 4, 2, 1, 1, 1, 2, 4, 8, 16, 32], id="usual row"),
    ],
)
def test_one_failing_row_costs_few_calls(split_unusual, unusual, calls):
    """The calls that succeed give the predictions of the other rows."""
    model = Model()
    requests = [[BAD], *[[GOOD]] * 63]
    batch = make_batch(
        requests, model.predict, split_unusual=split_unusual, is_unusual=lambda row: row in unusual
    )
    batch.run()
    assert model.calls == calls


def test_batch_without_failure_is_one_call():
    """Even if a recent batch has failed."""
    for split_unusual in (False, True):
        model = Model()
        make_batch([[GOOD]] * 64, model.predict, split_unusual=split_unusual).run()
        assert model.calls == [64]


def test_array_is_not_divided_beyond_the_limit():
    """1000 failing rows would take 2000 calls. The other request of the batch is predicted."""
    model = Model()
    batch = make_batch([[BAD] * 1000, [GOOD]], model.predict)
    array, other = batch.run()
    assert all(isinstance(each, Unpredicted) for each in array)
    assert MAX_UNPREDICTED <= sum(each.failed_alone for each in array) <= MAX_UNPREDICTED + 2
    assert batch.predicted() == ([GOOD], other)
    assert len(model.calls) < 4 * MAX_UNPREDICTED
    assert math.isfinite(other[0])


@pytest.mark.parametrize("requests", [[[GOOD]], [[GOOD] * 50], [[GOOD]] * 100], ids=len)
def test_model_that_fails_on_every_row_raises_after_few_calls(requests):
    """The golden row fails, too: the model is broken, not the records."""
    calls = []

    def fail(rows):
        calls.append(rows)
        raise MemoryError

    with pytest.raises(ModelFailedError) as caught:
        make_batch(requests, fail).run()
    assert isinstance(caught.value.__cause__, MemoryError)
    assert len(calls) <= 10


def test_model_without_any_finite_prediction_raises():
    """The golden row gets NaN, too, so the records are not the reason."""
    with pytest.raises(ModelFailedError) as caught:
        make_batch([[GOOD], [GOOD]], lambda rows: [math.nan] * len(rows)).run()
    assert isinstance(caught.value.__cause__, NonFinitePredictionError)


def test_model_that_fails_at_random_predicts_most_rows():
    """A row is rejected only if the model fails on it alone and predicts others."""
    generator = np.random.default_rng(0)

    def predict(rows):
        if generator.random() < 0.2:
            raise RuntimeError
        return [1.0] * len(rows)

    predictions = []
    for _ in range(200):
        predictions += [y for part in make_batch([[GOOD]] * 24, predict).run() for y in part]
    assert sum(map(math.isfinite, predictions)) > 0.95 * len(predictions)


def test_division_ends_at_the_time_limit_of_the_batch():
    """Otherwise a slow model would go on with requests that have been answered with 504."""
    calls = []

    def fail_slowly(rows):
        calls.append(rows)
        time.sleep(0.05)
        if BAD in rows:
            raise ValueError
        return [1.0] * len(rows)

    with pytest.raises(BatchTimeoutError):
        make_batch([[GOOD, BAD] * 50], fail_slowly, seconds=0.2).run()
    assert len(calls) <= 5


def test_exception_has_no_context():
    """Otherwise the log would repeat the tracebacks of all larger parts that failed."""
    (_, (unpredicted,)) = make_batch([[GOOD], [BAD]], Model().predict).run()
    assert unpredicted.error.__context__ is None


def test_failures_delay_responses_in_proportion(monkeypatch):
    """The delay is 20 times the duration of the failed calls, at most 1 s."""
    now = 1000.0
    monkeypatch.setattr(isolation, "perf_counter", lambda: now)
    failures = FailureHistory()
    failures.add(0.0)
    assert (failures.delay_seconds(), failures.failed_recently()) == (0, False)
    failures.add(0.01)
    failures.add(0.01)
    assert (failures.delay_seconds(), failures.failed_recently()) == (pytest.approx(0.4), True)
    failures.add(10)
    assert failures.delay_seconds() == 1
    now += 60
    assert (failures.delay_seconds(), failures.failed_recently()) == (0, False)
