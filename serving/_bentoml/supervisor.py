"""The supervisor process: replaces dead workers, and shuts the service down.

BentoML builds it on circus. The supervisor starts the workers and holds the listening socket; the
workers accept connections and serve requests.
"""

import ctypes
import errno
import logging
import os
import select
import signal
import socket
import struct
import sys
import time
from contextlib import suppress
from typing import Any

from bentoml.exceptions import BentoMLException
from circus import controller
from circus.exc import ConflictError
from circus.sighandler import SysHandler
from circus.sockets import CircusSocket
from psutil import NoSuchProcess
from tornado import gen

from serving._bentoml.ignored_options import warn_of_ignored_options
from serving.settings import find_misspelled

logger = logging.getLogger("bentoml.serve")

# The environment variable by which a worker knows its supervisor.
SUPERVISOR_PID = "SUPERVISOR_PID"
RETRY_SECONDS = 0.1
HANDSHAKE_SECONDS = 0.1  # for TCP handshakes that have begun
# For the workers to empty the accept queue: below DRAIN_SECONDS, for which they accept connections.
ACCEPT_SECONDS = 0.9
SO_ATTACH_FILTER = 26  # a socket option of Linux, which Python does not define; see socket(7)
# A program for it that drops TCP segments with the flag SYN, which open a connection. Its
# instructions are: operation, jump if true, jump if false, operand.
DROP_SYN = [
    (0x30, 0, 0, 13),  # load byte 13 of the TCP header, which has the flags
    (0x45, 0, 1, 2),  # if SYN (2) is not set, skip the next instruction
    (0x06, 0, 0, 0),  # drop
    (0x06, 0, 0, 0xFFFFFFFF),  # accept
]


def install() -> None:
    """Replace circus' signal handling and socket binding; BentoML starts circus next."""
    for name, setting in find_misspelled(os.environ):
        logger.warning("%s is not a setting; did you mean %s?", name, setting)
    warn_of_ignored_options()
    os.environ[SUPERVISOR_PID] = str(os.getpid())  # for the workers
    # In a container, which BentoML recognizes by this variable, it replaces no dead worker.
    os.environ.pop("BENTOML_CONTAINERIZED", None)
    controller.SysHandler = SignalHandler
    CircusSocket.bind = bind


def bind(listener: CircusSocket, address: tuple[str, int]) -> None:
    """Bind a socket; raise BentoMLException, saying what to do, if the port is in use."""
    try:
        socket.socket.bind(listener, address)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        message = f"Port {address[1]} is in use: stop the process that listens there, or set PORT"
        raise BentoMLException(message) from None


