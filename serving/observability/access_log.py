"""The access log: a line for each request on standard output, as text or as JSON."""

import json
import os
import sys
import time
from collections.abc import Iterable
from functools import lru_cache

from prometheus_client import Counter

from serving.observability.background_writer import BackgroundWriter
from serving.observability.timestamp import format_timestamp

MAX_PENDING_LINES = 100_000
MAX_PATH = 200  # characters

LINES_LOST = Counter("access_log_lines_lost", "Access log lines that could not be written")


class AccessLog:
    """Writes a line for each request in the background."""

    def __init__(self, style: str) -> None:
        self.format = {"text": format_text, "json": format_json, "off": None}[style]
        self.writer = BackgroundWriter(write_to_stdout, LINES_LOST, MAX_PENDING_LINES)

    def add(self, method: str, path: str, status: int, seconds: float, request_id: str) -> None:
        """Log a request."""
        if self.format:
            line = self.format(method, path[:MAX_PATH], status, seconds * 1000, request_id)
            self.writer.add(line)


def write_to_stdout(lines: Iterable[str]) -> None:
    """Write lines to standard output; raise OSError if it does not take them."""
    remaining = "".join(lines).encode()
    # Not through `sys.stdout`: its lock could block the end of the process.
    while remaining:
        remaining = remaining[os.write(sys.stdout.fileno(), remaining) :]


def format_text(method: str, path: str, status: int, milliseconds: float, request_id: str) -> str:
    """Return a line of text. The path is quoted, because it may contain line feeds."""
    timestamp = format_timestamp(time.time())
    return f"{timestamp} {method} {quote(path)} {status} {milliseconds:.3f}ms {request_id}\n"


quote = lru_cache(maxsize=100)(json.dumps)


def format_json(method: str, path: str, status: int, milliseconds: float, request_id: str) -> str:
    """Return a line with a JSON object."""
    timestamp = format_timestamp(time.time())
    fields = {"time": timestamp, "method": method, "path": path, "status": status}
    fields |= {"duration_ms": round(milliseconds, 3), "request_id": request_id}
    return json.dumps(fields) + "\n"
