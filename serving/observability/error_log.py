"""Log exceptions without quoting the request: the traceback once, then counts."""

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
MAX_REQUEST_IDS = 100  # per log entry
MAX_TEXT = 1000  # characters of an exception's text
# After this time the traceback is logged again: the log file with the first one may be gone.
REPEAT_SECONDS = 3600

FAILURES_LOST = Counter("error_log_failures_lost", "Failures that could not be logged")


class Failure(NamedTuple):
    """An exception that was raised while a request was handled."""

    request_id: str
    error: BaseException
    level: int  # of the log entry
    event: str  # "failed" or "has a record that the model can't predict"


class Occurrences:
    """How often an exception has occurred since its traceback was logged."""

    def __init__(self) -> None:
        self.count = 0
        self.since = time.monotonic()


class ErrorLog:
    """Logs failures in the background, those with the same exception and source line together.

    The first entry has the traceback and the IDs of its requests. Later entries, at 10, 100, 1000,
    ... occurrences, have the count and the latest IDs. After an hour the traceback is logged again.
    """

    def __init__(self, with_text: bool) -> None:
        self.with_text = with_text
        self.occurrences: dict[Any, Occurrences] = {}
        self.writer = BackgroundWriter(self.write, FAILURES_LOST, MAX_PENDING_FAILURES)

    def add_failure(self, request_id: str, error: BaseException) -> None:
        """Log an exception that made a request fail."""
        self.writer.add(Failure(request_id, error, logging.ERROR, "failed"))

    def add_unpredictable(self, request_id: str, error: BaseException) -> None:
        """Log an exception that the model raised for a valid record of a request."""
        event = "has a record that the model can't predict"
        self.writer.add(Failure(request_id, error, logging.WARNING, event))

    def write(self, failures: Sequence[Failure]) -> None:
        """Log failures, one entry for those with the same exception and source line."""
        groups: dict[Any, list[Failure]] = {}
        for failure in failures:
            key = failure.level, failure_key(failure.error)
            groups.setdefault(key, []).append(failure)
        for key, group in groups.items():
            before, after = self.count(key, len(group))
            has_more_digits = len(str(after)) > len(str(before))
            if has_more_digits or not before:
                self.write_entry(group, is_new=not before, count=after)

    def count(self, key: Any, n: int) -> tuple[int, int]:
        """Add n occurrences of a failure; return the counts before and after."""
        occurrences = self.occurrences.get(key)
        if not occurrences or time.monotonic() > occurrences.since + REPEAT_SECONDS:
            occurrences = self.occurrences[key] = Occurrences()
        before = occurrences.count
        occurrences.count += n
        return before, occurrences.count

    def write_entry(self, group: Sequence[Failure], is_new: bool, count: int) -> None:
        """Write an entry: the traceback of a new failure, or the count of a repeated one."""
        _, error, level, event = group[0]
        ids = ", ".join(failure.request_id for failure in group[:MAX_REQUEST_IDS])
        if len(group) > MAX_REQUEST_IDS:
            ids += f" and {len(group) - MAX_REQUEST_IDS} more"
        if is_new:
            details = "".join(format_traceback(error, self.with_text))
            logger.log(level, "Request %s %s\n%s", ids, event, details)
        else:
            name = type(root_cause(error)).__name__
            logger.log(level, "Request %s %s; %s has occurred %d times", ids, event, name, count)


def failure_key(error: BaseException) -> Any:
    """Return the type of an exception's root cause and the source line that raised it."""
    cause = root_cause(error)
    frames = list(walk_tb(cause.__traceback__))
    location = [(frame.f_code, line) for frame, line in frames[-1:]]  # empty without a traceback
    return type(cause), *location


def causes(error: BaseException) -> list[BaseException]:
    """Return an exception, its cause, and so on to the root cause."""
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause and cause not in chain:  # two exceptions may be each other's cause
        chain.append(cause)
        context = None if cause.__suppress_context__ else cause.__context__
        cause = cause.__cause__ or context
    return chain


def root_cause(error: BaseException) -> BaseException:
    """Return the earliest exception, from which the others followed: the last of `causes`."""
    return causes(error)[-1]


def format_traceback(error: BaseException, with_text: bool) -> Iterator[str]:
    """Yield the tracebacks of an exception and of its causes, by default without their messages.

    A message may quote the record: "Found unknown categories ['Jane Doe'] in column 0".
    """
    for each in reversed(causes(error)):
        yield from format_tb(each.__traceback__)
        yield f"{type(each).__name__}{describe(each) if with_text else ''}\n"


def describe(error: BaseException) -> str:
    """Return the text of an exception as a literal: a line feed in it would forge a log line."""
    with suppress(Exception):  # the exception class of a model may be broken
        return f": {str(error)[:MAX_TEXT]!r}"
    return ""
