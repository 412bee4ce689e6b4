"""Lines for a file, written in the background: no request waits for a disk or a pipe."""

import logging
from collections.abc import Callable, Sequence
from threading import Event, Thread
from typing import Any

from prometheus_client import Counter

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 0.2
CLOSE_SECONDS = 1


class Spool:
    """What is still to be written: `write` gets it, in a thread, five times a second.

    What does not fit into `most`, because nobody takes it, or what `write` fails to write with an
    OSError, is dropped and counted in `lost`.
    """

    def __init__(self, write: Callable[[Sequence[Any]], None], lost: Counter, most: int) -> None:
        self.write = write
        self.lost = lost
        self.most = most
        self.items: list[Any] = []
        self.ending = Event()
        self.failing = False
        # A daemon, for the process must end though the thread may wait for a reader for ever.
        self.thread = Thread(target=self.run, daemon=True)

    def add(self, item: Any) -> None:
        """Take an item."""
        if len(self.items) >= self.most:
            self.lost.inc()
            return
        self.items.append(item)
        if not self.thread.ident:
            self.thread.start()

    def run(self) -> None:
        """Write what is there, again and again."""
        ending = False
        while not ending:
            ending = self.ending.wait(FLUSH_SECONDS)
            items = self.items[:]
            if items:
                # Not a new list: `add` may have hold of this one.
                del self.items[: len(items)]
                self.try_to_write(items)

    def try_to_write(self, items: Sequence[Any]) -> None:
        """Write items, or count them as lost."""
        try:
            self.write(items)
            self.failing = False
        except OSError as error:
            self.lost.inc(len(items))
            if not self.failing:
                counter = f"{self.lost._name}_total"
                logger.warning("%s; until it works again, %s counts what is lost", error, counter)
            self.failing = True

    def close(self) -> None:
        """Write what is left, as far as somebody takes it in time."""
        self.ending.set()
        if self.thread.ident:
            self.thread.join(CLOSE_SECONDS)
