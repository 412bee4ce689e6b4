"""The memory-mapped files that hold the metrics of a worker.

The Prometheus client writes a file whenever it counts something, which took a tenth of the event
loop's time. It maps sparse files: on a full disk the first write to a page of such a file kills the
process with SIGBUS, and each successor likewise, without a log line.
"""

import atexit
import logging
import os
import time
from collections.abc import Awaitable, Callable
from functools import cache
from pathlib import Path
from threading import Lock, Thread
from typing import Any

from prometheus_client import values
from prometheus_client.mmap_dict import _INITIAL_MMAP_SIZE, MmapedDict
from starlette.requests import Request
from starlette.responses import Response

logger = logging.getLogger(__name__)

View = Callable[[Request], Awaitable[Response]]

KEY_OVERHEAD = 32  # bytes of a value in the file: two doubles, the length of its key, padding
FLUSH_SECONDS = 0.2

changed: set[Any] = set()  # values that are not written yet
counting, writing = Lock(), Lock()  # event loop and threads count; the timer and a scrape write


@cache  # two kinds of values in the same files would overwrite each other
def install() -> None:
    """Make the Prometheus client use preallocated files, and write them five times a second."""
    if hasattr(os, "posix_fallocate"):  # macOS has none
        values.MmapedDict = PreallocatedFile  # type: ignore[attr-defined]
    if values.ValueClass is not values.MutexValue:
        values.ValueClass = buffered(values.MultiProcessValue())
        Thread(target=flush_forever, daemon=True).start()
        atexit.register(flush_in_process, os.getpid())


def buffered(value_class: Any) -> Any:
    """Return a class of values like `value_class`, which `flush` writes to the file."""

    class BufferedValue(value_class):
        """A number, in memory and in a file."""

        def inc(self, amount: float) -> None:
            """Add to the number."""
            with counting:
                self._value += amount
            changed.add(self)

        def set(self, value: float, timestamp: float | None = None) -> None:
            """Set the number."""
            self._value = value
            self._timestamp = timestamp or 0.0
            changed.add(self)

    return BufferedValue


def flush() -> None:
    """Write the values that have changed."""
    with writing:
        while changed:
            value = changed.pop()
            value._file.write_value(value._key, value._value, value._timestamp)


def flush_in_process(process_id: int) -> None:
    """Write the values that have changed, but not those of a forked child."""
    if os.getpid() == process_id:
        flush()


def flush_before(scrape: View) -> View:
    """Wrap the /metrics view, so that this worker's part of it is up to date."""

    async def flush_and_scrape(request: Request) -> Response:
        flush()
        return await scrape(request)

    return flush_and_scrape


def flush_forever() -> None:
    """Write what has changed, until the process ends."""
    while True:
        time.sleep(FLUSH_SECONDS)
        flush()


class PreallocatedFile(MmapedDict):
    """A file whose disk space is allocated before it is written; without space, memory instead."""

    def __init__(self, filename: str, read_mode: bool = False) -> None:
        super().__init__(filename if read_mode or allocate(filename) else in_memory(filename))

    def _init_value(self, key: str) -> None:
        """Add a value; allocate more space first if the file has to grow."""
        if self._used + len(key.encode()) + KEY_OVERHEAD > self._capacity:
            self.grow()
        super()._init_value(key)

    def grow(self) -> None:
        """Allocate twice the space, or continue in memory."""
        try:
            os.posix_fallocate(self._f.fileno(), 0, 2 * self._capacity)
        except OSError:
            file = open(in_memory(self._fname), "a+b")  # noqa: PTH123, SIM115
            file.write(self._m[:])
            file.flush()
            self._f.close()
            self._f = file


def allocate(filename: str) -> bool:
    """Allocate the disk space of a new file; tell whether there was enough."""
    try:
        with open(filename, "ab") as file:  # noqa: PTH123
            os.posix_fallocate(file.fileno(), 0, _INITIAL_MMAP_SIZE)
    except OSError:
        Path(filename).unlink(missing_ok=True)  # /metrics would fail to read it
        return False
    return True


def in_memory(filename: str) -> str:
    """Return the path of a file in memory; /metrics does not read it."""
    logger.warning("%s: no space left, so that metrics of this worker are missing", filename)
    return f"/proc/self/fd/{os.memfd_create('metrics')}"
