"""A file of whole lines with a bounded size."""

import errno
import os
from pathlib import Path

FILES = 5  # the current one and its predecessors


class RotatingFile:
    """Appends lines to a file; when it is full, renames it and drops the oldest of FILES.

    `logging.handlers.RotatingFileHandler` leaves a partial line behind when the disk is full, which
    makes the file unreadable.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self.path = path
        self.max_bytes = max_bytes
        self.truncated = False  # has the partial last line of an earlier process been removed?

    def write(self, data: bytes) -> None:
        """Append lines, rotating as often as needed; raise OSError."""
        if not self.truncated or not self.path.exists():  # somebody may have moved it away
            self.truncate_partial_line()
        while data:
            room = max(self.max_bytes - self.path.stat().st_size, 0)
            end = data.rfind(b"\n", 0, room) + 1
            if not end and room == self.max_bytes:
                end = data.index(b"\n") + 1  # a line that is longer than a whole file
            self.append(data[:end])
            data = data[end:]
            if data:
                self.rotate()

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

    def truncate_partial_line(self) -> None:
        """Remove the partial last line that a killed process may have left; raise OSError."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.touch()
        os.truncate(self.path, self.path.read_bytes().rfind(b"\n") + 1)
        self.truncated = True

    def rotate(self) -> None:
        """Rename each file to the next number; the oldest is overwritten."""
        paths = [self.path, *(self.path.with_suffix(f".{n}.jsonl") for n in range(1, FILES))]
        for newer, older in zip(paths[-2::-1], paths[:0:-1], strict=True):
            if newer.exists():
                newer.replace(older)
        self.path.touch()
