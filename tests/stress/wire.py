"""HTTP/1.1 as it is on the wire, for clients that do not keep to it."""

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass

from house import EXAMPLE
from tests.stress.service import HOST, Service

EXAMPLE_BODY = json.dumps(EXAMPLE).encode()


@dataclass
class Answer:
    """One answer."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes

    def is_well_formed(self) -> bool:
        """Tell whether it is JSON of the one shape, if it is an error, and has an ID."""
        if b"x-request-id" not in self.headers:
            return False
        if self.status < 400:
            return True
        return self.headers.get(b"content-type") == b"application/json" and is_error(self.body)


def is_error(body: bytes) -> bool:
    """Tell whether a body is `{"message": ...}`."""
    try:
        error = json.loads(body)
    except ValueError:
        return False
    if not isinstance(error, dict) or list(error) != ["message"]:
        return False
    message = error["message"]
    reasons = message.values() if isinstance(message, dict) else [message]
    return all(isinstance(reason, str) and reason for reason in reasons)


def request(
    body: bytes = EXAMPLE_BODY, path: str = "/predict", method: str = "POST", *headers: str
) -> bytes:
    """Return a request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: x", "Content-Type: application/json", *headers]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


async def connect(service: Service) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Return a new connection."""
    return await asyncio.open_connection(HOST, service.port, limit=1 << 20)


async def close(writer: asyncio.StreamWriter) -> None:
    """Close a connection, whatever is still to be sent."""
    writer.transport.abort()
    with suppress(OSError):
        await writer.wait_closed()


async def read_answer(reader: asyncio.StreamReader) -> Answer | None:
    """Return the next answer that is final, or none at the end of the connection."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head[:-4].split(b"\r\n")
        status = int(first.split(b" ", 2)[1])
        if status < 200:
            return await read_answer(reader)
        headers = dict(line.lower().split(b": ", 1) for line in lines)
        if headers.get(b"transfer-encoding") == b"chunked":
            return Answer(status, headers, await read_chunks(reader))
        return Answer(status, headers, await reader.readexactly(int(headers[b"content-length"])))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


async def read_chunks(reader: asyncio.StreamReader) -> bytes:
    """Return a chunked body."""
    body = b""
    while size := int(await reader.readline(), 16):
        body += await reader.readexactly(size)
        await reader.readline()
    await reader.readline()
    return body
