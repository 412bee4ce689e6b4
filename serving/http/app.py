"""The edge: what a request must be before it costs anything, and what every answer looks like."""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Collection, Mapping
from http import HTTPStatus
from random import Random
from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.errors import (
    RETRY_AFTER,
    Busy,
    Refusal,
    encoded,
    internal_error,
    not_json,
    shutting_down,
    too_large,
    too_late,
    too_slow,
)
from serving.http.auth import Keys
from serving.http.body import Body
from serving.observability.metrics import count_faults
from serving.observability.prediction_log import PredictionLog
from serving.observability.telemetry import AccessLog, RequestMetrics, trace
from serving.settings import Settings

logger = logging.getLogger(__name__)

# From the ID and the body of a request to the answer, and the tag of the model that predicted.
Predict = Callable[[str, bytes], Awaitable[tuple[bytes, str]]]

# A caller may name its request, but not so as to forge a line of the log.
REQUEST_ID = re.compile(rb"[\w.-]{1,64}")
# Not uuid4(), which asks the kernel each time; apart from `random`, which anybody may seed.
ids = Random()  # noqa: S311


class Edge:
    """ASGI application in front of BentoML's: it predicts, and leaves all other paths to that.

    Every request gets an ID, is counted, and is logged unless that is not wanted of its path; every
    error gets one shape.
    """

    def __init__(
        self,
        app: ASGIApp,
        predictors: Mapping[str, Predict],
        endpoints: Collection[str],
        unlogged: Collection[str],
        settings: Settings,
        prediction_log: PredictionLog | None,
    ) -> None:
        self.app = app
        self.predictors = predictors
        self.endpoints = endpoints
        self.unlogged = unlogged
        self.settings = settings
        self.keys = Keys(settings.keys)
        self.metrics = RequestMetrics(predictors)
        self.log = AccessLog(settings.access_log)
        self.spools = [log.spool for log in (self.log, prediction_log) if log]
        self.in_progress = 0
        self.closing = False  # set by the server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the lifespan of the application; nothing here speaks WebSocket."""
        if scope["type"] == "http":
            await self.serve(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self.lifespan(scope, receive, send)

    async def lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Live as long as the application; the process may end once that has said so."""

        async def send_after_logs(message: Message) -> None:
            if message["type"].startswith("lifespan.shutdown."):
                for spool in self.spools:
                    spool.close()
            await send(message)

        await self.app(scope, receive, send_after_logs)

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, count it and log it."""
        start = perf_counter()
        path = scope["path"]
        endpoint = path if path in self.endpoints else "unknown"
        logged = path not in self.unlogged
        body = Body(scope, receive, self.settings.max_body_bytes)
        reply = Reply(scope, send)
        self.metrics.begin(endpoint, logged)
        try:
            await self.answer(scope, body, reply)
        finally:
            seconds = perf_counter() - start
            self.metrics.end(endpoint, reply.status, seconds)
            if logged:
                self.log.add(scope["method"], path, reply.status, seconds, reply.request_id)

    async def answer(self, scope: Scope, body: Body, reply: "Reply") -> None:
        """Answer a request; what goes wrong before the answer has begun ends here."""
        predictor = self.predictors.get(scope["path"])
        try:
            if fault := body.fault():
                raise fault
            self.keys.check(scope["path"], reply.headers)
            if predictor is None:
                await self.pass_on(scope, body, reply)
            elif scope["method"] == "POST":
                await self.predict(predictor, body, reply)
            else:
                raise Refusal(405, "Use POST here", {"Allow": "POST"})
        except Refusal as refusal:
            count_faults(refusal.faults)
            # A proxy sends for others over the connection, who were not refused.
            busy = isinstance(refusal, Busy) and b"x-forwarded-for" not in reply.headers
            scope.setdefault("state", {})["busy"] = busy
            await refuse(refusal, body, reply)
        except (Exception, asyncio.CancelledError) as error:
            if reply.status:
                raise
            await refuse(ended_by(error, reply.request_id), body, reply)

    async def pass_on(self, scope: Scope, body: Body, reply: "Reply") -> None:
        """Have BentoML's application answer, once the body is there."""
        try:
            async with asyncio.timeout(self.settings.request_timeout):
                receive = body.replay(await body.read())
        except TimeoutError:
            raise self.timed_out(body) from None
        if self.closing and scope["path"] == "/readyz":
            raise shutting_down()
        await self.app(scope, receive, reply)
        reply.raise_error()

    async def predict(self, predictor: Predict, body: Body, reply: "Reply") -> None:
        """Predict within the limits of size, number and time."""
        check_headers(reply.headers, self.settings.max_body_bytes)
        try:
            async with asyncio.timeout(self.settings.request_timeout) as deadline:
                answer, tag = await self.admit(predictor, reply.request_id, await body.read())
        except Exception:
            # BentoML's dispatcher turns the cancellation by the deadline into an error of its own.
            if not deadline.expired():
                raise
            raise self.timed_out(body) from None
        await reply.send_json(200, answer, {"X-Model-Tag": tag})

    async def admit(self, predictor: Predict, request_id: str, body: bytes) -> tuple[bytes, str]:
        """Predict unless too many predictions are in progress."""
        if not self.places:
            raise Busy
        self.in_progress += 1
        try:
            return await predictor(request_id, body)
        finally:
            self.in_progress -= 1

    @property
    def places(self) -> int:
        """Return how many more predictions may be in progress."""
        return self.settings.max_concurrency - self.in_progress

    def timed_out(self, body: Body) -> Refusal:
        """Return the answer to a request that took too long: to be sent, or to be predicted."""
        return (too_late if body.complete else too_slow)(self.settings.request_timeout)


async def refuse(refusal: Refusal, body: Body, reply: "Reply") -> None:
    """Answer an error, and close if more of the body is to come than is worth reading."""
    headers = refusal.headers
    if "Connection" not in headers and not await body.skip():
        headers = {**headers, "Connection": "close"}
    await reply.send_json(refusal.status, refusal.body, headers)


def ended_by(error: BaseException, request_id: str) -> Refusal:
    """Return the answer to a request that an exception ended: a fault of ours, or our end."""
    if asyncio.current_task().cancelling():
        return shutting_down()
    logger.error("Request %s failed\n%s", request_id, "".join(trace(error)))
    return internal_error(request_id)


class Reply:
    """The answer to one request: `send` for BentoML's application, whose errors it holds back."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        named = self.headers.get(b"x-request-id", b"")
        self.request_id = named.decode() if REQUEST_ID.fullmatch(named) else new_id()
        self.send = send
        self.status = 0
        self.error: Message | None = None

    async def __call__(self, message: Message) -> None:
        """Send what the application answers, unless it is an error, which we word ourselves."""
        if message["type"] == "http.response.start":
            if message["status"] >= 400:
                self.error = message
            else:
                self.status = message["status"]
                message["headers"] = [
                    *message["headers"],
                    (b"x-request-id", self.request_id.encode()),
                ]
        if self.error is None:
            await self.send(message)

    async def send_json(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        """Send an answer of ours."""
        self.status = status
        named = {"Content-Type": "application/json", "Content-Length": str(len(body))}
        named |= {"X-Request-ID": self.request_id, **headers}
        raw = [(name.lower().encode(), value.encode()) for name, value in named.items()]
        await self.send({"type": "http.response.start", "status": status, "headers": raw})
        await self.send({"type": "http.response.body", "body": body})

    def raise_error(self) -> None:
        """Raise the error that the application answered, if any, in our words."""
        if self.error is None:
            return
        status = self.error["status"]
        allow = dict(self.error["headers"]).get(b"allow", b"GET, HEAD").decode()
        if status == 404:
            raise Refusal(404, "Nothing is here; GET / describes the API")
        if status == 405:
            raise Refusal(405, f"Use {allow} here", {"Allow": allow})
        if status == 503:
            raise Refusal(503, "Not ready to answer; try again in a second", RETRY_AFTER)
        if status >= 500:
            raise RuntimeError(f"The application answered {status}")
        raise Refusal(status, HTTPStatus(status).phrase)


def new_id() -> str:
    """Return an ID that no other request has, in any worker."""
    return f"{ids.getrandbits(128):032x}"


def check_headers(headers: Mapping[bytes, bytes], max_body_bytes: int) -> None:
    """Raise `Refusal` if the headers announce no plain JSON (415) or too much of it (413)."""
    media_type = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if media_type != b"application/json":
        raise not_json()
    if b"content-encoding" in headers:
        raise encoded()
    length = headers.get(b"content-length", b"0")
    # int() refuses to read thousands of digits.
    if len(length) > 18 or int(length) > max_body_bytes:
        raise too_large(max_body_bytes)
