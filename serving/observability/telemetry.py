"""What is told of each request: BentoML's metrics, and a line of the access log."""

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from functools import cache, lru_cache
from traceback import format_tb
from typing import Any

from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.context import server_context
from prometheus_client import Counter, Gauge, Histogram

from serving.observability.background_writer import Spool

MAX_LINES = 100_000
MAX_PATH = 200

LINES_LOST = Counter("access_log_lines_lost", "Access log lines that could not be written")


class RequestMetrics:
    """BentoML's request metrics, under their names and labels, for a known set of endpoints.

    BentoML's middleware looks four labelled series up in each request, and adds twenty for each
    path that anybody tries. Here each is looked up once, and an unknown path is one endpoint.
    """

    def __init__(self, endpoints: Iterable[str]) -> None:
        total, duration, in_progress, last = instruments()
        where = {
            "service_name": server_context.bento_name,
            "service_version": server_context.bento_version,
            "runner_name": server_context.service_name,
        }
        self.last = last.labels(**where)
        self.in_progress = cache(lambda endpoint: in_progress.labels(endpoint=endpoint, **where))
        self.answers = cache(
            lambda endpoint, status: tuple(
                metric.labels(endpoint=endpoint, http_response_code=status, **where)
                for metric in (total, duration)
            )
        )
        for endpoint in endpoints:
            # A series that begins at its first request shows no rate for it.
            self.answers(endpoint, 200)
            self.answers(endpoint, 500)

    def begin(self, endpoint: str, logged: bool) -> None:
        """Count a request in; what is not logged is no sign that anybody uses the service."""
        self.in_progress(endpoint).inc()
        if logged:
            self.last.set(time.time())

    def end(self, endpoint: str, status: int, seconds: float) -> None:
        """Count a request out, by the status of its answer."""
        total, duration = self.answers(endpoint, status)
        total.inc()
        duration.observe(seconds)
        self.in_progress(endpoint).dec()


@cache
def instruments() -> tuple[Any, ...]:
    """Register the metrics, which is possible once in a process."""
    where = ["endpoint", "service_name", "service_version", "runner_name"]
    answer = [*where, "http_response_code"]
    name = {"namespace": BentoMLContainer.api_server_config.metrics.namespace.get()}
    buckets = BentoMLContainer.duration_buckets.get()
    return (
        Counter("request_total", "HTTP requests", answer, **name),
        Histogram("request_duration_seconds", "Their duration", answer, buckets=buckets, **name),
        Gauge(
            "request_in_progress", "HTTP requests now", where, multiprocess_mode="livesum", **name
        ),
        Gauge(
            "last_request_timestamp_seconds",
            "Time of the last request",
            where[1:],
            multiprocess_mode="max",
            **name,
        ),
    )


class AccessLog:
    """A line for each request on standard output."""

    def __init__(self, style: str) -> None:
        self.format = {"text": as_text, "json": as_json, "off": None}[style]
        self.spool = Spool(write, LINES_LOST, MAX_LINES)

    def add(self, method: str, path: str, status: int, seconds: float, request_id: str) -> None:
        """Note a request."""
        if self.format:
            line = self.format(method, path[:MAX_PATH], status, seconds * 1000, request_id)
            self.spool.add(line)


def write(lines: Iterable[str]) -> None:
    """Write lines to standard output; raise OSError."""
    rest = "".join(lines).encode()
    # Not through `sys.stdout`, whose lock would keep the process from ending.
    while rest:
        rest = rest[os.write(sys.stdout.fileno(), rest) :]


def as_text(method: str, path: str, status: int, milliseconds: float, request_id: str) -> str:
    """Return a line for people; the path is quoted, for it may hold line feeds."""
    when = at(time.time())
    return f"{when} {method} {json.dumps(path)} {status} {milliseconds:.3f}ms {request_id}\n"


def as_json(method: str, path: str, status: int, milliseconds: float, request_id: str) -> str:
    """Return a line for machines."""
    fields = {"time": at(time.time()), "method": method, "path": path, "status": status}
    fields |= {"duration_ms": round(milliseconds, 3), "request_id": request_id}
    return json.dumps(fields) + "\n"


def trace(error: BaseException) -> Iterator[str]:
    """Yield the traceback of an error, and of those before it, without their messages.

    A message may quote the record: "Found unknown categories ['Jane Doe'] in column 0".
    """
    earlier = error.__cause__ or error.__context__
    if earlier:
        yield from trace(earlier)
    yield from format_tb(error.__traceback__)
    yield f"{type(error).__name__}\n"


def at(seconds: float) -> str:
    """Return a time (UTC) to the millisecond."""
    return f"{second(int(seconds))}.{int(seconds % 1 * 1000):03d}Z"


@lru_cache(maxsize=1)
def second(seconds: int) -> str:
    """Return a time (UTC) to the second; the thousands of requests in it need it once."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
