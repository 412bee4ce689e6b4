"""Write log lines in a background thread: no request waits for a disk or a pipe."""

import logging
from collections.abc import Callable, Sequence
from threading import Event, Thread
from typing import Any

from prometheus_client import Counter

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 0.2
CLOSE_SECONDS = 1


class BackgroundWriter:
    """Collects items and passes them to `write` in a thread, five times a second.

    Items beyond `max_pending`, and those that `write` fails to write, are dropped and counted in
    `lost`.
    """

    def __init__(
        self, write: Callable[[Sequence[Any]], None], lost: Counter, max_pending: int
    ) -> None:
        self.write = write
        self.lost = lost
        self.max_pending = max_pending
        self.pending: list[Any] = []
        self.closing = Event()
        self.failing = False
        # A daemon thread, so that the process can exit while the thread waits for a full pipe.
        self.thread = Thread(target=self.run, daemon=True)

    def add(self, item: Any) -> None:
        """Queue an item, or count it as lost if the queue is full."""
        if len(self.pending) >= self.max_pending:
            self.lost.inc()
            return
        self.pending.append(item)
        if not self.has_started():
            self.thread.start()

    def has_started(self) -> bool:
        """Return whether the thread has been started, by the first item."""
        return self.thread.ident is not None

    def run(self) -> None:
        """Write the pending items every FLUSH_SECONDS, until closed."""
        is_last = False
        while not is_last:
            is_last = self.closing.wait(FLUSH_SECONDS)
            items = self.pending[:]
            if items:
                # In place: `add` may append to this list at the same time.
                del self.pending[: len(items)]
                self.try_write(items)

    def try_write(self, items: Sequence[Any]) -> None:
        """Write items, or count them as lost; of failures in a row, log the first."""
        try:
            self.write(items)
            self.failing = False
        except Exception as error:  # any other than OSError is a bug; the thread must go on
            self.lost.inc(len(items))
            if not self.failing:
                (family,) = self.lost.describe()
                counter = f"{family.name}_total"
                logger.warning("A log can't be written: %s; %s counts what is lost", error, counter)
            self.failing = True

    def close(self) -> None:
        """Write the pending items, and wait at most CLOSE_SECONDS for that."""
        self.closing.set()
        if self.has_started():
            self.thread.join(CLOSE_SECONDS)
