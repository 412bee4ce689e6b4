"""The supervisor of the workers, which BentoML makes with circus: it replaces those that die."""

import logging
import os
import signal
from typing import Any

from circus.exc import ConflictError

logger = logging.getLogger("bentoml.serve")

RETRY_SECONDS = 0.1


def replace_dead_workers() -> None:
    """Have each worker that dies replaced at once; to be called before the first one starts.

    BentoML 1.4.39 looks for dead workers every 10 s, and in a container it replaces none: the
    workers that are left go on, and nobody learns of it.
    """
    os.environ.pop("BENTOML_CONTAINERIZED", None)  # by which it knows a container
    signal.signal(signal.SIGCHLD, look)


def look(*_: Any) -> None:
    """Make circus look after its workers, once it has started."""
    # It starts by taking SIGTERM over, with a method of an object that leads to all its parts.
    circus = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    if circus:
        arbiter = circus.controller.arbiter
        arbiter.loop.add_callback_from_signal(replace, arbiter)


async def replace(arbiter: Any) -> None:
    """Replace the workers that have died, unless the service is ending."""
    if arbiter._stopping:
        return
    workers = {pid for watcher in arbiter.watchers for pid in watcher.processes}
    try:
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        await arbiter.manage_watchers()
    except ChildProcessError:  # circus was faster
        return
    except ConflictError:  # circus is starting workers
        arbiter.loop.call_later(RETRY_SECONDS, look)
        return
    if ended and ended.si_pid in workers:
        how = "signal" if ended.si_code != os.CLD_EXITED else "exit status"
        logger.error("Worker ended by %s %d; it is replaced", how, ended.si_status)
