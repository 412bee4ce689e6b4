"""Log failures without quoting the request: a new one whole, a repeated one by its count."""

import logging
import time
from collections.abc import Iterator, Sequence
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
    entries tell the count when it reaches 10, 100, 1,000 and so on. After an hour it starts again.
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
            name = type(root_cause(error)).__name__
            logger.log(level, "Request %s %s; %s has occurred %d times", ids, what, name, count)


def failure_key(error: BaseException) -> Any:
    """Return the type of a failure's root cause and the place that raised it."""
    cause = root_cause(error)
    frames = list(walk_tb(cause.__traceback__))
    return type(cause), *((frame.f_code, line) for frame, line in frames[-1:])


def root_cause(error: BaseException) -> BaseException:
    """Return the exception that caused another one, or the exception itself."""
    while cause := error.__cause__ or error.__context__:
        error = cause
    return error


def format_traceback(error: BaseException, with_text: bool) -> Iterator[str]:
    """Yield the tracebacks of an exception and of its causes, by default without their messages.

    A message may quote the record: "Found unknown categories ['Jane Doe'] in column 0".
    """
    cause = error.__cause__ or error.__context__
    if cause:
        yield from format_traceback(cause, with_text)
    yield from format_tb(error.__traceback__)
    # As a literal: a line feed in the text would forge a line of the log.
    text = f": {str(error)[:MAX_TEXT]!r}" if with_text and str(error) else ""
    yield f"{type(error).__name__}{text}\n"
