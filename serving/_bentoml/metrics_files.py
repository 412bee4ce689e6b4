"""The files that hold the metrics: mapped memory, which must not outgrow the disk.

The Prometheus client maps sparse files. On a full disk the first write to a page of one ends the
process with SIGBUS, and its successor likewise, without a word. It also asks the kernel which
process it is in each time that it counts something.
"""

import logging
import os
from functools import cache
from pathlib import Path

from prometheus_client import values
from prometheus_client.mmap_dict import _INITIAL_MMAP_SIZE, MmapedDict

logger = logging.getLogger(__name__)

KEY_OVERHEAD = 32  # of a value in the file: two doubles, the length of its key, padding


@cache  # a second kind of values would not know of what the first has in the same files
def install() -> None:
    """Have the Prometheus client use our files, and not ask the kernel for each value whose."""
    if hasattr(os, "posix_fallocate"):  # macOS has none
        values.MmapedDict = MetricsFile
    if values.ValueClass is not values.MutexValue:
        # os.getpid() for each of the values took an eighth of the event loop's time.
        values.ValueClass = values.MultiProcessValue(process_id)


@cache
def process_id() -> int:
    """Return the ID of this process, for which the kernel is asked once."""
    return os.getpid()


os.register_at_fork(after_in_child=process_id.cache_clear)


class MetricsFile(MmapedDict):
    """A file whose space is taken from the disk before it is written to, or else from memory."""

    def __init__(self, filename: str, read_mode: bool = False) -> None:
        super().__init__(filename if read_mode or allocated(filename) else in_memory(filename))

    def _init_value(self, key: str) -> None:
        """Add a value, for which the file may have to grow to the double."""
        if self._used + len(key.encode()) + KEY_OVERHEAD > self._capacity:
            self.grow()
        super()._init_value(key)

    def grow(self) -> None:
        """Take the space for the file to grow, or go on in memory."""
        try:
            os.posix_fallocate(self._f.fileno(), 0, 2 * self._capacity)
        except OSError:
            file = open(in_memory(self._fname), "a+b")  # noqa: PTH123, SIM115
            file.write(self._m[:])
            file.flush()
            self._f.close()
            self._f = file


def allocated(filename: str) -> bool:
    """Tell whether a file has the space on its disk that it begins with."""
    try:
        with open(filename, "ab") as file:  # noqa: PTH123
            os.posix_fallocate(file.fileno(), 0, _INITIAL_MMAP_SIZE)
    except OSError:
        Path(filename).unlink(missing_ok=True)  # or /metrics would fail to read it
        return False
    return True


def in_memory(filename: str) -> str:
    """Return the path of a file in memory, which /metrics does not see."""
    logger.warning("%s: no space left, so that metrics of this worker are missing", filename)
    return f"/proc/self/fd/{os.memfd_create('metrics')}"
