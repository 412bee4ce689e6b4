"""From the edge to an API of the Service, by way of the dispatcher that BentoML made for it."""

import asyncio
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import accumulate
from time import perf_counter, time
from typing import Any

from bentoml._internal.context import server_context
from bentoml._internal.marshal.dispatcher import Optimizer
from prometheus_client import Histogram

from serving.errors import Busy
from serving.observability.metrics import MODEL, QUEUE
from serving.observability.prediction_log import PredictionLog
from serving.records import Row

# So few rows are predicted on the event loop, for to hand them to a thread would take longer; but
# not if the model has just taken so long for as few: all else waits meanwhile.
MAX_INLINE_ROWS, MAX_INLINE_SECONDS = 1, 0.005


class Predictor:
    """One prediction API, as the edge calls it; `factory` is BentoML's `ServiceAppFactory`."""

    def __init__(self, factory: Any, name: str, max_queue: int, log: PredictionLog | None) -> None:
        self.factory = factory
        self.api = factory.service.apis[name]
        self.max_queue = max_queue
        self.log = log
        self.present = 0  # requests
        self.inline_seconds = math.inf  # what the model took last for a batch that small
        self.thread = ThreadPoolExecutor(1)
        self.dispatcher = factory.dispatchers[name]
        self.dispatcher.get_batch_size = len
        queue_seconds = QUEUE.labels(self.api.route)
        self.dispatcher.optimizer = NoWait(self.dispatcher.max_latency, queue_seconds)
        self.dispatcher.max_latency = math.inf  # the edge keeps the time
        self.submit = self.dispatcher(self.predict)
        self.model_seconds = MODEL.labels(self.api.route)

    async def __call__(self, request_id: str, body: bytes) -> tuple[bytes, str]:
        """Return the answer to a body, and the tag of the model; raise `Refusal`."""
        rows = self.api.input_spec.rows(body)
        queue = self.dispatcher._queue
        # What the edge gave up is still in the queue, and would be predicted for nobody.
        while queue and queue[0].future.done():
            queue.popleft()
        if len(queue) >= self.max_queue:  # when the model hangs
            raise Busy
        predictions = await self.predict_soon(rows)
        answer = self.api.output_spec.render(predictions)
        if self.log:
            self.log.add((time(), request_id, self.tag, rows, predictions))
        return answer, self.tag

    async def predict_soon(self, rows: list[Row]) -> list[float]:
        """Predict rows: in a batch with those of other requests, or at once if there are none."""
        self.present += 1
        try:
            if self.is_brief(rows) and self.is_alone():
                await asyncio.sleep(0)  # lets in who has arrived in the same turn of the event loop
                if self.is_alone():
                    (predictions,) = await self.predict([rows])
                    return predictions
            return await self.submit(rows)
        finally:
            self.present -= 1

    def is_alone(self) -> bool:
        """Tell whether a request has nobody to wait for, not even a batch that was given up."""
        return self.present == 1 and not self.dispatcher._sema.is_locked()

    def is_brief(self, rows: list[Row]) -> bool:
        """Tell whether the event loop may wait while the model predicts rows."""
        return len(rows) <= MAX_INLINE_ROWS and self.inline_seconds <= MAX_INLINE_SECONDS

    async def predict(self, requests: Sequence[list[Row]]) -> list[list[float]]:
        """Predict the rows of several requests together; return the predictions of each."""
        rows = [row for request in requests for row in request]
        self.batch_size.observe(len(requests))
        if self.is_brief(rows):
            predictions = self.run_model(rows)
        else:
            loop = asyncio.get_running_loop()
            predictions = await loop.run_in_executor(self.thread, self.run_model, rows)
        ends = accumulate(map(len, requests))
        return [
            predictions[end - len(request) : end]
            for request, end in zip(requests, ends, strict=True)
        ]

    def run_model(self, rows: list[Row]) -> list[float]:
        """Call the API on the rows of a batch, and take the time."""
        start = perf_counter()
        predictions = self.api.func(self.service, rows)
        seconds = perf_counter() - start
        self.model_seconds.observe(seconds)
        if len(rows) <= MAX_INLINE_ROWS:
            self.inline_seconds = seconds
        return predictions

    @cached_property
    def service(self) -> Any:
        """The instance that BentoML makes of the Service's class when it starts."""
        return self.factory._service_instance

    @cached_property
    def tag(self) -> str:
        """The tag of the model that predicts."""
        return str(self.service.model.tag)

    @cached_property
    def batch_size(self) -> Any:
        """BentoML's histogram of the requests in a batch."""
        return self.factory.adaptive_batch_size_hist.labels(
            runner_name=self.factory.service.name,
            worker_index=server_context.worker_index,
            method_name=self.api.name,
            service_version=server_context.bento_version,
            service_name=server_context.bento_name,
        )


class NoWait(Optimizer):
    """Lets a batch go once the one before is done, for which BentoML looks every ms.

    BentoML's waits for as long as batches waited lately, and learns that anew every 5 s at most:
    after a burst the few who are left would wait for others who do not come.
    """

    def __init__(self, max_latency: float, queue_seconds: Histogram) -> None:
        super().__init__(max_latency)
        self.queue_seconds = queue_seconds

    def log_outbound(self, n: int, wait: float, duration: float) -> None:
        """Count how long the first request of a batch has waited, and learn from the batch."""
        if wait:  # of the first dozen of batches BentoML tells 0
            self.queue_seconds.observe(wait)
        super().log_outbound(n, wait, duration)

    def trigger_refresh(self) -> None:
        """Learn how long predictions take, and nothing about waiting."""
        super().trigger_refresh()
        self.wait = 0
