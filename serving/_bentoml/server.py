"""The uvicorn server of a worker, with connection limits and a graceful drain.

BentoML takes uvicorn's time limits from its command line only, which is fixed in an image. uvicorn
lets new clients wait behind connected ones. On SIGTERM it closes idle connections at once, and
loses the requests that clients are about to send.
"""

import asyncio
import logging
import os
import resource
import socket
from contextlib import suppress
from functools import partial
from typing import Any

import uvicorn

from serving._bentoml.connection import DRAIN_SECONDS, Connection
from serving.http.app import ServiceApp
from serving.settings import SUPERVISOR_PID

logger = logging.getLogger("bentoml.serve")

# What BentoML passes to uvicorn without options on its command line.
BENTOML_KEEP_ALIVE, BENTOML_SHUTDOWN_TIMEOUT = 5, None
# Per worker. Each connection takes a file descriptor, beside those for other files.
MAX_CONNECTIONS, OTHER_FILES = 4096, 256
# libuv accepts one connection per listener in a turn of the event loop (libuv pull request 3696),
# and a turn takes 10 ms at full load: clients with a new connection for each request got half as
# many responses. Polling this many listeners costs a new connection 0.05 ms.
LISTENERS = 32


def install(app: ServiceApp, open_requests: "set[asyncio.Task[None]]") -> None:
    """Make the worker of BentoML run our server; it creates one after its application.

    The server keeps the tasks of its open requests in `open_requests`.
    """
    uvicorn.Server = partial(Server, app, open_requests)


class Server(uvicorn.Server):
    """uvicorn's server with our settings, unless BentoML's command line overrides them."""

    def __init__(
        self, app: ServiceApp, open_requests: "set[asyncio.Task[None]]", config: uvicorn.Config
    ) -> None:
        settings = app.settings
        config.http = partial(Connection, self)
        config.ws = "none"
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
        # Connections that wait for a request, since when, the longest waiting first.
        self.waiting: dict[Connection, float] = {}

    @property
    def draining(self) -> bool:
        """Whether the server is shutting down."""
        return self.app.draining

    async def serve(self, sockets: list[socket.socket]) -> None:
        """Serve, with several listeners per socket if this is the only worker.

        With several workers one of them would take most clients that connect at the same time: two
        answered 8,000 to 10,000 requests a second, and with one listener each 10,600 to 12,200.
        """
        if self.app.settings.workers == 1:
            sockets = [copy for s in sockets for copy in (s, *duplicate_listener(s))]
        await super().serve(sockets)

    def register(self, connection: Connection) -> None:
        """Accept a connection; above the limit, close the one that has waited longest."""
        connection.wait_for_request(DRAIN_SECONDS if self.draining else self.request_timeout)
        if len(self.server_state.connections) > self.max_connections:
            longest_waiting = next(iter(self.waiting))
            del self.waiting[longest_waiting]
            longest_waiting.close()

    async def on_tick(self, counter: int) -> bool:
        """Do uvicorn's work of each 0.1 s, and tell whether to end.

        A worker whose supervisor was killed ends: it would hold the port, and nobody would restart
        or stop it.
        """
        return is_orphan() or await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket]) -> None:
        """Drain: serve connected clients, and new ones while the supervisor still listens."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        self.app.draining = True
        if is_orphan():
            logger.error("The supervisor was killed: this worker ends")
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
    # Not with its method `dup`, which makes all of them block, in other workers too.
    return [socket.socket(fileno=os.dup(listener.fileno())) for _ in range(LISTENERS - 1)]


def is_orphan() -> bool:
    """Tell whether the supervisor of this worker has ended."""
    return os.environ.get(SUPERVISOR_PID, str(os.getppid())) != str(os.getppid())


def stop_listening(sockets: list[socket.socket]) -> None:
    """Stop listening, for all processes that share the sockets."""
    for listener in sockets:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)


def is_listening(listener: socket.socket) -> bool:
    """Tell whether no process has shut a listening socket down."""
    return bool(listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def raise_file_limit(connections: int) -> int:
    """Raise the limit of open files for so many connections; return how many fit under it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = connections + OTHER_FILES
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    if soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return max(limit - OTHER_FILES, limit // 2)
