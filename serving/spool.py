"""Lines for a file, written in the background: no request waits for a disk or a pipe."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
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
        self.writing: asyncio.Future[None] | None = None
        self.failing = False

    def add(self, item: Any) -> None:
        """Take an item."""
        if len(self.items) >= self.most:
            self.lost.inc()
            return
        if not self.items:
            asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.flush)
        self.items.append(item)

    def flush(self) -> None:
        """Begin to write what is there, unless the last is still being written."""
        loop = asyncio.get_running_loop()
        if self.writing and not self.writing.done():
            loop.call_later(FLUSH_SECONDS, self.flush)
        elif self.items:
            items, self.items = self.items, []
            self.writing = loop.run_in_executor(None, self.try_to_write, items)

    def try_to_write(self, items: Sequence[Any]) -> None:
        """Write items, or count them as lost."""
        try:
            self.write(items)
            self.failing = False
        except OSError as error:
            self.lost.inc(len(items))
            if not self.failing:
                logger.warning("%s: dropped and counted until it works again", error)
            self.failing = True

    async def close(self) -> None:
        """Write what is left, as far as somebody takes it in time: the process has to end."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                if self.writing:
                    await self.writing
                self.flush()
                if self.writing:
                    await self.writing
