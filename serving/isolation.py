"""Predict a batch: a record that the model can't predict fails only its own request."""

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import accumulate
from math import inf, isfinite, nan
from time import perf_counter
from typing import Self

from serving.records import Row

# Stop dividing the rows of a request once this many have failed: to find each takes several calls
# of the model.
MAX_UNPREDICTED = 20

# For the delay of 422 responses (`FailureHistory`).
DELAY_FACTOR = 20  # times the duration of the failed calls of the model
MAX_DELAY_SECONDS = 1
# For this long after a failure, batches begin with separate calls for usual rows and for unusual
# rows, which have a value outside the training data.
RECENT_SECONDS = 10


class Unpredicted(float):
    """A NaN in place of a prediction, with the reason why there is none.

    It is a float, so that predictions are a list of floats whether or not all succeeded.
    `failed_alone`: the model failed on this row alone, or its prediction was not finite. False: it
    failed on several rows together that were not divided further (MAX_UNPREDICTED).
    """

    error: Exception
    failed_alone: bool

    def __new__(cls, error: Exception, failed_alone: bool) -> Self:
        """Return a NaN that carries an exception."""
        instance = super().__new__(cls, nan)
        instance.error = error
        instance.failed_alone = failed_alone
        return instance


class NonFinitePredictionError(ArithmeticError):
    """The model predicted NaN or infinity."""


class BatchError(Exception):
    """The whole batch has failed."""


class ModelFailedError(BatchError):
    """The model fails even on the golden row.

    The cause is NonFinitePredictionError if the golden prediction is not finite. Otherwise it is
    the exception for a row of the batch or, if there was none, for the golden row.
    """

    def copy(self) -> Self:
        """Return a copy: if several requests raised one exception, it would collect tracebacks."""
        copied = type(self)()
        copied.__cause__ = self.__cause__
        return copied


class BatchTimeoutError(BatchError):
    """The batch took longer than REQUEST_TIMEOUT; its requests have been answered with 504."""


