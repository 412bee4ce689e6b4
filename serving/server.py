"""The server: uvicorn's, with settings of ours, and an end that loses no request.

BentoML takes uvicorn's time limits from its command line only, which is fixed in an image, and on
SIGTERM closes idle connections at once, and so those of busy clients in the midst of a request.
"""

import asyncio
import resource
import socket
from functools import partial

import uvicorn

from serving.connection import LEAVE_SECONDS, Connection
from serving.edge import Edge

# What BentoML gives uvicorn if its command line says nothing.
BENTOML_KEEP_ALIVE, BENTOML_SHUTDOWN_TIMEOUT = 5, None
# In one worker; each takes a file, of which so many others are open at most.
MAX_CONNECTIONS, OTHER_FILES = 4096, 256
# Until a tick before what Retry-After says, so that nobody who waits as long is set aside.
ASIDE_SECONDS = 0.9


def install(edge: Edge) -> None:
    """Have the worker of BentoML run our server, which it makes once it has its application."""
    uvicorn.Server = partial(Server, edge)


class Server(uvicorn.Server):
    """uvicorn's server with our settings, unless the command line says otherwise."""

    def __init__(self, edge: Edge, config: uvicorn.Config) -> None:
        settings = edge.settings
        config.http = partial(Connection, self)
        config.ws = "none"
        if config.timeout_keep_alive == BENTOML_KEEP_ALIVE:
            config.timeout_keep_alive = settings.keep_alive
        if config.timeout_graceful_shutdown == BENTOML_SHUTDOWN_TIMEOUT:
            config.timeout_graceful_shutdown = settings.shutdown_timeout
        super().__init__(config)
        self.edge = edge
        self.request_timeout = settings.request_timeout
        self.max_connections = allow_files(MAX_CONNECTIONS)
        # Those that wait for a request, longest first, since when.
        self.waiting: dict[Connection, float] = {}
        # Those that were refused a place, longest first, since when.
        self.aside: dict[Connection, float] = {}

    def admit(self, connection: Connection) -> None:
        """Take a connection in; if there are too many, close the one that has waited longest."""
        self.waiting[connection] = connection.loop.time()
        if len(self.server_state.connections) > self.max_connections:
            longest = next(iter(self.waiting))
            del self.waiting[longest]
            longest.transport.close()

    def set_aside(self, connection: Connection) -> None:
        """Read no more from a client that was refused a place, until there is one, or a while.

        640 clients for 64 places that asked again at once, whatever Retry-After says, left the
        others 275 answers a second of 4,938: to refuse takes nearly as long as to predict.
        """
        if not self.edge.closing:
            connection.flow.pause_reading()
            self.aside[connection] = connection.loop.time()

    async def on_tick(self, counter: int) -> bool:
        """Read again from those set aside, if there are places; uvicorn calls it at 10 Hz."""
        self.let_in(self.edge.places, asyncio.get_running_loop().time() - ASIDE_SECONDS)
        return await super().on_tick(counter)

    def let_in(self, places: int, before: float) -> None:
        """Read again from so many of those set aside, and from all that were before a time."""
        for place, (connection, since) in enumerate(list(self.aside.items())):
            if place >= places and since > before:
                break
            del self.aside[connection]
            connection.flow.resume_reading()

    async def shutdown(self, sockets: list[socket.socket]) -> None:
        """Serve who is connected, and who connects while the supervisor listens; end in time."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        self.edge.closing = True
        self.let_in(len(self.aside), start)
        for connection in self.server_state.connections:
            connection.shutdown()
        while loop.time() < start + LEAVE_SECONDS:
            if not self.server_state.connections and not any(map(is_listening, sockets)):
                break
            await asyncio.sleep(0.02)
        end = start + self.config.timeout_graceful_shutdown
        self.config.timeout_graceful_shutdown = max(end - loop.time(), 0)
        await super().shutdown(sockets)


def is_listening(listener: socket.socket) -> bool:
    """Tell whether nobody has shut a socket down, in this process or another."""
    return bool(listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def allow_files(wanted: int) -> int:
    """Raise the limit of open files, and return how many connections fit under it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted + OTHER_FILES
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    if soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most - OTHER_FILES
