"""The uvicorn server of a worker, with a limit on connections and a graceful drain.

BentoML takes uvicorn's time limits only from its command line, which is fixed in an image. uvicorn
closes no idle connection to make room for a new one. On SIGTERM it even closes connections on which
it has just responded, and loses the next requests of the clients.
"""

import asyncio
import logging
import os
import resource
import socket
from functools import partial
from typing import Any

import uvicorn

from serving._bentoml import response_cycle
from serving._bentoml.connection import DRAIN_SECONDS, Connection
from serving._bentoml.supervisor import SUPERVISOR_PID, stop_listening
from serving.http.app import ServiceApp

logger = logging.getLogger("bentoml.serve")

# What BentoML passes to uvicorn without `--timeout-keep-alive` and `--timeout-graceful-shutdown`:
# 5 s, and no limit. `--timeout-keep-alive 5` can't be told from no option: the setting applies.
BENTOML_KEEP_ALIVE = 5
BENTOML_SHUTDOWN_TIMEOUT = None
# Per worker. Each connection needs a file descriptor; OTHER_FILES are left for everything else.
MAX_CONNECTIONS = 4096
OTHER_FILES = 256
# libuv accepts one connection per listener in a turn of the event loop (libuv pull request 3696),
# and a turn takes 10 ms at full load. Polling this many listeners costs a new connection 0.05 ms.
LISTENERS = 32


def install(app: ServiceApp, open_requests: "set[asyncio.Task[None]]") -> None:
    """Make BentoML's worker create a `Server`, and a `ResponseCycle` for each request.

    The server takes its settings from `app`, tells it when the drain begins, and keeps the tasks of
    its open requests in `open_requests`. Call this before the worker creates its server.
    """
    response_cycle.install()
    uvicorn.Server = partial(Server, app, open_requests)


class Server(uvicorn.Server):
    """uvicorn's server with `Settings`, some of which BentoML's command line overrides."""

    def __init__(
        self, app: ServiceApp, open_requests: "set[asyncio.Task[None]]", config: uvicorn.Config
    ) -> None:
        settings = app.settings
        config.http = partial(Connection, self)
        config.ws = "none"  # `ServiceApp` has no WebSocket
        config.proxy_headers = False  # `build_app` adds the middleware where it is needed
        if config.timeout_keep_alive == BENTOML_KEEP_ALIVE:
            config.timeout_keep_alive = settings.keep_alive
        if config.timeout_graceful_shutdown == BENTOML_SHUTDOWN_TIMEOUT:
            config.timeout_graceful_shutdown = settings.shutdown_timeout
        super().__init__(config)
        self.app = app
        self.server_state.tasks = open_requests
        self.request_timeout = settings.request_timeout
        self.max_connections = raise_file_limit(MAX_CONNECTIONS)
        # See `ConnectionOwner`.
        self.waiting: dict[Connection, float] = {}

    @property
    def draining(self) -> bool:
        """Whether the server is shutting down."""
        return self.app.draining

    async def serve(self, sockets: list[socket.socket]) -> None:
        """Serve, with several listeners per socket if this is the only worker.

        If each of several workers had several listeners, one worker would accept most of the
        clients that connect at the same time, and the others would be idle.
        """
        if self.app.settings.workers == 1:
            sockets = [copy for s in sockets for copy in (s, *duplicate_listener(s))]
        await super().serve(sockets)

    def register(self, connection: Connection) -> None:
        """Register a connection; above the limit, close the one that has waited longest."""
        connection.wait_for_request(DRAIN_SECONDS if self.draining else self.request_timeout)
        if len(self.server_state.connections) > self.max_connections:
            longest_waiting = next(iter(self.waiting))
            del self.waiting[longest_waiting]
            longest_waiting.close()

    async def on_tick(self, counter: int) -> bool:
        """Run uvicorn's tick, which it does every 0.1 s; return whether to shut down.

        A worker whose supervisor was killed shuts down: it would hold the port, and no process
        would replace or stop it.
        """
        return is_orphan() or await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket]) -> None:
        """Drain: serve requests for up to DRAIN_SECONDS more, and then shut down.

        They may come on connections from the accept queue (`drain_accept_queue`), and on those that
        have been idle for less than DRAIN_SECONDS (`Connection.drain`).
        """
        loop = asyncio.get_running_loop()
        start = loop.time()
        self.app.draining = True
        if is_orphan():
            logger.error("The supervisor was killed; shutting down this worker")
            stop_listening(sockets)
        connections: set[Any] = self.server_state.connections
        for connection in connections:
            connection.drain()
        while loop.time() < start + DRAIN_SECONDS:
            if not connections and not any(map(is_listening, sockets)):
                break
            await asyncio.sleep(0.02)
        end = start + (self.config.timeout_graceful_shutdown or 0)
        self.config.timeout_graceful_shutdown = max(end - loop.time(), 0)
        await super().shutdown(sockets)


def duplicate_listener(listener: socket.socket) -> list[socket.socket]:
    """Return duplicates of a listening socket, so that there are LISTENERS in all."""
    # `listener.dup()` would make the file description blocking, which all duplicates share.
    return [socket.socket(fileno=os.dup(listener.fileno())) for _ in range(LISTENERS - 1)]


def is_orphan() -> bool:
    """Return whether the supervisor of this worker has ended."""
    supervisor = os.environ.get(SUPERVISOR_PID)  # missing if there is no supervisor
    return supervisor is not None and supervisor != str(os.getppid())


def is_listening(listener: socket.socket) -> bool:
    """Return whether a socket still listens.

    `stop_listening` ends that for all processes that share the socket; the supervisor calls it.
    """
    return bool(listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def raise_file_limit(connections: int) -> int:
    """Raise the limit of open files to hold `connections`; return the number that fits."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = connections + OTHER_FILES
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    if soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return max(limit - OTHER_FILES, limit // 2)  # if the limit is low: half of it