class SignalHandler(SysHandler):
    """Replaces circus' handler of the supervisor's signals.

    SIGCHLD calls `on_child_exit`; SIGTERM, SIGINT, SIGQUIT and SIGHUP (the terminal was closed)
    call `quit`.
    """

    stopping = False  # True after the first call of `quit`

    def __init__(self, controller: Any) -> None:
        super().__init__(controller)
        signal.signal(signal.SIGCHLD, self.on_child_exit)
        # circus keeps the previous handlers in `_old`. nohup makes the service ignore SIGHUP.
        if self._old[signal.SIGHUP] is signal.SIG_IGN:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def on_child_exit(self, *_: Any) -> None:
        """Schedule the replacement of dead workers."""
        self.controller.loop.add_callback_from_signal(self.replace_dead_workers)

    async def replace_dead_workers(self) -> None:
        """Replace dead workers at once, but not one that exited with an error status.

        Such a worker most likely failed to start, and the next one would fail, too: circus replaces
        it later (it checks every 10 s) or, if no worker is left, the service ends.
        """
        arbiter = self.controller.arbiter
        if self.stopping or arbiter._stopping:
            return
        worker_pids = self.worker_pids()
        try:
            child = find_exited_child()
            if child and child.si_pid in worker_pids and exited_with_error(child):
                self.handle_error_exit(child.si_status)
                return
            await arbiter.manage_watchers()  # circus reaps the dead workers and starts new ones
        except ChildProcessError:  # circus has already reaped it
            return
        except ConflictError:  # circus is starting workers
            self.controller.loop.call_later(RETRY_SECONDS, self.on_child_exit)
            return
        if child and child.si_pid in worker_pids:
            how = "exited with status" if child.si_code == os.CLD_EXITED else "was killed by signal"
            logger.error("Worker %s %d; starting a replacement", how, child.si_status)

    def worker_pids(self) -> set[int]:
        """Return the process IDs of the workers."""
        return {pid for watcher in self.controller.arbiter.watchers for pid in watcher.processes}

    def handle_error_exit(self, status: int) -> None:
        """Log the exit status of a worker; stop the service if no worker is left."""
        arbiter = self.controller.arbiter
        arbiter.reap_processes()
        logger.error("Worker exited with status %d", status)
        if not self.worker_pids():
            # circus raises it once it has stopped: the service ends with an error.
            arbiter._exception = BentoMLException("No worker is left; see the log above")
            self.quit()

    def handle_hup(self) -> None:
        """Stop the service, where circus would replace its workers."""
        if not self.stopping:  # a shell sends SIGHUP twice
            self.quit()

    def quit(self) -> None:
        """Stop the service; at the second signal, which circus would ignore, kill the workers."""
        if self.stopping:
            for watcher in self.controller.arbiter.watchers:
                for process in watcher.processes.values():
                    with suppress(NoSuchProcess):  # it has ended
                        process.send_signal(signal.SIGKILL)
        else:
            self.stopping = True
            self.controller.loop.add_callback_from_signal(self.stop_service)

    async def stop_service(self) -> None:
        """Stop the workers; stop listening once they have accepted what is in the accept queue.

        After SIGTERM they accept connections for up to DRAIN_SECONDS (`Server.shutdown`). circus
        alone would close the socket last, and reset the clients in the queue.
        """
        arbiter = self.controller.arbiter
        try:
            arbiter.stop()
        except ConflictError:  # circus is starting workers
            self.controller.loop.call_later(RETRY_SECONDS, self.stop_service)
            return
        await drain_accept_queue(list(arbiter.sockets.values()))


def find_exited_child() -> Any:
    """Return the wait status of an exited child that is not reaped yet, or None.

    Raise ChildProcessError if there is no child.
    """
    # Missing on macOS before Python 3.13: there, a worker that can't start is restarted forever.
    if hasattr(os, "waitid"):
        return os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    return None


def exited_with_error(child: Any) -> bool:
    """Return whether a process exited, not by a signal, with a status other than 0."""
    return child.si_code == os.CLD_EXITED and child.si_status != 0


async def drain_accept_queue(sockets: list[socket.socket]) -> None:
    """Stop listening once the workers have accepted the connections in the accept queue.

    Closing the sockets would reset these connections.
    """
    end = time.monotonic() + ACCEPT_SECONDS
    for listener in sockets:
        ignore_new_connections(listener)
    await gen.sleep(HANDSHAKE_SECONDS)
    while select.select(sockets, [], [], 0)[0] and time.monotonic() < end:
        await gen.sleep(0.01)
    stop_listening(sockets)


def ignore_new_connections(listener: socket.socket) -> None:
    """Leave clients that connect from now on without an answer, on Linux.

    Otherwise a client could enter the accept queue just before the socket closes, which would reset
    its connection. A client without an answer tries again after 1 s: then the port is closed, or
    another server listens. `listener` is also the socket of the workers.
    """
    if sys.platform == "linux":
        program = b"".join(struct.pack("HBBI", *instruction) for instruction in DROP_SYN)
        buffer = ctypes.create_string_buffer(program)
        option = struct.pack("HP", len(DROP_SYN), ctypes.addressof(buffer))  # struct sock_fprog
        with suppress(OSError):  # a sandbox may not support it
            listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, option)


def stop_listening(sockets: list[socket.socket]) -> None:
    """Stop listening, for all processes that share the sockets."""
    for listener in sockets:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
