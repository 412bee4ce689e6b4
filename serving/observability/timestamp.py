"""Format times for the logs."""

import time
from functools import lru_cache


def format_timestamp(seconds: float) -> str:
    """Return a Unix time as ISO 8601 in UTC, to the millisecond."""
    return f"{format_second(int(seconds))}.{int(seconds % 1 * 1000):03d}Z"


# All requests of one second share the result.
@lru_cache(maxsize=1)
def format_second(seconds: int) -> str:
    """Return a Unix time as ISO 8601 in UTC, to the second, without a zone."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
