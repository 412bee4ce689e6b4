"""uvicorn's HTTP connection with header timeout, size and pipelining limits and lingering close.

uvicorn limits neither the time nor the size of a request's head. It answers malformed requests in
plain text and logs a warning for each. It reads a rejected body to its end, or resets the
connection.
"""

import asyncio
from collections import deque
from typing import Any, Protocol

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving._bentoml.response_cycle import LingeringTransport
from serving.errors import (
    MAX_HEAD_BYTES,
    RETRY_AFTER,
    APIError,
    head_too_large,
    request_timeout_error,
)

# Pipelined requests that wait for earlier responses. One read by uvloop can hold thousands.
MAX_PIPELINE = 16
# Lingering close: closing a connection with unread bytes resets it, and the client may lose the
# response. Limits on what the client may still send, and on the time until it closes.
LINGER_BYTES = 1 << 20
LINGER_SECONDS = 2
# During shutdown, a connection that has waited this long for a request closes.
DRAIN_SECONDS = 1
# Carries an error to the application (`Connection.reject`). Its body never arrives, so after the
# response the connection discards what the client still sends, and closes (lingering close).
SYNTHETIC_REQUEST = b"GET / HTTP/1.1\r\nHost:\r\nContent-Length: 1\r\n\r\n"
# Replaces the list of headers once a head is complete, to drop the trailers of the request, which
# uvicorn's `on_header` would append.
NO_TRAILERS: deque[tuple[bytes, bytes]] = deque(maxlen=0)


class ConnectionOwner(Protocol):
    """What a connection needs of its server."""

    request_timeout: float  # seconds
    # The connections that wait for a request, or for the rest of its head, while none is in
    # progress. The longest wait is first; value: start of the wait.
    waiting: "dict[Connection, float]"

    @property
    def draining(self) -> bool:
        """Whether the server is shutting down."""

    def register(self, connection: "Connection") -> None:
        """Accept a new connection."""


