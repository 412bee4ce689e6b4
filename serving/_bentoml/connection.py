"""A connection: uvicorn's, with limits for what comes before the application has a request.

uvicorn lets a head take for ever, and be of any size; it answers what is no HTTP in a shape of its
own, and logs it; it reads all of a body that nobody wants, or resets the connection.
"""

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving.errors import MAX_HEAD, RETRY_AFTER, Refusal, head_too_large, too_slow

if TYPE_CHECKING:
    from serving._bentoml.server import Server

# Requests that wait for the answers to those before them; a read of uvloop's can hold thousands.
MAX_PIPELINE = 16
# A connection that is closed with bytes unread is reset, and the answer can be lost with it: the
# client has so much time to read it, and to stop sending.
LINGER_BYTES, LINGER_SECONDS = 1 << 20, 2
# When the service ends, a client that was busy has so much time to send its next request.
LEAVE_SECONDS = 1
# Gives what is no request a place among those that are; its body never ends.
NO_REQUEST = b"GET / HTTP/1.1\r\nHost:\r\nContent-Length: 1\r\n\r\n"
NO_TRAILERS: deque[tuple[bytes, bytes]] = deque(maxlen=0)


class Connection(HttpToolsProtocol):
    """One connection; what is no request is answered like one: by the edge, in its turn."""

    def __init__(self, owner: "Server", **given: Any) -> None:
        super().__init__(**given)
        self.owner = owner
        self.access_log = False  # the edge writes one; uvicorn makes lines that nobody reads
        self.unread = 0  # bytes since the parser has last let something out
        self.to_drop: int | None = None  # bytes, once nothing that comes is read any more
        self.ended = False
        self.head_timer: asyncio.TimerHandle | None = None
        # For answers that the client does not read.
        self.write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Wait for a first request."""
        super().connection_made(transport)
        self.output = Output(self)
        self.owner.admit(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self.owner.waiting.pop(self, None)
        stop(self.owner.aside.pop(self, None))
        self._unset_keepalive_if_required()
        stop(self.head_timer)
        stop(self.write_timer)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read requests; have what is none, or has too long a head, refused."""
        if self.to_drop is not None:
            self.to_drop -= len(data)
            if self.to_drop < 0:
                self.close()
            return
        self._unset_keepalive_if_required()
        self.unread += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self.ignore_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            cause = error.__context__
            self.refuse(cause if isinstance(cause, Refusal) else Refusal(400, "Send HTTP/1.1"))
        else:
            if self.unread > MAX_HEAD:
                self.refuse(head_too_large())
            elif self in self.owner.waiting and not self.head_timer:
                self.head_timer = self.loop.call_later(self.owner.request_timeout, self.refuse_late)
        if self.owner.edge.closing and self.cycle:
            self.cycle.keep_alive = False

    def on_headers_complete(self) -> None:
        """Begin a request, unless its head is too long in all."""
        if self.unread > MAX_HEAD and head_size(self.url, self.headers) > MAX_HEAD:
            raise head_too_large()
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts > 1 or (not hosts and self.parser.get_http_version() == "1.1"):
            raise Refusal(400, "Send HTTP/1.1, with one header Host")
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise Refusal(405, "This is no proxy", {"Allow": "GET, HEAD, POST"})
            return
        if len(self.pipeline) >= MAX_PIPELINE and self.to_drop is None:
            raise Refusal(429, "Wait for answers before you send more requests", RETRY_AFTER)
        self.unread = 0
        self.owner.waiting.pop(self, None)
        if self.head_timer:
            stop(self.head_timer)
            self.head_timer = None
        super().on_headers_complete()
        self.cycle.transport = self.output
        # The list is in the scope now, and must not grow by what comes behind the body.
        self.headers = NO_TRAILERS

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self.unread = 0
        super().on_body(body)

    def on_response_complete(self) -> None:
        """Wait for the next request, if it has not come already and there is to be one."""
        self.output.flush()
        if self.ended:
            return
        super().on_response_complete()
        if self.cycle.response_complete and not self.transport.is_closing():
            self.owner.waiting[self] = self.loop.time()
            if self.cycle.scope["state"].get("busy"):
                self.owner.set_aside(self)

    def eof_received(self) -> bool:
        """Answer a client that has ended its side behind a whole request; close otherwise."""
        self.output.flush()
        cycle = self.cycle
        if cycle is None or cycle.response_complete or cycle.more_body:
            return False
        cycle.keep_alive = False
        return True

    def end(self) -> None:
        """Close when all has been read, or else when the client has had time to read the answer."""
        self.ended = True
        self.output.flush()
        if not self.cycle.more_body:
            self.close()
            return
        self.to_drop = LINGER_BYTES
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.close_at(self.loop.time() + LINGER_SECONDS)

    def close(self) -> None:
        """Close once the client has read its answers, for which it has so much time."""
        self.output.flush()
        self.transport.close()
        self.write_timer = self.loop.call_later(self.owner.request_timeout, self.transport.abort)

    def pause_writing(self) -> None:
        """Wait until the client reads its answers, for so much time."""
        super().pause_writing()
        self.write_timer = self.loop.call_later(self.owner.request_timeout, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on writing."""
        if not self.transport.is_closing():
            stop(self.write_timer)
        super().resume_writing()

    def shutdown(self) -> None:
        """Close after the answer in progress; without one, once the client has been idle a while.

        A client that is busy sends its next request in the very moment in which an idle connection
        would be closed, and would lose it.
        """
        since = self.owner.waiting.get(self)
        if since and not self.head_timer:
            self.close_at(since + LEAVE_SECONDS)
        elif self.cycle:
            self.cycle.keep_alive = False

    def wait(self, seconds: float) -> None:
        """Wait so long for a request."""
        self.owner.waiting.pop(self, None)  # for the order
        self.owner.waiting[self] = now = self.loop.time()
        self.close_at(now + seconds)

    def close_at(self, when: float) -> None:
        """Close unless something arrives before."""
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_at(when, self.timeout_keep_alive_handler)

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection on which nothing has arrived in time."""
        self.close()

    def refuse_late(self) -> None:
        """Refuse a head that is not complete in time."""
        self.refuse(too_slow(self.owner.request_timeout))

    def refuse(self, refusal: Refusal) -> None:
        """Have the edge answer what is no request, or the one whose body is at fault, and close."""
        self.to_drop = LINGER_BYTES
        stop(self.head_timer)
        self.head_timer = None
        cycle = self.cycle
        if cycle is None or cycle.response_complete or not cycle.more_body:
            self.new_parser().feed_data(NO_REQUEST)
            self.scope.update(method="-", path="-")
        self.scope["state"]["refusal"] = refusal
        self.cycle.message_event.set()

    def _should_upgrade(self) -> bool:
        """Stop at a request for an upgrade, as the parser does, and begin none."""
        return True

    def ignore_upgrade(self, rest: bytes) -> None:
        """Read a request without its wish for another protocol, which a server may ignore.

        The parser takes what follows for that protocol, be it the body.
        """
        version = self.parser.get_http_version().encode()
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, version)]
        lines += [b"%s: %s" % field for field in self.scope["headers"] if field[0] != b"upgrade"]
        self.new_parser()
        self.data_received(b"\r\n".join([*lines, b"", rest]))

    def new_parser(self) -> httptools.HttpRequestParser:
        """Begin to read anew."""
        self.parser = httptools.HttpRequestParser(self)
        return self.parser


class Output:
    """The transport by which uvicorn answers: a head waits for what follows it.

    To send them apart would cost the service, and the client, a system call more.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.head = b""

    def write(self, part: bytes) -> None:
        """Send a part of the answer, or keep it if it is a head."""
        if part.startswith(b"HTTP/1.1 ") and not part.startswith(b"HTTP/1.1 1"):  # 100 Continue
            self.head += part
        else:
            self.connection.transport.write(self.head + part)
            self.head = b""

    def flush(self) -> None:
        """Send a head that nothing follows."""
        if self.head and not self.is_closing():
            self.write(b"")

    def is_closing(self) -> bool:
        """Tell whether the connection is closing."""
        return self.connection.transport.is_closing()

    def close(self) -> None:
        """Close when all has been said."""
        self.connection.end()


def head_size(url: bytes, headers: list[tuple[bytes, bytes]]) -> int:
    """Return the bytes of a head, roughly."""
    return len(url) + sum(len(name) + len(value) + len(": \r\n") for name, value in headers)


def stop(timer: asyncio.TimerHandle | None) -> None:
    """Stop a timer, if there is one."""
    if timer:
        timer.cancel()
