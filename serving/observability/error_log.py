"""Log failures without quoting the request: a new one whole, a repeated one by its count."""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from traceback import format_tb, walk_tb
from typing import Any, NamedTuple

from prometheus_client import Counter

from serving.observability.background_writer import BackgroundWriter

logger = logging.getLogger(__name__)

MAX_PENDING_FAILURES = 10_000
MAX_REQUEST_IDS = 100  # that an entry names
MAX_TEXT = 1000  # characters of an exception's text
REPEAT_SECONDS = 3600  # until a failure is logged whole again: log files are rotated

FAILURES_LOST = Counter("error_log_failures_lost", "Failures that could not be logged")


class Failure(NamedTuple):
    """An exception that a request has met."""

    request_id: str
    error: BaseException
    level: int  # of the log entry
    what: str  # the request did, such as "failed"


class Occurrences:
    """How often a failure has occurred since it was logged whole."""

    def __init__(self) -> None:
        self.count = 0
        self.since = time.monotonic()


class ErrorLog:
    """Logs failures in the background; failures of the same type and place are the same.

    The first entry of a failure has the traceback and the IDs of the requests that met it. Later
    entries tell the count when it has one digit more. After an hour it starts again.
    """

    def __init__(self, with_text: bool) -> None:
        self.with_text = with_text
        self.occurrences: dict[Any, Occurrences] = {}
        self.writer = BackgroundWriter(self.write, FAILURES_LOST, MAX_PENDING_FAILURES)

    def add_failure(self, request_id: str, error: BaseException) -> None:
        """Log an exception through which a request failed."""
        self.writer.add(Failure(request_id, error, logging.ERROR, "failed"))

    def add_unpredictable(self, request_id: str, error: BaseException) -> None:
        """Log an exception that the model raised for a valid record of a request."""
        what = "has a record that the model can't predict"
        self.writer.add(Failure(request_id, error, logging.WARNING, what))

    def write(self, failures: Sequence[Failure]) -> None:
        """Log failures, the same ones together."""
        groups: dict[Any, list[Failure]] = {}
        for failure in failures:
            key = failure.level, failure_key(failure.error)
            groups.setdefault(key, []).append(failure)
        for key, group in groups.items():
            before, after = self.count(key, len(group))
            if len(str(after)) > len(str(before)) or not before:
                self.write_entry(group, is_new=not before, count=after)

    def count(self, key: Any, n: int) -> tuple[int, int]:
        """Count n occurrences of a failure; return the counts before and after."""
        occurrences = self.occurrences.get(key)
        if not occurrences or time.monotonic() > occurrences.since + REPEAT_SECONDS:
            occurrences = self.occurrences[key] = Occurrences()
        before = occurrences.count
        occurrences.count += n
        return before, occurrences.count

    def write_entry(self, group: Sequence[Failure], is_new: bool, count: int) -> None:
        """Write the entry of a failure that is new, or that has become frequent."""
        _, error, level, what = group[0]
        ids = ", ".join(failure.request_id for failure in group[:MAX_REQUEST_IDS])
        if len(group) > MAX_REQUEST_IDS:
            ids += f" and {len(group) - MAX_REQUEST_IDS} more"
        if is_new:
            details = "".join(format_traceback(error, self.with_text))
            logger.log(level, "Request %s %s\n%s", ids, what, details)
        else:
            *_, cause = causes(error)
            name = type(cause).__name__
            logger.log(level, "Request %s %s; %s has occurred %d times", ids, what, name, count)


def failure_key(error: BaseException) -> Any:
    """Return the type of a failure's root cause and the place that raised it."""
    *_, cause = causes(error)
    frames = list(walk_tb(cause.__traceback__))
    return type(cause), *((frame.f_code, line) for frame, line in frames[-1:])


def causes(error: BaseException) -> list[BaseException]:
    """Return an exception, what caused it, and so on to the root cause."""
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause and cause not in chain:  # a model may raise exceptions in a circle
        chain.append(cause)
        context = None if cause.__suppress_context__ else cause.__context__
        cause = cause.__cause__ or context
    return chain


def format_traceback(error: BaseException, with_text: bool) -> Iterator[str]:
    """Yield the tracebacks of an exception and of its causes, by default without their messages.

    A message may quote the record: "Found unknown categories ['Jane Doe'] in column 0".
    """
    for each in reversed(causes(error)):
        yield from format_tb(each.__traceback__)
        yield f"{type(each).__name__}{describe(each) if with_text else ''}\n"


def describe(error: BaseException) -> str:
    """Return the text of an exception as a literal: a line feed in it would forge a log line."""
    with suppress(Exception):  # of a model's own exception
        return f": {str(error)[:MAX_TEXT]!r}"
    return ""
