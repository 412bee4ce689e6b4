"""The memory-mapped files that hold the metrics of a worker.

The Prometheus client writes to a file for each increment of a metric; here the values are written
five times a second. The client maps sparse files: on a full disk the first write to a page of such
a file kills the worker with SIGBUS, and then each replacement; the log does not say why. Here the
disk space is allocated first.
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

# More than the bytes of an entry besides its key: two doubles (16), the key's length (4) and
# padding (up to 8).
KEY_OVERHEAD = 32
FLUSH_SECONDS = 0.2

dirty_values: set[Any] = set()  # changed since they were last written
value_lock = Lock()  # the event loop and threads increment values
file_lock = Lock()  # values are written by a thread, before a scrape and at exit


@cache  # run once: two `BufferedValue` classes would overwrite each other's values in the files
def install() -> None:
    """Make the Prometheus client use preallocated files, and write to them five times a second."""
    if hasattr(os, "posix_fallocate"):  # not on macOS
        values.MmapedDict = PreallocatedFile  # type: ignore[attr-defined]
    # The client uses MutexValue, and no files, without PROMETHEUS_MULTIPROC_DIR, as in tests.
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
            with value_lock:
                self._value += amount
            dirty_values.add(self)

        def set(self, value: float, timestamp: float | None = None) -> None:
            """Set the number."""
            self._value = value
            self._timestamp = timestamp or 0.0
            dirty_values.add(self)

    return BufferedValue


def flush() -> None:
    """Write the dirty values to their files."""
    with file_lock:
        while dirty_values:
            value = dirty_values.pop()
            value._file.write_value(value._key, value._value, value._timestamp)


def flush_in_process(process_id: int) -> None:
    """Write the dirty values, unless this is a forked child of the process."""
    if os.getpid() == process_id:
        flush()


def flush_before(scrape: View) -> View:
    """Wrap the /metrics view, so that each scrape has the latest values of this worker."""

    async def flush_and_scrape(request: Request) -> Response:
        flush()
        return await scrape(request)

    return flush_and_scrape


def flush_forever() -> None:
    """Write the dirty values every FLUSH_SECONDS, until the process ends."""
    while True:
        time.sleep(FLUSH_SECONDS)
        flush()


class PreallocatedFile(MmapedDict):
    """A metrics file whose disk space is allocated before it is used; on a full disk, in memory."""

    def __init__(self, filename: str, read_mode: bool = False) -> None:
        if not read_mode and not allocate(filename):
            filename = create_memory_file(filename)
        super().__init__(filename, read_mode)

    def _init_value(self, key: str) -> None:
        """Add a value; allocate more space first if the file has to grow.

        The base class then extends the file `_f` to twice `_capacity`, and maps it to `_m` anew.
        """
        if self._used + len(key.encode()) + KEY_OVERHEAD > self._capacity:
            self.grow()
        super()._init_value(key)

    def grow(self) -> None:
        """Allocate twice the disk space or, if there is too little, copy the file to memory."""
        try:
            os.posix_fallocate(self._f.fileno(), 0, 2 * self._capacity)
        except OSError:
            file = open(create_memory_file(self._fname), "a+b")  # noqa: PTH123, SIM115
            file.write(self._m[:])
            file.flush()
            self._f.close()
            self._f = file


def allocate(filename: str) -> bool:
    """Allocate the disk space of a new file; return whether there was enough."""
    try:
        with open(filename, "ab") as file:  # noqa: PTH123
            os.posix_fallocate(file.fileno(), 0, _INITIAL_MMAP_SIZE)
    except OSError:
        Path(filename).unlink(missing_ok=True)  # /metrics would fail to read it
        return False
    return True


def create_memory_file(filename: str) -> str:
    """Create a file in memory in place of another one; log a warning, and return its path.

    /metrics does not read it.
    """
    logger.warning("%s: no disk space left; /metrics lacks metrics of this worker", filename)
    return f"/proc/self/fd/{os.memfd_create('metrics')}"
