"""How responses are written to a connection."""

import asyncio
import logging
from types import SimpleNamespace

import pytest
from uvicorn.protocols.http import httptools_impl

from serving._bentoml import response_cycle
from serving._bentoml.response_cycle import ResponseCycle

HEADERS = [(b"content-length", b"4"), (b"x-request-id", b"a")]
START = {"type": "http.response.start", "status": 200, "headers": HEADERS}
WHOLE = START | {"whole_body_follows": True}
HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nx-request-id: a\r\n"


def write(*messages, method="POST", keep_alive=True):
    """Send messages, and return what is written to the transport, and whether it is closed."""
    written, closed = [], []
    logger = logging.getLogger("test")
    cycle = ResponseCycle(
        scope={"type": "http", "method": method},
        transport=SimpleNamespace(write=written.append, close=lambda: closed.append(True)),
        flow=SimpleNamespace(write_paused=False),
        logger=logger,
        access_logger=logger,
        access_log=False,
        default_headers=[],
        message_event=asyncio.Event(),
        expect_100_continue=False,
        keep_alive=keep_alive,
        on_response=lambda: None,
    )

    async def send_all():
        for message in messages:
            await cycle.send(message)

    asyncio.run(send_all())
    assert cycle.response_complete
    return written, bool(closed)


def body(content, more_body=False):
    """Return the message of a part of the body."""
    return {"type": "http.response.body", "body": content, "more_body": more_body}


def test_uvicorn_creates_the_installed_cycle():
    """Its protocol looks up the global name that `install` replaces."""
    response_cycle.install()
    assert httptools_impl.RequestResponseCycle is ResponseCycle
    create_cycle = httptools_impl.HttpToolsProtocol.on_headers_complete
    assert "RequestResponseCycle" in create_cycle.__code__.co_names


@pytest.mark.parametrize(
    ("options", "written", "closed"),
    [
        pytest.param({}, HEAD + b"\r\nabcd", False, id="kept alive"),
        pytest.param(
            {"keep_alive": False},
            HEAD + b"connection: close\r\n\r\nabcd",
            True,
            id="not kept alive",
        ),
        pytest.param({"method": "HEAD"}, HEAD + b"\r\n", False, id="HEAD"),
    ],
)
def test_whole_response_is_one_write(options, written, closed):
    """Its bytes are those that uvicorn writes in two parts."""
    assert write(WHOLE, body(b"abcd"), **options) == ([written], closed)
    parts, closed_by_uvicorn = write(START, body(b"abcd"), **options)
    assert (b"".join(parts), closed_by_uvicorn) == (written, closed)


def test_response_that_asks_to_close_is_closed():
    """The header is not repeated."""
    start = WHOLE | {"headers": [*HEADERS, (b"connection", b"close")]}
    assert write(start, body(b"abcd")) == ([HEAD + b"connection: close\r\n\r\nabcd"], True)


def test_body_that_middleware_sends_in_parts_is_written_whole():
    """Such as compressing middleware; uvicorn writes it."""
    parts, closed = write(WHOLE, body(b"ab", more_body=True), body(b"cd"))
    assert (b"".join(parts), closed) == (HEAD + b"\r\nabcd", False)