class Connection(HttpToolsProtocol):
    """A connection whose protocol errors are answered by the application, in pipeline order.

    `cycle` (uvicorn's) is the newest request and its response. It need not be the one in progress:
    with pipelining, requests wait in `pipeline` until the earlier ones are answered. If the client
    does not close the connection, the server does for these reasons:

    | event | code | time limit |
    |---|---|---|
    | no request begins on a new connection | `wait_for_request` | REQUEST_TIMEOUT |
    | no request follows a response | uvicorn's `on_response_complete` | KEEP_ALIVE |
    | the head of a request stays incomplete | `header_timeout_handler` (408) | REQUEST_TIMEOUT |
    | a request is rejected | `reject`, `close_after_response` | LINGER_SECONDS |
    | a response has "Connection: close" | `close_after_response` | at once* |
    | the client does not read its responses | `start_write_timer` | REQUEST_TIMEOUT |
    | too much data arrives after an error | `data_received` | at once |
    | too many connections; this one has waited longest | `Server.register` | at once |
    | shutdown, and no request begins | `drain`, `wait_for_request` | DRAIN_SECONDS |

    *: LINGER_SECONDS if the body of its request is incomplete.
    The time limit of a head starts with its first byte, but not before the response to the previous
    request has been sent. The application limits the time of a body and of a prediction.
    """

    def __init__(self, owner: ConnectionOwner, **uvicorn_arguments: Any) -> None:
        super().__init__(**uvicorn_arguments)
        self.owner = owner
        self.access_log = False  # uvicorn's; `ServiceApp` writes the access log
        self.head_has_begun = False  # True from the first byte of a head until it is complete
        # Bytes received of a head that is not complete yet. `data_received` adds the size of each
        # read before it is parsed; the end of a head and each part of a body set it to 0. So the
        # beginning of a head in the same read as the end of the previous request is not counted;
        # `check_head` counts the whole head once it is complete.
        self.incomplete_head_bytes = 0
        # After an error or the last response: how many bytes may still arrive, and be discarded.
        # None: what arrives is parsed.
        self.discard_budget: int | None = None
        self.last_response_written = False
        self.header_timer: asyncio.TimerHandle | None = None
        self.write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Wait for a first request."""
        super().connection_made(transport)
        self.lingering_transport = LingeringTransport(self.transport, self.close_after_response)
        self.owner.register(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Remove the connection from the server's lists, and cancel its timers."""
        self.owner.waiting.pop(self, None)
        self._unset_keepalive_if_required()
        cancel(self.header_timer)
        cancel(self.write_timer)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse data or, after an error, discard it."""
        if self.discard_budget is not None:
            self.discard_budget -= len(data)
            if self.discard_budget < 0:
                self.close()
            return
        self._unset_keepalive_if_required()
        self.incomplete_head_bytes += len(data)
        try:
            self.parse(data)
            self.limit_incomplete_head()
        except APIError as error:
            self.reject(error)
        # During shutdown, close after the response. `drain` does this only for earlier requests.
        if self.owner.draining and self.cycle:
            self.cycle.keep_alive = False

    def parse(self, data: bytes) -> None:
        """Pass data to the parser, which calls the methods `on_...`; raise APIError if invalid."""
        unparsed: bytes | None = data
        while unparsed is not None:
            unparsed = self.feed_parser(unparsed)

    def feed_parser(self, data: bytes) -> bytes | None:
        """Parse data; return what is to be parsed again after a header Upgrade, or None."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            return self.ignore_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            # An exception of a callback is the `__context__` of the exception of the parser.
            cause = error.__context__
            raise cause if isinstance(cause, APIError) else malformed(error) from None
        return None

    def limit_incomplete_head(self) -> None:
        """Raise APIError if an incomplete head is too large; otherwise limit its time."""
        if self.incomplete_head_bytes > MAX_HEAD_BYTES:
            raise head_too_large()
        # The connection still waits for a request: data has arrived, but no complete head.
        if self in self.owner.waiting and not self.header_timer:
            self.start_header_timer()

    def on_message_begin(self) -> None:
        """Begin to receive a head."""
        self.head_has_begun = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Start a request; if its head is invalid, raise APIError for `data_received` to answer."""
        self.check_head()
        if self.parser.should_upgrade():
            return  # the request is parsed again (`ignore_upgrade`)
        self.head_has_begun = False
        self.incomplete_head_bytes = 0
        self.owner.waiting.pop(self, None)
        self.stop_header_timer()
        super().on_headers_complete()
        self.cycle.transport = self.lingering_transport
        # The scope now holds the list of headers, to which uvicorn would append trailers.
        self.headers = NO_TRAILERS

    def check_head(self) -> None:
        """Raise APIError if a head is too large or invalid, or one too many in the pipeline."""
        if head_size(self.url, self.headers) > MAX_HEAD_BYTES:
            raise head_too_large()
        hosts = [name for name, _ in self.headers].count(b"host")
        if hosts > 1 or (not hosts and self.parser.get_http_version() == "1.1"):
            raise APIError(400, "Send HTTP/1.1, with exactly one Host header")
        if self.parser.get_method() == b"CONNECT":
            raise APIError(405, "CONNECT is not supported", {"Allow": "GET, HEAD, POST"})
        # The synthetic request is exempt: it is the only one that is parsed although there is a
        # budget.
        if len(self.pipeline) >= MAX_PIPELINE and self.discard_budget is None:
            message = "Too many pipelined requests; wait for responses before you send more"
            raise APIError(429, message, RETRY_AFTER)

    def on_body(self, body: bytes) -> None:
        """Receive a part of the body."""
        self.incomplete_head_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Receive the end of a request, but not of one that is parsed again (`ignore_upgrade`)."""
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Continue with the next pipelined request, or wait for one."""
        if self.last_response_written:  # the cycle has closed `lingering_transport`
            return
        super().on_response_complete()
        # `cycle` is the newest request. If that has been answered, none waits in `pipeline`.
        if self.cycle.response_complete and not self.transport.is_closing():
            self.owner.waiting[self] = self.loop.time()
            if self.head_has_begun:  # during the response
                self._unset_keepalive_if_required()
                self.start_header_timer()

    def eof_received(self) -> bool:
        """Keep a half-closed connection open for the response to a complete request."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete or cycle.more_body:
            return False
        cycle.keep_alive = False
        return True

    def close_after_response(self) -> None:
        """Close now if the request is complete; otherwise discard the rest until the client closes.

        The limits of this are LINGER_BYTES and LINGER_SECONDS.
        """
        self.last_response_written = True
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
        """Close after the last response or, if idle, once idle for DRAIN_SECONDS.

        A client that has just got a response may be sending its next request, and would lose it if
        the connection closed now. A connection that has been idle for longer closes at once. If a
        head is arriving, `data_received` has the connection close after the response.
        """
        waiting_since = self.owner.waiting.get(self)
        if waiting_since and not self.header_timer:
            self.close_at(waiting_since + DRAIN_SECONDS)
        elif self.cycle:  # has no effect if it has been answered, while a head is arriving
            self.cycle.keep_alive = False

    def wait_for_request(self, seconds: float) -> None:
        """Wait for a first request; close unless it begins in time."""
        self.owner.waiting[self] = now = self.loop.time()
        self.close_at(now + seconds)

    def close_at(self, when: float) -> None:
        """Close at a time of the event loop's clock, unless a request begins before.

        This is uvicorn's keep-alive timer. `data_received` cancels it, except for data that it
        discards.
        """
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_at(when, self.timeout_keep_alive_handler)

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection whose time is over (`close_at`); uvicorn's timer calls this."""
        self.close()

    def start_header_timer(self) -> None:
        """Limit the time until the head is complete."""
        self.header_timer = self.loop.call_later(
            self.owner.request_timeout, self.header_timeout_handler
        )

    def stop_header_timer(self) -> None:
        """Stop the timer, if it runs."""
        cancel(self.header_timer)
        self.header_timer = None

    def header_timeout_handler(self) -> None:
        """Reject a request whose head is not complete in time."""
        self.reject(request_timeout_error(self.owner.request_timeout))

    def reject(self, error: APIError) -> None:
        """Have the application send an error for a request that is rejected here, and then close.

        The request is malformed, too large, too slow or one too many in the pipeline, for example.
        If the body of a request is arriving, that request gets the error. Otherwise a synthetic
        request does, which waits for its turn in `pipeline`: so the error is sent after the earlier
        responses, and counted and logged like any other.
        """
        self.stop_parsing()
        if not self.body_is_arriving():
            self.start_synthetic_request()
        self.scope["state"]["protocol_error"] = error  # for `BodyReader.protocol_error`
        self.cycle.keep_alive = False  # close `lingering_transport` after the response
        self.cycle.message_event.set()  # wake the application if it waits for the body

    def stop_parsing(self) -> None:
        """Discard what else arrives, within limits."""
        self.discard_budget = LINGER_BYTES
        self.stop_header_timer()

    def body_is_arriving(self) -> bool:
        """Return whether the newest request still lacks a part of its body, and its response."""
        cycle = self.cycle
        return cycle is not None and not cycle.response_complete and cycle.more_body

    def start_synthetic_request(self) -> None:
        """Parse a request that the client has not sent, to have the application respond."""
        self.new_parser().feed_data(SYNTHETIC_REQUEST)
        self.scope.update(method="-", path="-")  # for the access log and the metrics

    def ignore_upgrade(self, remaining: bytes) -> bytes:
        """Return the request without its header Upgrade, for a new parser.

        HTTP lets a server ignore this header. The parser has stopped after the head, because it
        takes the rest, even a body, for data of the new protocol; `remaining` is that rest.
        """
        version = self.parser.get_http_version().encode()
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, version)]
        lines += [b"%s: %s" % field for field in self.scope["headers"] if field[0] != b"upgrade"]
        self.new_parser()
        return b"\r\n".join([*lines, b"", remaining])

    def new_parser(self) -> httptools.HttpRequestParser:
        """Replace the parser by a new one."""
        self.parser = httptools.HttpRequestParser(self)
        return self.parser


def malformed(error: httptools.HttpParserError) -> APIError:
    """Return the error of a request that httptools rejects; its reasons are fixed texts."""
    return APIError(400, f"The request is not valid HTTP/1.1: {error}")


def head_size(url: bytes, headers: list[tuple[bytes, bytes]]) -> int:
    """Return the approximate size of a request line and headers, in bytes."""
    return len(url) + sum(len(name) + len(value) + len(": \r\n") for name, value in headers)


def cancel(timer: asyncio.TimerHandle | None) -> None:
    """Cancel a timer, if there is one."""
    if timer:
        timer.cancel()
