"""Write requests and read responses on a raw socket."""

import json
import re
import socket
from contextlib import suppress

from house import EXAMPLE

EXAMPLE_BODY = json.dumps(EXAMPLE).encode()


def request(path="/predict", *headers, method="POST", body=EXAMPLE_BODY, length=None):
    """Return the bytes of a request; `length` overrides its Content-Length."""
    lines = [f"{method} {path} HTTP/1.1", "Host: x", "Content-Type: application/json"]
    lines += [*headers, f"Content-Length: {len(body) if length is None else length}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


# The head of a request whose body is sent in chunks.
CHUNKED_HEAD = request(body=b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")


def connect(client):
    """Return a connection to a service."""
    return socket.create_connection((client.base_url.host, client.base_url.port), timeout=10)


def read_responses(connection, limit=100):
    """Read responses up to the limit or the end; return their statuses, headers and bodies."""
    responses = []
    with connection.makefile("rb", buffering=0) as stream, suppress(ConnectionResetError):
        while len(responses) < limit and (line := stream.readline()):
            lines = b"".join(iter(stream.readline, b"\r\n")).decode().lower()
            headers = dict(re.findall(r"(.*?): (.*)\r\n", lines))
            body = b""
            while len(body) < int(headers.get("content-length", 0)):
                body += stream.read(int(headers["content-length"]) - len(body))
            responses.append((int(line.split()[1]), headers, json.loads(body.strip() or "null")))
    return responses


def read_last_response(connection):
    """Return the last response on a connection."""
    return read_responses(connection)[-1]
