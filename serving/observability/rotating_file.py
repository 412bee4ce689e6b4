"""A file of whole lines with a bounded size."""

import errno
import os
from itertools import pairwise
from pathlib import Path

FILES = 5  # the current one and four older ones


class RotatingFile:
    """Appends lines to a file; when it is full, renames it, and keeps FILES files in all.

    `logging.handlers.RotatingFileHandler` leaves a partial line behind when the disk is full, which
    makes the file unreadable.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self.path = path
        self.max_bytes = max_bytes
        self.truncated = False  # whether a partial last line of an earlier process has been removed

    def write(self, data: bytes) -> None:
        """Append lines, rotating as often as needed; raise OSError."""
        if not self.truncated or not self.path.exists():  # a log shipper may have moved it away
            self.prepare()
        while data:
            end = self.size_that_fits(data)
            self.append(data[:end])
            data = data[end:]
            if data:
                self.rotate()

    def size_that_fits(self, data: bytes) -> int:
        """Return the size of the lines that fit into the current file; 0 if none does.

        A line that is larger than a whole file fits into an empty one.
        """
        room = max(self.max_bytes - self.path.stat().st_size, 0)
        end = data.rfind(b"\n", 0, room) + 1
        if not end and room == self.max_bytes:
            end = data.index(b"\n") + 1
        return end

    def append(self, data: bytes) -> None:
        """Append all of the data to the current file, or nothing; raise OSError."""
        with self.path.open("ab", buffering=0) as file:
            size = file.tell()
            try:
                if file.write(data) < len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            except OSError:
                file.truncate(size)
                raise

    def prepare(self) -> None:
        """Create the file, or remove the partial last line of a killed process; raise OSError."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.touch()
        os.truncate(self.path, self.path.read_bytes().rfind(b"\n") + 1)
        self.truncated = True

    def rotate(self) -> None:
        """Rename each file to the next number; the oldest is overwritten."""
        paths = [self.path, *(self.path.with_suffix(f".{n}.jsonl") for n in range(1, FILES))]
        for older, newer in pairwise(reversed(paths)):  # .3 becomes .4, ..., the current one .1
            if newer.exists():
                newer.replace(older)
        self.path.touch()
