"""One HTTP connection: uvicorn's, with limits on everything before a complete request.

uvicorn sets no limit on the time and size of a request's head. It answers malformed requests with
plain text and logs them. It reads all of a body that nobody wants, or resets the connection.
"""

import asyncio
from collections import deque
from typing import Any, Protocol

import httptools
from uvicorn.protocols.http import httptools_impl
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from serving.errors import MAX_HEAD_BYTES, RETRY_AFTER, APIError, head_too_large, request_timeout

# Pipelined requests that wait for earlier responses. One read of uvloop's can hold thousands.
MAX_PIPELINE = 16
# Lingering close: closing a connection with unread bytes resets it, and the client may lose the
# response. The client gets this much time to read it and to stop sending.
LINGER_BYTES, LINGER_SECONDS = 1 << 20, 2
# During shutdown, the time for a client to send its next request on an open connection.
DRAIN_SECONDS = 1
# A synthetic request that carries a protocol error through the application, in pipeline order. Its
# body never ends.
SYNTHETIC_REQUEST = b"GET / HTTP/1.1\r\nHost:\r\nContent-Length: 1\r\n\r\n"
NO_TRAILERS: deque[tuple[bytes, bytes]] = deque(maxlen=0)


class ConnectionOwner(Protocol):
    """What a connection needs of its server."""

    request_timeout: float  # seconds
    # Connections that wait for a request, since when, the longest waiting first.
    waiting: "dict[Connection, float]"

    @property
    def draining(self) -> bool:
        """Whether the server is shutting down."""

    def register(self, connection: "Connection") -> None:
        """Accept a new connection."""