class Batch:
    """The requests of one batch, and the predictions that they have so far.

    If the model raises an exception for all rows together, the batch is divided until each row that
    the model can't predict has failed alone: first into usual rows and unusual rows, which have a
    value outside the training data (`PredictionMetrics.is_outside`), then into halves. Mostly an
    unusual row causes the exception, so that few calls are needed. A request with MAX_UNPREDICTED
    failed rows is divided no further.
    """

    def __init__(
        self,
        # The rows of each request; BentoML's dispatcher splits a request that does not fit.
        requests: Sequence[list[Row]],
        predict: Callable[[list[Row]], list[float]],
        is_unusual: Callable[[Row], bool],
        golden_row: Row,  # a training row that the model could predict during training
        seconds: float,  # time limit of the batch
        split_unusual: bool,  # start with separate calls for usual and unusual rows
    ) -> None:
        self.requests = requests
        self.predict = predict
        self.is_unusual = is_unusual
        self.golden_row = golden_row
        self.end = perf_counter() + seconds
        self.split_unusual = split_unusual
        self.rows = [row for request in requests for row in request]
        self.predictions: list[float] = []
        self.request_numbers: list[int] = []  # the index of the request, by row
        self.n_unpredicted: Counter[int] = Counter()  # failed rows, by index of the request
        self.complete = False  # whether each row has a prediction
        self.model_works = False  # whether a call for this batch has made a finite prediction
        self.failed_seconds = 0.0  # duration of the calls that raised an exception

    def run(self) -> list[list[float]]:
        """Return the predictions of each request, `Unpredicted` for rows that failed.

        Raise BatchTimeoutError or, as `check_model` does, ModelFailedError.
        """
        error = None
        if not self.split_unusual:
            self.predictions, error = self.call_model(self.rows)
        if self.split_unusual or error:
            self.predict_usual_and_unusual(error)
        self.complete = all(map(isfinite, self.predictions))
        if not self.complete:
            self.predictions = list(map(mark_non_finite, self.predictions))
        ends = accumulate(map(len, self.requests))
        return [
            self.predictions[end - len(request) : end]
            for request, end in zip(self.requests, ends, strict=True)
        ]

    def predicted(self) -> tuple[list[Row], list[float]]:
        """Return the rows that have a prediction, and their predictions."""
        if self.complete:
            return self.rows, self.predictions
        pairs = zip(self.rows, self.predictions, strict=True)
        kept = [(row, prediction) for row, prediction in pairs if isfinite(prediction)]
        return [row for row, _ in kept], [prediction for _, prediction in kept]

    def predict_usual_and_unusual(self, error: Exception | None) -> None:
        """Predict usual rows and unusual rows in separate parts.

        `error` is the exception for all rows together, or None if they were not tried.
        """
        self.predictions = [nan] * len(self.rows)
        self.request_numbers = [
            number for number, request in enumerate(self.requests) for _ in request
        ]
        parts: dict[bool, list[int]] = {False: [], True: []}
        for n, row in enumerate(self.rows):
            parts[self.is_unusual(row)].append(n)
        usual, unusual = parts[False], parts[True]
        if error and not (usual and unusual):  # the only part is the batch, which has just failed
            self.divide(range(len(self.rows)), error)
            return
        for part in filter(None, [usual, unusual]):
            self.predict_part(part)

    def predict_part(self, part: Sequence[int]) -> None:
        """Predict the rows with these indices together or, if the model fails, in smaller parts."""
        predictions, error = self.call_model([self.rows[n] for n in part])
        if error:
            self.divide(part, error)
            return
        for n, prediction in zip(part, predictions, strict=True):
            self.predictions[n] = prediction

    def divide(self, part: Sequence[int], error: Exception) -> None:
        """Predict the halves of a part that has failed.

        If it is one row, or its request is at the limit, mark its rows as failed instead; raise
        ModelFailedError if the model is broken.
        """
        if len(part) > 1 and not self.reached_limit(part):
            middle = len(part) // 2
            self.predict_part(part[:middle])
            self.predict_part(part[middle:])
            return
        self.check_model(error)
        for n in part:
            self.predictions[n] = Unpredicted(error, failed_alone=len(part) == 1)
            self.n_unpredicted[self.request_numbers[n]] += 1

    def reached_limit(self, part: Sequence[int]) -> bool:
        """Return whether a part belongs to one request, with MAX_UNPREDICTED failed rows."""
        first, last = self.request_numbers[part[0]], self.request_numbers[part[-1]]
        return first == last and self.n_unpredicted[first] >= MAX_UNPREDICTED

    def call_model(self, rows: list[Row]) -> tuple[list[float], Exception | None]:
        """Return the predictions for rows, or the exception that the model raises.

        Raise BatchError.
        """
        start = perf_counter()
        if start > self.end:
            raise BatchTimeoutError
        try:
            predictions = self.predict(rows)
        except Exception as error:  # a model may raise any
            self.failed_seconds += perf_counter() - start
            return [], error
        if not any(map(isfinite, predictions)):  # because of the records, or of the model?
            self.check_model(None)
        self.model_works = True
        return predictions, None

    def check_model(self, error: Exception | None) -> None:
        """Raise ModelFailedError if no call has succeeded yet, and the golden row fails, too.

        `error` is the exception for a row that failed alone, or None if a call made no finite
        prediction.
        """
        if self.model_works:
            return
        try:
            (prediction,) = self.predict([self.golden_row])
        except Exception as golden_error:
            raise ModelFailedError from error or golden_error
        if not isfinite(prediction):
            raise ModelFailedError from NonFinitePredictionError()
        self.model_works = True


class FailureHistory:
    """The recent failures in the batches of one API, and the delay of its 422 responses.

    The delay limits the share of the model's time that failed calls take. All 422 responses of the
    API wait until one common time, which each batch with failed calls moves back by DELAY_FACTOR
    times their duration. With one client that waits for each response, failed calls take about
    1 / DELAY_FACTOR of the time: after 10 ms of failed calls, its response waits for 200 ms. The
    wait is at most MAX_DELAY_SECONDS, so the share is larger if one batch fails for over 50 ms, or
    if many clients together move the time back by more than 1 s. Without the delay, three clients
    with such records halved the throughput of 24 others (tests/stress/unpredictable_records.py).
    """

    def __init__(self) -> None:
        self.last = -inf  # time of the last failure, in seconds of perf_counter()
        self.delayed_until = -inf  # all 422 responses of the API wait until then; the same clock

    def add(self, failed_seconds: float) -> None:
        """Add the duration of a batch's failed calls; 0 if none failed."""
        if failed_seconds:
            self.last = perf_counter()
            until = max(self.last, self.delayed_until) + DELAY_FACTOR * failed_seconds
            self.delayed_until = min(until, self.last + MAX_DELAY_SECONDS)

    def failed_recently(self) -> bool:
        """Return whether a call has failed in the last RECENT_SECONDS."""
        return perf_counter() < self.last + RECENT_SECONDS

    def delay_seconds(self) -> float:
        """Return how long to delay the response to a record that the model can't predict."""
        return max(0.0, self.delayed_until - perf_counter())


def mark_non_finite(prediction: float) -> float:
    """Return a finite prediction as it is, and an `Unpredicted` for any other."""
    if isfinite(prediction) or isinstance(prediction, Unpredicted):
        return prediction
    error = NonFinitePredictionError(f"The prediction is {prediction}")
    return Unpredicted(error, failed_alone=True)
