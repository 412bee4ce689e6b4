"""Raw connections and HTTP/1.1 responses in asyncio, for clients that violate the protocol."""

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass

from tests.stress.server import HOST, Server


@dataclass
class Response:
    """An HTTP response; the names and values of its headers are in lower case."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes

    def is_well_formed(self) -> bool:
        """Return whether it has a request ID and, if it is an error, the API's error format."""
        if b"x-request-id" not in self.headers:
            return False
        if self.status < 400:
            return True
        return self.headers.get(b"content-type") == b"application/json" and is_error(self.body)


def is_error(body: bytes) -> bool:
    """Return whether a body is `{"message": ...}`, with a text or an object of texts."""
    try:
        error = json.loads(body)
    except ValueError:
        return False
    if not isinstance(error, dict) or list(error) != ["message"]:
        return False
    message = error["message"]
    reasons = message.values() if isinstance(message, dict) else [message]
    return all(isinstance(reason, str) and reason for reason in reasons)


async def connect(server: Server) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a connection to a server."""
    return await asyncio.open_connection(HOST, server.port, limit=1 << 20)


async def close(writer: asyncio.StreamWriter) -> None:
    """Close a connection and discard what is not sent yet."""
    writer.transport.abort()
    with suppress(OSError):
        await writer.wait_closed()


async def read_response(reader: asyncio.StreamReader) -> Response | None:
    """Return the next final response, or None if the connection is closed before its end."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        status_line, *lines = head[:-4].split(b"\r\n")
        status = int(status_line.split(b" ", 2)[1])
        if status < 200:
            return await read_response(reader)
        headers = dict(line.lower().split(b": ", 1) for line in lines)
        if headers.get(b"transfer-encoding") == b"chunked":
            return Response(status, headers, await read_chunked_body(reader))
        return Response(status, headers, await reader.readexactly(int(headers[b"content-length"])))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


async def read_chunked_body(reader: asyncio.StreamReader) -> bytes:
    """Return a body in chunked transfer encoding."""
    body = b""
    while size := int(await reader.readline(), 16):
        body += await reader.readexactly(size)
        await reader.readline()
    await reader.readline()
    return body


def closes_connection(response: Response | None) -> bool:
    """Return whether the server closes the connection after this response, or has closed it."""
    return response is None or response.headers.get(b"connection") == b"close"
