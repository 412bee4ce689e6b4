"""The ASGI application in front of BentoML's: API keys, limits, predictions, errors and logs."""

import asyncio
import gc
from collections.abc import Collection, Mapping
from contextlib import suppress
from time import perf_counter
from typing import Protocol

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.errors import (
    APIError,
    TooManyRequests,
    UnpredictableError,
    body_too_large,
    content_encoded,
    internal_error,
    not_json,
    prediction_timeout_error,
    request_timeout_error,
    shutting_down,
)
from serving.http.auth import APIKeyAuth
from serving.http.body import BodyReader
from serving.http.deadline import Deadline
from serving.http.response import ResponseSender
from serving.observability.access_log import AccessLog
from serving.observability.error_log import ErrorLog
from serving.observability.prediction_log import PredictionLog
from serving.observability.prediction_metrics import count_request_errors
from serving.observability.request_metrics import RequestMetrics
from serving.settings import Settings

GC_THRESHOLD = 20_000  # objects
# The label, in the metrics, of all paths without a route of their own: unknown paths, files of the
# pages, and "-" (a request that `Connection.reject` answers).
UNKNOWN_ENDPOINT = "unknown"


class Predict(Protocol):
    """What `ServiceApp` calls to predict: a `Predictor`."""

    async def __call__(self, request_id: str, body: bytes, *, what_if: bool) -> tuple[bytes, bytes]:
        """Return the JSON of the predictions, and the tag of the model.

        Raise APIError, or another exception for an internal error (500).
        """


