"""The edge: what a request must be before it costs anything, and what every error looks like."""

import asyncio
import logging
import re
from collections.abc import Collection
from http import HTTPStatus
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.refusal import Refusal
from serving.settings import Settings

logger = logging.getLogger(__name__)

# A caller may name its request, but not so as to forge a line of the log.
REQUEST_ID = re.compile(r"[\w.-]{1,64}", re.ASCII)
AGAIN = {"Retry-After": "1"}


class Edge:
    """ASGI middleware that guards the prediction routes and gives every error one shape."""

    def __init__(self, app: ASGIApp, predictions: Collection[str], settings: Settings) -> None:
        self.app = app
        self.predictions = predictions
        self.settings = settings
        self.in_progress = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; whatever goes wrong below ends here, as a `Refusal`."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        reply = Reply(Headers(scope=scope), send)
        try:
            if scope["method"] == "POST" and scope["path"] in self.predictions:
                await self.predict(scope, receive, reply)
            else:
                await self.app(scope, receive, reply)
            reply.raise_error()
        except Refusal as refusal:
            await refusal.response(scope, receive, reply.send_ours)
        except Exception:
            if reply.started:
                raise
            logger.exception("Request %s failed", reply.request_id)
            await reply.failure().response(scope, receive, reply.send_ours)

    async def predict(self, scope: Scope, receive: Receive, reply: "Reply") -> None:
        """Pass a prediction request on, within limits of size, number and time."""
        check_headers(Headers(scope=scope), self.settings.max_body_bytes)
        if self.in_progress >= self.settings.max_concurrency:
            raise Refusal(429, "Too many predictions at once; try again in a second", AGAIN)
        self.in_progress += 1
        try:
            async with asyncio.timeout(self.settings.request_timeout) as deadline:
                await self.app(scope, limited(receive, self.settings.max_body_bytes), reply)
        except TimeoutError:
            pass  # Told below, for BentoML may have answered its cancellation with a 503.
        finally:
            self.in_progress -= 1
        if deadline.expired() and not reply.started:
            seconds = self.settings.request_timeout
            raise Refusal(504, f"No prediction within {seconds:g} s; try again")


class Reply:
    """The `send` of one request: adds its ID, and holds back errors that are not of our shape."""

    def __init__(self, request: Headers, send: Send) -> None:
        named = request.get("x-request-id", "")
        self.request_id = named if REQUEST_ID.fullmatch(named) else uuid4().hex
        self.send = send
        self.started = False
        self.error: Message | None = None

    async def __call__(self, message: Message) -> None:
        """Send what the application answers, unless it is an error, which we word ourselves."""
        if message["type"] == "http.response.start" and message["status"] >= 400:
            self.error = message
        elif self.error is None:
            await self.send_ours(message)

    async def send_ours(self, message: Message) -> None:
        """Send an answer as it is, with the request ID."""
        if message["type"] == "http.response.start":
            self.started = True
            MutableHeaders(scope=message)["X-Request-ID"] = self.request_id
        await self.send(message)

    def raise_error(self) -> None:
        """Raise the error that BentoML or Starlette answered, if any, as a `Refusal`."""
        if self.error is None:
            return
        status = self.error["status"]
        allow = Headers(raw=self.error["headers"]).get("allow", "GET, HEAD")
        if status == 404:
            raise Refusal(404, "Nothing is here; GET / describes the API")
        if status == 405:
            raise Refusal(405, f"Use {allow} here", {"Allow": allow})
        if status == 503:
            raise Refusal(503, "Not ready to answer; try again in a second", AGAIN)
        if status >= 500:
            logger.error("Request %s failed", self.request_id)
            raise self.failure()
        raise Refusal(status, HTTPStatus(status).phrase)

    def failure(self) -> Refusal:
        """Return the answer to a request that met a fault of ours: its ID and nothing else."""
        return Refusal(500, f"Internal error; report it with request ID {self.request_id}")


def check_headers(headers: Headers, max_body_bytes: int) -> None:
    """Raise `Refusal` if the headers announce no JSON (415) or too much of it (413)."""
    media_type = headers.get("content-type", "").partition(";")[0].strip()
    if media_type.lower() != "application/json":
        raise Refusal(415, "Send the header Content-Type: application/json")
    if int(headers.get("content-length", 0)) > max_body_bytes:
        raise too_large(max_body_bytes)


def limited(receive: Receive, max_body_bytes: int) -> Receive:
    """Return `receive` with an eye on the size of the body, whatever Content-Length says."""
    received = 0

    async def receive_limited() -> Message:
        nonlocal received
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refusal(400, "The connection closed before the body was complete")
        received += len(message.get("body", b""))
        if received > max_body_bytes:
            raise too_large(max_body_bytes)
        return message

    return receive_limited


def too_large(max_body_bytes: int) -> Refusal:
    """Return the answer to a body over the limit."""
    return Refusal(413, f"The body is over {max_body_bytes} bytes; send fewer records at a time")