class Connection(HttpToolsProtocol):
    """A connection whose protocol errors are answered by the application, in pipeline order."""

    def __init__(self, owner: ConnectionOwner, **uvicorn_arguments: Any) -> None:
        super().__init__(**uvicorn_arguments)
        self.owner = owner
        self.access_log = False  # the application writes one; uvicorn would format lines in vain
        self.unparsed_bytes = 0  # bytes since the last complete head or part of a body
        self.discard_budget: int | None = None  # bytes, once incoming data are discarded
        self.lingering = False
        self.header_timer: asyncio.TimerHandle | None = None
        self.write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Wait for a first request."""
        super().connection_made(transport)
        self.lingering_transport = LingeringTransport(self)
        self.owner.register(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Remove the connection from the server's lists, and cancel its timers."""
        self.owner.waiting.pop(self, None)
        self._unset_keepalive_if_required()
        cancel(self.header_timer)
        cancel(self.write_timer)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse requests; answer malformed ones and too large heads with an error."""
        if self.discard_budget is not None:
            self.discard_budget -= len(data)
            if self.discard_budget < 0:
                self.close()
            return
        self._unset_keepalive_if_required()
        self.unparsed_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self.ignore_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            cause = error.__context__
            self.reject(cause if isinstance(cause, APIError) else malformed(error))
        else:
            if self.unparsed_bytes > MAX_HEAD_BYTES:
                self.reject(head_too_large())
            elif self in self.owner.waiting and not self.header_timer:
                self.header_timer = self.loop.call_later(
                    self.owner.request_timeout, self.header_timeout_handler
                )
        if self.owner.draining and self.cycle:
            self.cycle.keep_alive = False

    def on_headers_complete(self) -> None:
        """Start a request, unless its head breaks a rule."""
        if self.unparsed_bytes > MAX_HEAD_BYTES and (
            head_size(self.url, self.headers) > MAX_HEAD_BYTES
        ):
            raise head_too_large()
        hosts = [name for name, _ in self.headers].count(b"host")
        if hosts > 1 or (not hosts and self.parser.get_http_version() == "1.1"):
            raise APIError(400, "Send HTTP/1.1, with one header Host")
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise APIError(405, "This is no proxy", {"Allow": "GET, HEAD, POST"})
            return
        if len(self.pipeline) >= MAX_PIPELINE and self.discard_budget is None:
            raise APIError(429, "Wait for answers before you send more requests", RETRY_AFTER)
        self.unparsed_bytes = 0
        self.owner.waiting.pop(self, None)
        if self.header_timer:
            cancel(self.header_timer)
            self.header_timer = None
        super().on_headers_complete()
        self.cycle.transport = self.lingering_transport
        # The scope holds the list of headers now: trailers must not be appended to it.
        self.headers = NO_TRAILERS

    def on_body(self, body: bytes) -> None:
        """Receive a part of the body."""
        self.unparsed_bytes = 0
        super().on_body(body)

    def on_response_complete(self) -> None:
        """Continue with the next pipelined request, or wait for one."""
        if self.lingering:
            return
        super().on_response_complete()
        if self.cycle.response_complete and not self.transport.is_closing():
            self.owner.waiting[self] = self.loop.time()

    def eof_received(self) -> bool:
        """Answer a client that has closed its side after a complete request; otherwise close."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete or cycle.more_body:
            return False
        cycle.keep_alive = False
        return True

    def close_after_response(self) -> None:
        """Close now if the request was read; otherwise linger, so that the response arrives."""
        self.lingering = True
        if not self.cycle.more_body:
            self.close()
            return
        self.discard_budget = LINGER_BYTES
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.close_at(self.loop.time() + LINGER_SECONDS)

    def close(self) -> None:
        """Close once the client has read its responses; abort if it does not read in time."""
        self.transport.close()
        self.start_write_timer()

    def pause_writing(self) -> None:
        """Wait for the client to read; abort if it does not read in time."""
        super().pause_writing()
        self.start_write_timer()

    def resume_writing(self) -> None:
        """Continue to write."""
        if not self.transport.is_closing():
            cancel(self.write_timer)
        super().resume_writing()

    def start_write_timer(self) -> None:
        """Abort the connection after the request timeout, unless cancelled."""
        self.write_timer = self.loop.call_later(self.owner.request_timeout, self.transport.abort)

    def drain(self) -> None:
        """Close after the current response or, if idle, after DRAIN_SECONDS.

        A busy client may send its next request at the very moment when an idle connection is
        closed, and would lose it.
        """
        waiting_since = self.owner.waiting.get(self)
        if waiting_since and not self.header_timer:
            self.close_at(waiting_since + DRAIN_SECONDS)
        elif self.cycle:
            self.cycle.keep_alive = False

    def wait_for_request(self, seconds: float) -> None:
        """Close unless a request begins in time."""
        self.owner.waiting.pop(self, None)  # to keep the longest waiting first
        self.owner.waiting[self] = now = self.loop.time()
        self.close_at(now + seconds)

    def close_at(self, when: float) -> None:
        """Close at a time of the event loop's clock, unless data arrive before."""
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_at(when, self.timeout_keep_alive_handler)

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection on which nothing has arrived in time."""
        self.close()

    def header_timeout_handler(self) -> None:
        """Reject a request whose head is not complete in time."""
        self.reject(request_timeout(self.owner.request_timeout))

    def reject(self, error: APIError) -> None:
        """Have the application send an error for what cannot be parsed, and close."""
        self.discard_budget = LINGER_BYTES
        cancel(self.header_timer)
        self.header_timer = None
        cycle = self.cycle
        if cycle is None or cycle.response_complete or not cycle.more_body:
            # No request is being received that the error could belong to.
            self.new_parser().feed_data(SYNTHETIC_REQUEST)
            self.scope.update(method="-", path="-")
        self.scope["state"]["protocol_error"] = error
        self.cycle.message_event.set()

    def _should_upgrade(self) -> bool:
        """Make the parser stop at `Upgrade`, so that `ignore_upgrade` can handle it."""
        return True

    def ignore_upgrade(self, remaining: bytes) -> None:
        """Parse the request again without its header Upgrade; HTTP lets a server ignore it.

        The parser takes everything after the head for the new protocol, even the body.
        """
        version = self.parser.get_http_version().encode()
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, version)]
        lines += [b"%s: %s" % field for field in self.scope["headers"] if field[0] != b"upgrade"]
        self.new_parser()
        self.data_received(b"\r\n".join([*lines, b"", remaining]))

    def new_parser(self) -> httptools.HttpRequestParser:
        """Replace the parser by a new one."""
        self.parser = httptools.HttpRequestParser(self)
        return self.parser


class ResponseCycle(RequestResponseCycle):
    """uvicorn's request and response, which sends the responses of `ServiceApp` in one piece.

    uvicorn would check each header with two regular expressions, and send head and body apart.
    """

    start: Any = None  # the message that `send` has got, but not sent

    async def send(self, message: Any) -> None:
        """Send a message; keep the start of a response whose whole body follows."""
        start, self.start = self.start, None
        if message.get("whole_body_follows"):
            self.start = message
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
    """The transport to which uvicorn writes responses; `close` lets the last one arrive."""

    def __init__(self, connection: Connection) -> None:
        self.write = connection.transport.write
        self.is_closing = connection.transport.is_closing
        self.close = connection.close_after_response


httptools_impl.RequestResponseCycle = ResponseCycle


def malformed(error: httptools.HttpParserError) -> APIError:
    """Return the error of a request that the parser refuses; its reasons are fixed texts."""
    return APIError(400, f"The request is not valid HTTP/1.1: {error}")


def head_size(url: bytes, headers: list[tuple[bytes, bytes]]) -> int:
    """Return the approximate size of a request line and headers, in bytes."""
    return len(url) + sum(len(name) + len(value) + len(": \r\n") for name, value in headers)


def cancel(timer: asyncio.TimerHandle | None) -> None:
    """Cancel a timer, if there is one."""
    if timer:
        timer.cancel()