class ServiceApp:
    """ASGI application that responds to predictions and forwards other paths to `bentoml_app`.

    Every request gets an ID, is counted and, unless its path is excluded, logged. Every error
    response has the JSON format of `serving.errors`.
    """

    def __init__(
        self,
        bentoml_app: ASGIApp,
        predictors: Mapping[str, Predict],  # by path
        endpoints: Collection[str],  # the paths that the metrics tell apart
        unlogged_paths: Collection[str],
        settings: Settings,
        request_metrics: RequestMetrics,
        prediction_log: PredictionLog | None,
    ) -> None:
        self.bentoml_app = bentoml_app
        self.predictors = predictors
        self.endpoints = endpoints
        self.unlogged_paths = unlogged_paths
        self.settings = settings
        self.auth = APIKeyAuth(settings.keys)
        self.metrics = request_metrics
        self.access_log = AccessLog(settings.access_log)
        self.error_log = ErrorLog(settings.log_exception_text)
        logs = self.access_log, self.error_log, prediction_log
        self.log_writers = [log.writer for log in logs if log]
        # Prediction requests whose body has arrived, for MAX_CONCURRENCY. `RequestMetrics` counts
        # all requests in progress.
        self.active_predictions = 0
        self.draining = False  # set by the server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request or the lifespan; the server accepts no WebSocket."""
        if scope["type"] == "http":
            await self.handle(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self.handle_lifespan(scope, receive, send)

    async def handle_lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle lifespan events: prepare for requests, and flush the logs at shutdown."""

        async def send_lifespan(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                tune_garbage_collection()
            elif message["type"].startswith("lifespan.shutdown."):
                for writer in self.log_writers:
                    writer.close()
            await send(message)

        await self.bentoml_app(scope, receive, send_lifespan)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond to a request, count it and log it."""
        start = perf_counter()
        path = scope["path"]
        endpoint = path if path in self.endpoints else UNKNOWN_ENDPOINT
        logged = path not in self.unlogged_paths
        body = BodyReader(scope, receive, self.settings.max_body_bytes)
        response = ResponseSender(scope, send)
        # Requests to the paths without access log (BentoML's `skip_paths`, by default the health
        # checks and /metrics) do not set the metric of the time of the last request.
        self.metrics.start(endpoint, is_probe=not logged)
        try:
            await self.respond(scope, body, response)
        finally:
            seconds = perf_counter() - start
            self.metrics.finish(endpoint, response.status, seconds)
            if logged:
                self.access_log.add(
                    scope["method"], path, response.status, seconds, response.request_id
                )

    async def respond(self, scope: Scope, body: BodyReader, response: ResponseSender) -> None:
        """Send a response, or an error if an exception is raised before the response starts."""
        predict = self.predictors.get(scope["path"])
        try:
            if error := body.protocol_error():
                raise error
            self.auth.authenticate(scope["path"], response.request_headers)
            if predict is None:
                await self.forward(scope, body, response)
            elif scope["method"] == "POST":
                await self.respond_prediction(predict, body, response)
            else:
                raise APIError(405, "Use POST here", {"Allow": "POST"})
        except APIError as error:
            count_request_errors(error.error_kinds)
            if isinstance(error, UnpredictableError):
                self.error_log.add_unpredictable(response.request_id, error.reason)
                with suppress(asyncio.CancelledError):  # at shutdown, respond at once
                    # The wait takes no place of MAX_CONCURRENCY: `read_and_predict` has ended.
                    await asyncio.sleep(error.delay_seconds)
            await send_error(error, body, response)
        except (Exception, asyncio.CancelledError) as error:
            if response.status:
                raise
            await send_error(self.unexpected_error(error, response.request_id), body, response)

    async def forward(self, scope: Scope, body: BodyReader, response: ResponseSender) -> None:
        """Read the body, and have BentoML's application respond."""
        try:
            with Deadline(self.settings.request_timeout):
                receive = body.replay(await body.read())
        except TimeoutError:
            raise self.timeout_error(body) from None
        if self.draining and scope["path"] == "/readyz":
            raise shutting_down()
        await self.bentoml_app(scope, receive, response)
        response.raise_for_status()

    async def respond_prediction(
        self, predict: Predict, body: BodyReader, response: ResponseSender
    ) -> None:
        """Predict within the limits of body size, concurrency and time, and send the result."""
        check_headers(response.request_headers, self.settings.max_body_bytes)
        try:
            with Deadline(self.settings.request_timeout) as deadline:
                content, model_tag = await self.read_and_predict(predict, body, response)
        except Exception:
            # BentoML's dispatcher turns the cancellation by the deadline into ServiceUnavailable.
            # After the deadline any exception counts as a timeout.
            if not deadline.expired:
                raise
            raise self.timeout_error(body) from None
        await response.send_json(200, content, (b"x-model-tag", model_tag))

    async def read_and_predict(
        self, predict: Predict, body: BodyReader, response: ResponseSender
    ) -> tuple[bytes, bytes]:
        """Read the body and predict; raise TooManyRequests beyond MAX_CONCURRENCY predictions.

        A request counts only once its body has arrived, so that slow uploads block no predictions.
        """
        content = await body.read()
        what_if = response.request_headers.get(b"x-what-if") == b"true"
        if self.active_predictions >= self.settings.max_concurrency:
            raise TooManyRequests
        self.active_predictions += 1
        try:
            return await predict(response.request_id, content, what_if=what_if)
        finally:
            self.active_predictions -= 1

    def timeout_error(self, body: BodyReader) -> APIError:
        """Return the error after REQUEST_TIMEOUT: 504 if the body has arrived, otherwise 408."""
        error = prediction_timeout_error if body.complete else request_timeout_error
        return error(self.settings.request_timeout)

    def unexpected_error(self, error: BaseException, request_id: str) -> APIError:
        """Return 503 for a request cancelled by shutdown; else log the exception, return 500."""
        task = asyncio.current_task()
        if task and task.cancelling():
            return shutting_down()
        self.error_log.add_failure(request_id, error)
        return internal_error(request_id)


def tune_garbage_collection() -> None:
    """Exempt all objects that exist now from garbage collection, and collect less often.

    A full collection visits all objects of the imported libraries, which takes 40 to 75 ms. No
    request is served meanwhile. With the default threshold of Python 3.11, 700 objects, each batch
    would cause collections. benchmarks/README.md has the effect of both.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)


async def send_error(error: APIError, body: BodyReader, response: ResponseSender) -> None:
    """Send an error; close the connection if too much of the body remains to be discarded."""
    headers = error.headers
    if "Connection" not in headers and not await body.discard():
        headers = {**headers, "Connection": "close"}
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await response.send_json(error.status, error.content, *raw)


def check_headers(headers: Mapping[bytes, bytes], max_body_bytes: int) -> None:
    """Raise APIError unless the body is uncompressed JSON (415) of an allowed length (413)."""
    media_type = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if media_type != b"application/json":
        raise not_json()
    if b"content-encoding" in headers:
        raise content_encoded()
    length = headers.get(b"content-length", b"0")
    # int() raises ValueError for thousands of digits.
    if len(length) > 18 or int(length) > max_body_bytes:
        raise body_too_large(max_body_bytes)
