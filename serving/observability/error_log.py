"""Log the failure of a request without quoting the request."""

import logging
from collections.abc import Iterator
from traceback import format_tb

logger = logging.getLogger(__name__)


def log_failure(request_id: str, error: BaseException) -> None:
    """Log the traceback of an unexpected exception under the ID of its request."""
    logger.error("Request %s failed\n%s", request_id, "".join(format_traceback(error)))


def format_traceback(error: BaseException) -> Iterator[str]:
    """Yield the tracebacks of an exception and of its causes, without their messages.

    A message may quote the record: "Found unknown categories ['Jane Doe'] in column 0".
    """
    cause = error.__cause__ or error.__context__
    if cause:
        yield from format_traceback(cause)
    yield from format_tb(error.__traceback__)
    yield f"{type(error).__name__}\n"
