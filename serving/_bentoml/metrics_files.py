"""The memory-mapped files that hold the metrics of a worker.

The Prometheus client maps sparse files. On a full disk the first write to a page of such a file
kills the process with SIGBUS, and each successor likewise, without a log line. The client also asks
the kernel for the process ID whenever it counts something.
"""

import logging
import os
from functools import cache
from pathlib import Path

from prometheus_client import values
from prometheus_client.mmap_dict import _INITIAL_MMAP_SIZE, MmapedDict

logger = logging.getLogger(__name__)

KEY_OVERHEAD = 32  # bytes of a value in the file: two doubles, the length of its key, padding


@cache  # two kinds of values in the same files would overwrite each other
def install() -> None:
    """Make the Prometheus client use preallocated files and a cached process ID."""
    if hasattr(os, "posix_fallocate"):  # macOS has none
        values.MmapedDict = PreallocatedFile  # type: ignore[attr-defined]
    if values.ValueClass is not values.MutexValue:
        # Calling os.getpid() for each value took an eighth of the event loop's time.
        values.ValueClass = values.MultiProcessValue(process_id)


@cache
def process_id() -> int:
    """Return the ID of this process, without a system call."""
    return os.getpid()


os.register_at_fork(after_in_child=process_id.cache_clear)


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
