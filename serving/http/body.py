"""Read the body of a request within limits, and discard the rest of a rejected request's body."""

import asyncio
from contextlib import suppress

from starlette.types import Message, Receive, Scope

from serving.errors import RETRY_AFTER, APIError, body_too_large

# Limit on the memory of all incomplete bodies, in units of MAX_BODY_BYTES.
MAX_BUFFERED_BODIES = 64
# The rest of a rejected request's body is read, up to these limits, so that the connection can stay
# open.
DISCARD_BYTES = 1 << 16
DISCARD_SECONDS = 0.1


class BodyReader:
    """The body of one request, read from ASGI messages."""

    __slots__ = ("complete", "max_bytes", "receive", "scope")

    buffered_bytes = 0  # of all incomplete bodies in this process

    def __init__(self, scope: Scope, receive: Receive, max_bytes: int) -> None:
        self.scope = scope
        self.receive = receive
        self.max_bytes = max_bytes
        self.complete = False

    async def read(self) -> bytes:
        """Return the whole body; raise APIError (413) as soon as it exceeds the limit."""
        body = await self.read_chunk()
        if not self.complete:
            body = await self.read_remaining(body)
        if len(body) > self.max_bytes:
            raise body_too_large(self.max_bytes)
        return body

    async def read_chunk(self) -> bytes:
        """Return the next part; raise APIError (400) if the client has disconnected."""
        message = await self.receive()
        if message["type"] == "http.disconnect":
            raise APIError(400, "The connection closed before the body was complete")
        self.complete = not message.get("more_body", False)
        return message.get("body", b"")

    async def read_remaining(self, body: bytes) -> bytes:
        """Append the remaining parts, until the body is complete or over the limit."""
        counted = 0  # the bytes of this body in `buffered_bytes`, while it is incomplete
        try:
            while not self.complete and len(body) <= self.max_bytes:
                if error := self.protocol_error():
                    raise error
                BodyReader.buffered_bytes += len(body) - counted
                counted = len(body)
                if BodyReader.buffered_bytes > MAX_BUFFERED_BODIES * self.max_bytes:
                    message = "Too many incomplete request bodies; try again in a second"
                    raise APIError(429, message, RETRY_AFTER)
                body += await self.read_chunk()
        finally:
            BodyReader.buffered_bytes -= counted
        return body

    def protocol_error(self) -> APIError | None:
        """Return the error with which the connection has rejected the request, if any.

        Its head or body is malformed, or its head is too large or too slow, for example.
        `serving._bentoml.connection.Connection.reject` has put the error into the scope.
        """
        return self.scope.get("state", {}).get("protocol_error")

    async def discard(self) -> bool:
        """Read and drop the rest of the body, within limits; return whether it is complete."""
        if self.complete:
            return True
        # A client that sends `Expect: 100-continue` has not sent its body yet; `receive` would
        # request it.
        expects_continue = any(name == b"expect" for name, _ in self.scope["headers"])
        if not expects_continue and not self.protocol_error():
            remaining = DISCARD_BYTES
            with suppress(TimeoutError, APIError):
                async with asyncio.timeout(DISCARD_SECONDS):
                    while remaining > 0 and not self.complete:
                        remaining -= len(await self.read_chunk())
        return self.complete

    def replay(self, body: bytes) -> Receive:
        """Return a `receive` that yields the body once more, for the next application."""
        messages: list[Message] = [{"type": "http.request", "body": body}]

        async def receive() -> Message:
            return messages.pop() if messages else await self.receive()

        return receive
