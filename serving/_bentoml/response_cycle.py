"""uvicorn's response cycle, which sends a JSON response in one system call."""

from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http import httptools_impl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle


def install() -> None:
    """Make uvicorn's HTTP protocol create `ResponseCycle` for each request."""
    httptools_impl.RequestResponseCycle = ResponseCycle  # the protocol looks up this global name


class ResponseCycle(RequestResponseCycle):
    """One request and its response; sends the head and body of a JSON response together.

    uvicorn sends them separately, and checks each header with two regular expressions.
    """

    held_start: Any = None  # the start of a response that waits for its body

    async def send(self, message: Any) -> None:
        """Send a message; hold the start of a response whose whole body follows."""
        start, self.held_start = self.held_start, None
        if message.get("whole_body_follows"):  # `ResponseSender.send_json` sets it
            self.held_start = message
        elif start and not message.get("more_body"):
            await self.send_whole(start, message["body"])
        else:
            if start:  # middleware sends the body in parts
                await super().send(start)
            await super().send(message)

    async def send_whole(self, start: Any, body: bytes) -> None:
        """Send head and body."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        headers = self.default_headers + start["headers"]
        if (b"connection", b"close") in headers:
            self.keep_alive = False
        elif not self.keep_alive:
            headers.append((b"connection", b"close"))
        head = b"".join([b"%b: %b\r\n" % header for header in headers])
        content = b"" if self.scope["method"] == "HEAD" else body
        self.transport.write(b"%b%b\r\n%b" % (STATUS_LINE[start["status"]], head, content))
        self.response_started = self.response_complete = True
        self.waiting_for_100_continue = False
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()


class LingeringTransport:
    """The transport of a response cycle, whose `close` is a lingering close."""

    def __init__(self, transport: Any, close_after_response: Callable[[], None]) -> None:
        self.write = transport.write
        self.is_closing = transport.is_closing
        self.close = close_after_response
