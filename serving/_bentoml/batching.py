"""Predict the rows of requests in batches, on the adaptive batching of BentoML's dispatcher."""

import asyncio
from collections.abc import Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from math import inf
from time import perf_counter
from typing import Any

from bentoml import server_context
from bentoml._internal.marshal.dispatcher import Optimizer
from prometheus_client import Histogram

from serving.errors import TooManyRequests
from serving.isolation import Batch, FailureHistory, ModelFailedError
from serving.observability.prediction_metrics import BATCH_MODEL_SECONDS, BATCH_QUEUE_SECONDS
from serving.records import Row, WhatIfRow

# A single row runs on the event loop if the model took at most this long for the last single row:
# this saves the switch to a thread and back. A slower model runs in a thread, because on the event
# loop it would block all other requests. (So does a fast model that hangs on a single row.) Several
# rows always run in a thread: on the event loop they were no faster.
MAX_INLINE_SECONDS = 0.005

# By name of the Service. Each application would create its histogram under the same name, which the
# Prometheus client allows only once in a process; tests create several applications.
batch_size_histograms: dict[str, Any] = {}


class Batcher:
    """Predicts rows with one API method of a Service, together with the rows of other requests.

    A request in a batch may be a part of an array: BentoML's dispatcher splits an array that does
    not fit into the batch, and joins its predictions.
    """

    def __init__(
        self,
        factory: Any,  # BentoML's `ServiceAppFactory`
        api_name: str,
        max_queue: int,  # requests
        timeout: float,  # seconds
        open_requests: Sized,  # of uvicorn: one task for each request in progress, to any path
    ) -> None:
        self.factory = factory
        self.api = factory.service.apis[api_name]
        self.max_queue = max_queue
        self.timeout = timeout
        self.open_requests = open_requests
        self.pending = 0  # requests that wait for their predictions
        self.failure_history = FailureHistory()
        self.single_row_seconds = inf  # of the last batch of one row; the first runs in a thread
        self.executor = ThreadPoolExecutor(1)
        self.dispatcher = factory.dispatchers[api_name]
        self.dispatcher.get_batch_size = len  # the number of rows
        queue_seconds = BATCH_QUEUE_SECONDS.labels(self.api.route)
        # Only the optimizer gets BentoML's `max_latency`, for its first estimates. The dispatcher
        # would cancel requests after that time; `ServiceApp` cancels them after REQUEST_TIMEOUT.
        self.dispatcher.optimizer = MeasuringOptimizer(self.dispatcher.max_latency, queue_seconds)
        self.dispatcher.max_latency = inf
        # Puts rows into the queue, and returns their predictions.
        self.predict_queued = self.dispatcher(self.process_batch)
        self.model_seconds = BATCH_MODEL_SECONDS.labels(self.api.route)

    async def predict(self, rows: list[Row]) -> list[float]:
        """Predict the rows of a request in a batch.

        A single row of a fast model skips the queue if its API has no other request.
        Raise TooManyRequests, ModelFailedError or BatchTimeoutError.
        """
        self.check_queue()
        self.pending += 1
        try:
            if self.runs_inline([rows]) and await self.remains_only_request():
                return await self.predict_alone(rows)
            return await self.predict_queued(rows)
        finally:
            self.pending -= 1

    def check_queue(self) -> None:
        """Raise TooManyRequests if the queue is full.

        MAX_CONCURRENCY alone does not limit the queue: a request that timed out no longer counts,
        but stays in the queue. Such requests are removed here from the front of the queue. Two
        kinds stay, and are predicted in vain: a request behind a live one; and the rest of an array
        whose first part is already in a batch. The dispatcher has queued that rest with a future of
        its own, which the timeout of the request does not cancel.
        """
        queue = self.dispatcher._queue
        while queue and queue[0].future.done():
            queue.popleft()
        if len(queue) >= self.max_queue:
            raise TooManyRequests

    async def predict_alone(self, rows: list[Row]) -> list[float]:
        """Predict the rows of a request in a batch of their own, without the queue."""
        (outcome,) = await self.process_batch([rows])
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def remains_only_request(self) -> bool:
        """Return whether this is the only request of its API.

        If it seems to be, but other requests are open, let them run to their next `await` first:
        one of them may be a prediction of this API that has not called `predict` yet.
        """
        if self.is_only_request() and len(self.open_requests) > 1:
            await asyncio.sleep(0)
        return self.is_only_request()

    def is_only_request(self) -> bool:
        """Return whether this API has no other pending request, and no running batch."""
        return self.pending == 1 and not self.dispatcher._sema.is_locked()

    def runs_inline(self, requests: Sequence[list[Row]]) -> bool:
        """Return whether to predict requests on the event loop instead of in a thread."""
        is_single_row = len(requests) == 1 and len(requests[0]) == 1
        return is_single_row and self.single_row_seconds <= MAX_INLINE_SECONDS

    async def process_batch(
        self, requests: Sequence[list[Row]]
    ) -> Sequence[list[float] | ModelFailedError]:
        """Run a batch on the event loop or in a thread; return the outcome of each request."""
        self.requests_per_batch.observe(len(requests))
        if self.runs_inline(requests):
            return self.run_batch(requests)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.executor, self.run_batch, requests)

    def run_batch(self, requests: Sequence[list[Row]]) -> Sequence[list[float] | ModelFailedError]:
        """Predict and count the rows of requests; return the predictions of each request.

        If the model is broken, return a ModelFailedError for each request. BentoML's dispatcher
        raises it or, for a batch that skips the queue, `predict_alone` does.
        """
        metrics = self.instance.prediction_metrics
        # A row is unusual if it has a value outside the training data. After a recent failure, the
        # batch begins with separate calls for usual and unusual rows.
        batch = Batch(
            requests,
            self.call_api,
            metrics.is_outside,
            self.instance.golden_row,
            self.timeout,
            split_unusual=self.failure_history.failed_recently(),
        )
        start = perf_counter()
        try:
            outcomes = batch.run()
        except ModelFailedError as error:
            return [error.copy() for _ in requests]
        finally:
            self.failure_history.add(batch.failed_seconds)
            if len(batch.rows) == 1:
                self.single_row_seconds = perf_counter() - start
        rows, predictions = drop_what_if(*batch.predicted())
        if rows:
            metrics.observe(rows, predictions)
        return outcomes

    def call_api(self, rows: list[Row]) -> list[float]:
        """Call the API method with rows, and measure the time; raise whatever it raises."""
        start = perf_counter()
        try:
            predictions = self.api.func(self.instance, rows)
        finally:
            self.model_seconds.observe(perf_counter() - start)
        if len(predictions) != len(rows):
            counts = f"{len(predictions)} predictions for {len(rows)} rows"
            raise ValueError(f"The API method {self.api.name} returned {counts}")
        return predictions

    @cached_property
    def instance(self) -> Any:
        """The instance of the user's class, which BentoML creates when the worker starts.

        `worker.prepare_instance` has set its attributes `golden_row` and `prediction_metrics`.
        """
        return self.factory._service_instance

    @cached_property
    def requests_per_batch(self) -> Any:
        """BentoML's histogram `adaptive_batch_size`, which counts requests, not rows."""
        name = self.factory.service.name
        if name not in batch_size_histograms:
            batch_size_histograms[name] = self.factory.adaptive_batch_size_hist
        return batch_size_histograms[name].labels(
            runner_name=name,
            worker_index=server_context.worker_index,
            method_name=self.api.name,
            service_version=server_context.bento_version,
            service_name=server_context.bento_name,
        )


def drop_what_if(rows: list[Row], predictions: list[float]) -> tuple[list[Row], list[float]]:
    """Return rows and their predictions, both without those of what-if requests."""
    if WhatIfRow not in set(map(type, rows)):
        return rows, predictions
    pairs = zip(rows, predictions, strict=True)
    kept = [pair for pair in pairs if not isinstance(pair[0], WhatIfRow)]
    return [row for row, _ in kept], [prediction for _, prediction in kept]


class MeasuringOptimizer(Optimizer):
    """BentoML's optimizer of batches, which also observes how long they wait."""

    def __init__(self, max_latency: float, queue_seconds: Histogram) -> None:
        super().__init__(max_latency)
        self.queue_seconds = queue_seconds

    def log_outbound(self, n: int, wait: float, duration: float) -> None:
        """Observe the wait of a batch's first request, and learn from the batch.

        `n` requests; `wait` and `duration` in seconds.
        """
        if wait:  # BentoML reports 0 for the first batches
            self.queue_seconds.observe(wait)
        super().log_outbound(n, wait, duration)
