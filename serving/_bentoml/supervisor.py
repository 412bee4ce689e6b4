"""The supervisor, which BentoML makes with circus: it replaces dead workers, and ends in order."""

import atexit
import ctypes
import errno
import logging
import os
import select
import shutil
import signal
import socket
import struct
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

from serving.settings import misspelled

logger = logging.getLogger("bentoml.serve")

RETRY_SECONDS = 0.1
# So long may it take to complete handshakes that have begun, and to accept what is in the queue.
HANDSHAKE_SECONDS, ACCEPT_SECONDS = 0.1, 1
SO_ATTACH_FILTER = 26  # of Linux; Python does not name it
# BPF: load the flags of the TCP header; drop the packet if SYN is set, else keep all of it.
NO_SYN = [(0x30, 0, 0, 13), (0x45, 0, 1, 2), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF)]


def separate_metrics() -> None:
    """Have BentoML keep the metrics of this server's workers apart from those of other servers.

    Its folder is one for all servers of a BENTOML_HOME, and each of them empties it at its start.
    """
    folder = Path(tempfile.gettempdir(), f"bentoml-metrics-{uuid4().hex}")
    BentoMLContainer.prometheus_multiproc_dir.set(str(folder))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)


def supervise() -> None:
    """Take over from circus, which BentoML is about to start, what it does at signals."""
    for name, meant in misspelled(os.environ):
        logger.warning("%s is no setting: is %s meant?", name, meant)
    os.environ.pop("BENTOML_CONTAINERIZED", None)  # by which it knows where to replace no worker
    controller.SysHandler = Signals
    CircusSocket.bind = bind


def bind(listener: CircusSocket, address: tuple[str, int]) -> None:
    """Bind a socket to an address; raise BentoMLException, saying what to do, if it is taken."""
    try:
        socket.socket.bind(listener, address)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        words = f"Port {address[1]} is in use: end what listens there, or set PORT to another"
        raise BentoMLException(words) from None


class Signals(SysHandler):
    """What the supervisor does at a signal.

    When a worker has died: replace it at once. BentoML looks for dead ones every 10 s, and in a
    container it replaces none: those that are left go on, and nobody learns of it. One that ended
    itself, with an error, could not start, and nor could the next one: if none is left, end.

    When told to end, or when its terminal ends: end the workers, and stop to listen as soon as
    nobody waits to be accepted. circus closes its socket last of all, which resets whoever has
    connected since the workers stopped to accept. When told again: kill the workers, while circus
    would go on to wait.
    """

    told = False

    def __init__(self, controller: Any) -> None:
        super().__init__(controller)
        signal.signal(signal.SIGCHLD, self.look)
        if self._old[signal.SIGHUP] is signal.SIG_IGN:  # by nohup
            signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def look(self, *_: Any) -> None:
        """Look after the workers."""
        self.controller.loop.add_callback_from_signal(self.replace)

    async def replace(self) -> None:
        """Replace the workers that have died, unless the service is ending."""
        arbiter = self.controller.arbiter
        if self.told or arbiter._stopping:
            return
        workers = self.workers()
        try:
            ended = ended_child()
            if ended and ended.si_pid in workers and has_failed(ended):
                self.give_up(ended.si_status)
                return
            await arbiter.manage_watchers()
        except ChildProcessError:  # circus was faster
            return
        except ConflictError:  # circus is starting workers
            self.controller.loop.call_later(RETRY_SECONDS, self.look)
            return
        if ended and ended.si_pid in workers:
            how = "signal" if ended.si_code != os.CLD_EXITED else "exit status"
            logger.error("Worker ended by %s %d; it is replaced", how, ended.si_status)

    def workers(self) -> set[int]:
        """Return the processes that circus has started."""
        return {pid for watcher in self.controller.arbiter.watchers for pid in watcher.processes}

    def give_up(self, status: int) -> None:
        """Leave to BentoML's next look a worker that could not start; end if there is no other."""
        arbiter = self.controller.arbiter
        arbiter.reap_processes()
        logger.error("Worker ended by exit status %d", status)
        if not self.workers():
            arbiter._exception = BentoMLException("No worker can start: the log says why")
            self.quit()

    def handle_hup(self) -> None:
        """End the service; circus would replace its workers."""
        if not self.told:  # a shell tells it twice
            self.quit()

    def quit(self) -> None:
        """End the service."""
        arbiter = self.controller.arbiter
        if self.told:
            for watcher in arbiter.watchers:
                for process in watcher.processes.values():
                    process.send_signal(signal.SIGKILL)
        else:
            self.told = True
            sockets = list(arbiter.sockets.values())
            self.controller.loop.add_callback_from_signal(stop_listening, sockets)
            super().quit()


def ended_child() -> Any:
    """Tell how a child has ended that nobody has waited for; raise ChildProcessError."""
    if hasattr(os, "waitid"):  # macOS has none
        return os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    return None


def has_failed(ended: Any) -> bool:
    """Tell whether a process has ended itself, with an error."""
    return ended.si_code == os.CLD_EXITED and ended.si_status != 0


async def stop_listening(sockets: list[socket.socket]) -> None:
    """Refuse new connections and reset none.

    Whoever is in the queue of a socket is reset when it is closed, and while workers empty the
    queue others come into it: so first nobody may begin to connect, and who has begun is accepted.
    """
    for listener in sockets:
        with suppress(OSError):
            drop_handshakes(listener)
    await gen.sleep(HANDSHAKE_SECONDS)
    end = time.monotonic() + ACCEPT_SECONDS
    while select.select(sockets, [], [], 0)[0] and time.monotonic() < end:
        await gen.sleep(0.01)
    for listener in sockets:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)


def drop_handshakes(listener: socket.socket) -> None:
    """Have the kernel drop what would begin a connection; the client tries again in a second."""
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in NO_SYN))
    program = struct.pack("HP", len(NO_SYN), ctypes.addressof(code))
    listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
