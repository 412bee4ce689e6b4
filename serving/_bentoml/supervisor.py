"""The supervisor process, which BentoML builds on circus: replace dead workers, shut down in order.

A supervisor starts the workers and holds the listening socket; the workers accept and serve.
"""

import atexit
import errno
import logging
import os
import select
import shutil
import signal
import socket
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml.exceptions import BentoMLException
from circus import controller
from circus.exc import ConflictError
from circus.sighandler import SysHandler
from circus.sockets import CircusSocket
from tornado import gen

from serving._bentoml.ignored_options import warn_of_ignored_options
from serving.settings import SUPERVISOR_PID, find_misspelled

logger = logging.getLogger("bentoml.serve")

RETRY_SECONDS = 0.1
ACCEPT_SECONDS = 1  # for the workers to empty the accept queue


def use_private_metrics_folder() -> None:
    """Set a metrics folder for this server alone, and remove it at exit.

    BentoML uses one folder for all servers of a BENTOML_HOME, and each empties it when it starts.
    """
    folder = Path(tempfile.gettempdir(), f"bentoml-metrics-{uuid4().hex}")
    BentoMLContainer.prometheus_multiproc_dir.set(str(folder))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)


def install_supervisor() -> None:
    """Replace circus' signal handling and socket binding, just before BentoML starts circus."""
    for name, setting in find_misspelled(os.environ):
        logger.warning("%s is no setting: is %s meant?", name, setting)
    warn_of_ignored_options()
    os.environ[SUPERVISOR_PID] = str(os.getpid())  # for the workers
    os.environ.pop("BENTOML_CONTAINERIZED", None)  # BentoML replaces no dead worker if it is set
    controller.SysHandler = SignalHandler
    CircusSocket.bind = bind


def bind(listener: CircusSocket, address: tuple[str, int]) -> None:
    """Bind a socket; raise BentoMLException, saying what to do, if the port is in use."""
    try:
        socket.socket.bind(listener, address)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        message = f"Port {address[1]} is in use: end what listens there, or set PORT to another"
        raise BentoMLException(message) from None


class SignalHandler(SysHandler):
    """Handles the signals of the supervisor, in place of circus' handler.

    SIGCHLD: replace a dead worker at once. BentoML looks for dead workers every 10 s, and never in
    a container. A worker that exited by itself with an error could not start, and its successor
    could not either: it is not replaced, and the service ends if no worker is left.

    SIGTERM, SIGINT, SIGHUP (the terminal was closed): stop the workers, and close the listening
    socket as soon as its accept queue is empty. circus closes it last, which resets clients that
    have connected since the workers stopped accepting. At a second signal, kill the workers; circus
    would continue to wait.
    """

    stopping = False

    def __init__(self, controller: Any) -> None:
        super().__init__(controller)
        signal.signal(signal.SIGCHLD, self.on_child_exit)
        if self._old[signal.SIGHUP] is signal.SIG_IGN:  # set by nohup
            signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def on_child_exit(self, *_: Any) -> None:
        """Schedule the replacement of dead workers."""
        self.controller.loop.add_callback_from_signal(self.replace_dead_workers)

    async def replace_dead_workers(self) -> None:
        """Replace the workers that have died, unless the service is stopping."""
        arbiter = self.controller.arbiter
        if self.stopping or arbiter._stopping:
            return
        worker_pids = self.worker_pids()
        try:
            child = find_exited_child()
            if child and child.si_pid in worker_pids and exited_with_error(child):
                self.handle_failed_start(child.si_status)
                return
            await arbiter.manage_watchers()
        except ChildProcessError:  # circus has already reaped it
            return
        except ConflictError:  # circus is starting workers
            self.controller.loop.call_later(RETRY_SECONDS, self.on_child_exit)
            return
        if child and child.si_pid in worker_pids:
            how = "signal" if child.si_code != os.CLD_EXITED else "exit status"
            logger.error("Worker ended by %s %d; it is replaced", how, child.si_status)

    def worker_pids(self) -> set[int]:
        """Return the process IDs of the workers."""
        return {pid for watcher in self.controller.arbiter.watchers for pid in watcher.processes}

    def handle_failed_start(self, status: int) -> None:
        """Leave a worker that could not start to BentoML's next look; end if it was the last."""
        arbiter = self.controller.arbiter
        arbiter.reap_processes()
        logger.error("Worker ended by exit status %d", status)
        if not self.worker_pids():
            arbiter._exception = BentoMLException("No worker can start: the log says why")
            self.quit()

    def handle_hup(self) -> None:
        """Stop the service; circus would replace its workers."""
        if not self.stopping:  # a shell sends SIGHUP twice
            self.quit()

    def quit(self) -> None:
        """Stop the service; at the second call, kill its workers."""
        arbiter = self.controller.arbiter
        if self.stopping:
            for watcher in arbiter.watchers:
                for process in watcher.processes.values():
                    process.send_signal(signal.SIGKILL)
        else:
            self.stopping = True
            sockets = list(arbiter.sockets.values())
            self.controller.loop.add_callback_from_signal(drain_accept_queue, sockets)
            super().quit()


def find_exited_child() -> Any:
    """Return how a child that is not yet reaped has exited, or None; raise ChildProcessError."""
    if hasattr(os, "waitid"):  # macOS has none
        return os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    return None


def exited_with_error(child: Any) -> bool:
    """Tell whether a process has exited by itself, with a status other than 0."""
    return child.si_code == os.CLD_EXITED and child.si_status != 0


async def drain_accept_queue(sockets: list[socket.socket]) -> None:
    """Stop listening once the workers have accepted the connections that wait in the queue.

    Closing a socket resets those.
    """
    end = time.monotonic() + ACCEPT_SECONDS
    while select.select(sockets, [], [], 0)[0] and time.monotonic() < end:
        await gen.sleep(0.01)
    for listener in sockets:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
