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

    Items beyond `max_pending`, and those that `write` fails to write with an OSError, are dropped
    and counted in `lost`.
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
        # A daemon thread: it may wait for a reader for ever, and the process must still exit.
        self.thread = Thread(target=self.run, daemon=True)

    def add(self, item: Any) -> None:
        """Queue an item, or count it as lost if the queue is full."""
        if len(self.pending) >= self.max_pending:
            self.lost.inc()
            return
        self.pending.append(item)
        if not self.thread.ident:
            self.thread.start()

    def run(self) -> None:
        """Write the pending items every FLUSH_SECONDS, until closed."""
        closing = False
        while not closing:
            closing = self.closing.wait(FLUSH_SECONDS)
            items = self.pending[:]
            if items:
                # In place: `add` may be appending to this very list.
                del self.pending[: len(items)]
                self.try_write(items)

    def try_write(self, items: Sequence[Any]) -> None:
        """Write items, or count them as lost; warn at the first failure in a row."""
        try:
            self.write(items)
            self.failing = False
        except OSError as error:
            self.lost.inc(len(items))
            if not self.failing:
                (family,) = self.lost.describe()
                counter = f"{family.name}_total"
                logger.warning("%s; until it works again, %s counts what is lost", error, counter)
            self.failing = True

    def close(self) -> None:
        """Write the rest, waiting at most CLOSE_SECONDS."""
        self.closing.set()
        if self.thread.ident:
            self.thread.join(CLOSE_SECONDS)
