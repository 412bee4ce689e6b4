"""Predict the requests of a batch, so that a record which the model can't predict fails alone."""

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import accumulate
from math import inf, isfinite, nan
from time import perf_counter
from typing import Self

from serving.errors import MAX_UNPREDICTED
from serving.records import Row

# Responses to records that the model can't predict are delayed, so that a few callers which wait
# for their response take about a twentieth of the model's time: without the delay, three such
# callers halved the responses per second of 24 others.
DELAY_FACTOR, MAX_DELAY_SECONDS = 20, 1
RECENT_SECONDS = 10


class Unpredicted(float):
    """NaN in the place of a prediction, with the exception that says why there is none.

    `failed_alone` is False for a row of an array that has been searched no further.
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
    """No request of the batch gets a prediction."""


class ModelFailedError(BatchError):
    """The model predicts nothing, not even a record of its training; the cause says why."""

    def copy(self) -> Self:
        """Return an equal exception: one that several requests raise collects the frames of all."""
        copied = type(self)()
        copied.__cause__ = self.__cause__
        return copied


class BatchTimeoutError(BatchError):
    """The time of the batch is over: its requests have got their 504."""


class Batch:
    """One attempt to predict the requests that form a batch.

    If the model raises an exception for all rows together, the batch is divided until each row that
    the model can't predict has failed alone: first into rows of usual and of unusual values, then
    into halves. Usually a row of unusual values is at fault, so that few calls are needed. A
    request with MAX_UNPREDICTED such rows is divided no further.
    """

    def __init__(
        self,
        requests: Sequence[list[Row]],
        predict: Callable[[list[Row]], list[float]],
        is_unusual: Callable[[Row], bool],
        golden_row: Row,  # the model has predicted it at training
        seconds: float,  # after which nobody waits for the predictions
        suspicious: bool,  # a batch has failed lately: predict unusual rows apart
    ) -> None:
        self.requests = requests
        self.predict = predict
        self.is_unusual = is_unusual
        self.golden_row = golden_row
        self.end = perf_counter() + seconds
        self.suspicious = suspicious
        self.rows = [row for request in requests for row in request]
        self.predictions: list[float] = []
        self.request_numbers: list[int] = []  # of the rows
        self.n_unpredicted: Counter[int] = Counter()  # by request number
        self.complete = False  # each row has a prediction
        self.model_works = False  # it has made a prediction in this attempt
        self.failed_seconds = 0.0  # the time of the calls that raised an exception

    def run(self) -> list[list[float]]:
        """Return the predictions of each request; those that failed are `Unpredicted`.

        Raise ModelFailedError if it is the model that fails, whatever the record, and
        BatchTimeoutError.
        """
        error = None
        if not self.suspicious:
            self.predictions, error = self.call_model(self.rows)
        if self.suspicious or error:
            self.predict_apart(error)
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

    def predict_apart(self, error: Exception | None) -> None:
        """Predict the usual and the unusual rows; if there is an error, they failed together."""
        self.predictions = [nan] * len(self.rows)
        self.request_numbers = [
            number for number, request in enumerate(self.requests) for _ in request
        ]
        parts: dict[bool, list[int]] = {False: [], True: []}
        for n, row in enumerate(self.rows):
            parts[self.is_unusual(row)].append(n)
        if error and not all(parts.values()):  # the same rows would fail again
            self.divide(range(len(self.rows)), error)
            return
        for part in filter(None, parts.values()):
            self.predict_part(part)

    def predict_part(self, part: Sequence[int]) -> None:
        """Predict rows, given by their numbers, together or, if that fails, in parts."""
        predictions, error = self.call_model([self.rows[n] for n in part])
        if error:
            self.divide(part, error)
            return
        for n, prediction in zip(part, predictions, strict=True):
            self.predictions[n] = prediction

    def divide(self, part: Sequence[int], error: Exception) -> None:
        """Predict the halves of a part that has failed; a single row gets no prediction."""
        requests = {self.request_numbers[part[0]], self.request_numbers[part[-1]]}
        over_limit = len(requests) == 1 and self.n_unpredicted[requests.pop()] >= MAX_UNPREDICTED
        if len(part) > 1 and not over_limit:
            middle = len(part) // 2
            self.predict_part(part[:middle])
            self.predict_part(part[middle:])
            return
        self.check_model(error)
        for n in part:
            self.predictions[n] = Unpredicted(error, failed_alone=len(part) == 1)
            self.n_unpredicted[self.request_numbers[n]] += 1

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
        if not any(map(isfinite, predictions)):
            self.check_model(None)
        self.model_works = True
        return predictions, None

    def check_model(self, error: Exception | None) -> None:
        """Raise ModelFailedError, caused by an error, unless the model predicts the golden row."""
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
    """What the batches of one API have lost by rows that the model can't predict."""

    def __init__(self) -> None:
        self.last = -inf  # times of perf_counter()
        self.delayed_until = -inf

    def add(self, failed_seconds: float) -> None:
        """Add the time of a batch's calls that raised an exception, if there were any."""
        if failed_seconds:
            self.last = perf_counter()
            until = max(self.last, self.delayed_until) + DELAY_FACTOR * failed_seconds
            self.delayed_until = min(until, self.last + MAX_DELAY_SECONDS)

    def are_recent(self) -> bool:
        """Tell whether a batch has failed lately, so that the next one may fail, too."""
        return perf_counter() < self.last + RECENT_SECONDS

    def delay_seconds(self) -> float:
        """Return how long the response to a record without a prediction has to wait."""
        return max(0.0, self.delayed_until - perf_counter())


def mark_non_finite(prediction: float) -> float:
    """Return a prediction that is finite, otherwise an `Unpredicted`."""
    if isfinite(prediction) or isinstance(prediction, Unpredicted):
        return prediction
    error = NonFinitePredictionError(f"The prediction is {prediction}")
    return Unpredicted(error, failed_alone=True)
