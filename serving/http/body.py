"""The body of a request: how it is read within limits, and what becomes of one that is not read."""

import asyncio
from contextlib import suppress

from starlette.types import Message, Receive, Scope

from serving.errors import RETRY_AFTER, Refusal, too_large

# Bodies that are still arriving may hold the memory of so many of the largest.
MAX_ARRIVING = 64
# What is left of a refused body is read so that the connection can go on, if it is little and near.
SKIP_BYTES, SKIP_SECONDS = 1 << 16, 0.1


class Body:
    """The body of one request."""

    __slots__ = ("complete", "max_bytes", "receive", "scope")

    arriving = 0  # bytes of all that are incomplete, in this process

    def __init__(self, scope: Scope, receive: Receive, max_bytes: int) -> None:
        self.scope = scope
        self.receive = receive
        self.max_bytes = max_bytes
        self.complete = False

    async def read(self) -> bytes:
        """Return the body; raise `Refusal` once it is too large (413), whatever was announced."""
        body = await self.part()
        if not self.complete:
            body = await self.rest(body)
        if len(body) > self.max_bytes:
            raise too_large(self.max_bytes)
        return body

    async def part(self) -> bytes:
        """Return what has arrived since; raise `Refusal` if nothing more will."""
        message = await self.receive()
        if message["type"] == "http.disconnect":
            raise Refusal(400, "The connection closed before the body was complete")
        self.complete = not message.get("more_body", False)
        return message.get("body", b"")

    async def rest(self, body: bytes) -> bytes:
        """Return a body of several parts, with the first that is too much."""
        held = 0
        try:
            while not self.complete and len(body) <= self.max_bytes:
                if fault := self.fault():
                    raise fault
                Body.arriving += len(body) - held
                held = len(body)
                if Body.arriving > MAX_ARRIVING * self.max_bytes:
                    raise Refusal(429, "Too much at once; try again in a second", RETRY_AFTER)
                body += await self.part()
        finally:
            Body.arriving -= held
        return body

    def fault(self) -> Refusal | None:
        """Return what the connection found wrong with the request meanwhile."""
        return self.scope.get("state", {}).get("refusal")

    async def skip(self) -> bool:
        """Read what is left if it is little, and tell whether that is all of it."""
        if self.complete:
            return True
        expects = any(name == b"expect" for name, _ in self.scope["headers"])
        if not expects and not self.fault():
            most = SKIP_BYTES
            with suppress(TimeoutError, Refusal):
                async with asyncio.timeout(SKIP_SECONDS):
                    while most > 0 and not self.complete:
                        most -= len(await self.part())
        return self.complete

    def replay(self, body: bytes) -> Receive:
        """Return a `receive` for the application that begins with the body that was read."""
        messages: list[Message] = [{"type": "http.request", "body": body}]

        async def receive() -> Message:
            return messages.pop() if messages else await self.receive()

        return receive
