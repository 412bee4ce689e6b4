"""Predict through the adaptive batching of BentoML's dispatcher."""

import asyncio
from collections.abc import Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from math import inf, isfinite
from time import perf_counter, time
from typing import Any

from bentoml import server_context
from bentoml._internal.marshal.dispatcher import Optimizer
from prometheus_client import Histogram

from serving.errors import TooManyRequests, UnpredictableError
from serving.isolation import Batch, FailureHistory, ModelFailedError, Unpredicted
from serving.observability.prediction_log import PredictedRequest, PredictionLog
from serving.observability.prediction_metrics import (
    BATCH_MODEL_SECONDS,
    BATCH_QUEUE_SECONDS,
    UNPREDICTABLE_RECORDS,
    WHAT_IF_RECORDS,
)
from serving.records import Row, WhatIfRow

# A single row runs on the event loop if the model took this long at most for the last one: a thread
# would cost more than the prediction. A slower model runs in a thread, because the event loop
# serves nobody else meanwhile. So do batches: on the event loop they were no faster, and a model
# that hangs would block it.
MAX_INLINE_SECONDS = 0.005

# By Service. BentoML creates one for each application, but the Prometheus client takes one for each
# process; tests may create several applications.
batch_size_histograms: dict[str, Any] = {}


class Predictor:
    """Calls one prediction API of a Service for each request, in batches.

    `factory` is BentoML's `ServiceAppFactory`.
    """

    def __init__(
        self,
        factory: Any,
        api_name: str,
        max_queue: int,
        timeout: float,  # seconds
        prediction_log: PredictionLog | None,
        open_requests: Sized,  # of the server
    ) -> None:
        self.factory = factory
        self.api = factory.service.apis[api_name]
        self.max_queue = max_queue
        self.timeout = timeout
        self.prediction_log = prediction_log
        self.open_requests = open_requests
        self.pending = 0  # requests
        self.failures = FailureHistory()
        self.single_row_seconds = inf  # what the last batch of one row took
        self.thread = ThreadPoolExecutor(1)
        self.dispatcher = factory.dispatchers[api_name]
        self.dispatcher.get_batch_size = len
        queue_seconds = BATCH_QUEUE_SECONDS.labels(self.api.route)
        self.dispatcher.optimizer = MeasuringOptimizer(self.dispatcher.max_latency, queue_seconds)
        self.dispatcher.max_latency = inf  # `ServiceApp` enforces the time limit
        self.enqueue = self.dispatcher(self.predict_batch)
        self.model_seconds = BATCH_MODEL_SECONDS.labels(self.api.route)

    async def __call__(
        self, request_id: str, body: bytes, what_if: bool = False
    ) -> tuple[bytes, bytes]:
        """Return the JSON of the predictions, and the tag of the model.

        `what_if`: the records are no traffic, so that they are counted by themselves and not
        logged. Raise APIError, ModelFailedError if the model is broken, or BatchTimeoutError.
        """
        rows = self.api.input_spec.parse(body)
        if what_if:
            rows = list(map(WhatIfRow, rows))
        queue = self.dispatcher._queue
        # Requests that timed out are still in the queue: remove them before they are predicted.
        while queue and queue[0].future.done():
            queue.popleft()
        if len(queue) >= self.max_queue:  # the model hangs
            raise TooManyRequests
        predictions = await self.predict_batched_or_inline(rows)
        if not all(map(isfinite, predictions)):
            raise self.unpredictable_error(predictions, what_if)
        content = self.api.output_spec.to_json(predictions)
        if what_if:
            WHAT_IF_RECORDS.inc(len(rows))
        elif self.prediction_log:
            request = PredictedRequest(time(), request_id, self.model_tag, rows, predictions)
            self.prediction_log.add(request)
        return content, self.model_tag_header

    async def predict_batched_or_inline(self, rows: list[Row]) -> list[float]:
        """Predict rows in a batch with those of other requests, or at once if there are none."""
        self.pending += 1
        try:
            if self.runs_inline([rows]) and self.is_only_request():
                if len(self.open_requests) > 1:  # perhaps predictions, not yet begun
                    await asyncio.sleep(0)
                if self.is_only_request():
                    (outcome,) = await self.predict_batch([rows])
                    if isinstance(outcome, Exception):
                        raise outcome
                    return outcome
            return await self.enqueue(rows)
        finally:
            self.pending -= 1

    def is_only_request(self) -> bool:
        """Tell whether no other request is pending, and no batch is running."""
        return self.pending == 1 and not self.dispatcher._sema.is_locked()

    def runs_inline(self, requests: Sequence[list[Row]]) -> bool:
        """Tell whether the event loop may wait while the model predicts requests."""
        is_single_row = len(requests) == 1 and len(requests[0]) == 1
        return is_single_row and self.single_row_seconds <= MAX_INLINE_SECONDS

    async def predict_batch(
        self, requests: Sequence[list[Row]]
    ) -> Sequence[list[float] | ModelFailedError]:
        """Predict the rows of several requests together; return the outcome of each."""
        self.batch_size.observe(len(requests))
        if self.runs_inline(requests):
            return self.run_batch(requests)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.thread, self.run_batch, requests)

    def run_batch(self, requests: Sequence[list[Row]]) -> Sequence[list[float] | ModelFailedError]:
        """Predict and count the rows of requests; return the predictions of each.

        If the model is broken, return an exception for each, which BentoML's dispatcher raises.
        """
        metrics = self.service.prediction_metrics
        batch = Batch(
            requests,
            self.run_model,
            metrics.is_outside,
            self.service.golden_row,
            self.timeout,
            suspicious=self.failures.are_recent(),
        )
        start = perf_counter()
        try:
            outcomes = batch.run()
        except ModelFailedError as error:
            return [error.copy() for _ in requests]
        finally:
            self.failures.add(batch.failed_seconds)
            if len(batch.rows) == 1:
                self.single_row_seconds = perf_counter() - start
        rows, predictions = select_traffic(*batch.predicted())
        if rows:
            metrics.observe(rows, predictions)
        return outcomes

    def unpredictable_error(
        self, predictions: Sequence[float], what_if: bool
    ) -> UnpredictableError:
        """Count the records that have no prediction, and return the error of their request."""
        failures = {n: y for n, y in enumerate(predictions) if isinstance(y, Unpredicted)}
        numbers = [n for n, each in failures.items() if each.failed_alone]
        if not what_if:
            UNPREDICTABLE_RECORDS.inc(len(numbers))
        return UnpredictableError(
            numbers if self.api.input_spec.max_records else None,
            are_all=len(numbers) == len(failures),
            reason=failures[numbers[0]].error,
            delay_seconds=self.failures.delay_seconds(),
        )

    def run_model(self, rows: list[Row]) -> list[float]:
        """Call the API with rows, and measure the time; raise whatever it raises."""
        start = perf_counter()
        try:
            predictions = self.api.func(self.service, rows)
        finally:
            self.model_seconds.observe(perf_counter() - start)
        if len(predictions) != len(rows):
            counts = f"{len(predictions)} predictions for {len(rows)} rows"
            raise ValueError(f"The API method {self.api.name} returned {counts}")
        return predictions

    @cached_property
    def service(self) -> Any:
        """The instance of the Service's class, which BentoML creates at startup."""
        return self.factory._service_instance

    @cached_property
    def model_tag(self) -> str:
        """The tag of the model that predicts."""
        return str(self.service.model.tag)

    @cached_property
    def model_tag_header(self) -> bytes:
        """The tag of the model as the value of a header."""
        return self.model_tag.encode()

    @cached_property
    def batch_size(self) -> Any:
        """BentoML's histogram of the number of requests in a batch."""
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


def select_traffic(rows: list[Row], predictions: list[float]) -> tuple[list[Row], list[float]]:
    """Return the rows without those of what-if requests, and their predictions."""
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
        """Observe how long the first request of a batch has waited, and learn from the batch."""
        if wait:  # BentoML reports 0 for the first dozen batches
            self.queue_seconds.observe(wait)
        super().log_outbound(n, wait, duration)
