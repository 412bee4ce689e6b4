"""The server: uvicorn's, with settings of ours, an eye on crowds, and an end that loses no request.

BentoML takes uvicorn's time limits from its command line only, which is fixed in an image. uvicorn
lets new clients wait behind those that are connected, and reads from all of them as fast as they
send. On SIGTERM it closes idle connections at once, and so those of clients about to ask again.
"""

import asyncio
import os
import resource
import select
import socket
from functools import partial
from itertools import islice
from random import uniform

import uvicorn

from serving._bentoml.connection import LEAVE_SECONDS, Connection
from serving.http.app import Edge

# What BentoML gives uvicorn if its command line says nothing.
BENTOML_KEEP_ALIVE, BENTOML_SHUTDOWN_TIMEOUT = 5, None
# In one worker; each takes a file, of which it has so many others open at most.
MAX_CONNECTIONS, OTHER_FILES = 4096, 256
# libuv accepts one connection of a listener in a turn of the event loop (its pull request 3696),
# which takes 10 ms at full load: clients with a connection for each request got half as many
# answers. To look at all of these costs a new connection 0.05 ms.
LISTENERS = 32
# Less than Retry-After says, so that nobody who waits as long is set aside again, though the look
# may be late; at random, for those who came together would come together again.
ASIDE_SECONDS = 0.7, 0.9
# Who has not waited so long is set aside again, so many times in all.
MOST_TIMES_ASIDE = 4
GONE = getattr(select, "POLLRDHUP", 0)  # of Linux: the client has closed, at least its side


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
        # Those that were refused a place, longest first, and what lets them in again.
        self.aside: dict[Connection, asyncio.TimerHandle] = {}
        self.refused = False  # anybody who was set aside, since the last tick

    async def serve(self, sockets: list[socket.socket]) -> None:
        """Serve, with several listeners to each socket, unless other workers have theirs.

        Of several workers one would take most of the clients that come together: two answered 8,000
        to 10,000 requests a second, and with one listener each 10,600 to 12,200.
        """
        if self.edge.settings.workers == 1:
            sockets = [copy for s in sockets for copy in (s, *duplicates(s))]
        await super().serve(sockets)

    def admit(self, connection: Connection) -> None:
        """Take a connection in; if there are too many, close the one that has waited longest."""
        seconds = LEAVE_SECONDS if self.edge.closing else self.request_timeout
        connection.wait(seconds)
        if len(self.server_state.connections) > self.max_connections:
            longest = next(iter(self.waiting))
            del self.waiting[longest]
            longest.close()

    def set_aside(self, connection: Connection) -> None:
        """Read no more from a client that was refused a place, until there is one, or a while.

        640 clients for 64 places that asked again at once, whatever Retry-After says, left the
        others 275 answers a second of 4,938: to refuse takes nearly as long as to predict.
        """
        self.refused = True
        if not self.edge.closing:
            connection.flow.pause_reading()
            connection._unset_keepalive_if_required()
            self.keep_aside(connection, MOST_TIMES_ASIDE)

    def keep_aside(self, connection: Connection, times: int) -> None:
        """Keep a client aside for a while, and again if it has asked in the meantime."""
        seconds = uniform(*ASIDE_SECONDS)  # noqa: S311
        look = connection.loop.call_later(seconds, self.look_at, connection, times - 1)
        self.aside[connection] = look

    def look_at(self, connection: Connection, times: int) -> None:
        """Let a client in that has waited as long as it should, or so many times too short."""
        if times and arrived(connection) == select.POLLIN:
            self.keep_aside(connection, times)
        else:
            self.let_in(connection)

    def let_in(self, connection: Connection) -> None:
        """Read again from a client that was set aside, if it is still there."""
        self.aside.pop(connection).cancel()
        if arrived(connection) & GONE:
            connection.transport.abort()
        else:
            connection.flow.resume_reading()
            connection.wait(self.config.timeout_keep_alive)

    async def on_tick(self, counter: int) -> bool:
        """Let as many in as there are places, if lately there were; uvicorn calls it at 10 Hz."""
        if not self.refused:
            for connection in list(islice(self.aside, self.edge.places)):
                self.let_in(connection)
        self.refused = False
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket]) -> None:
        """Serve who is connected, and who connects while the supervisor listens; end in time."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        self.edge.closing = True
        for connection in list(self.aside):
            self.let_in(connection)
        for connection in self.server_state.connections:
            connection.shutdown()
        while loop.time() < start + LEAVE_SECONDS:
            if not self.server_state.connections and not any(map(is_listening, sockets)):
                break
            await asyncio.sleep(0.02)
        end = start + self.config.timeout_graceful_shutdown
        self.config.timeout_graceful_shutdown = max(end - loop.time(), 0)
        await super().shutdown(sockets)


def arrived(connection: Connection) -> int:
    """Return what has arrived that nobody has read: data (`POLLIN`), or the end (`GONE`, too)."""
    if connection.transport.is_closing():
        return GONE
    poll = select.poll()
    poll.register(connection.transport.get_extra_info("socket"), select.POLLIN | GONE)
    return sum(events for _, events in poll.poll(0))


def duplicates(listener: socket.socket) -> list[socket.socket]:
    """Return what else it takes to accept so many connections at once."""
    # Not with its method `dup`, which makes all of them block, in other workers too.
    return [socket.socket(fileno=os.dup(listener.fileno())) for _ in range(LISTENERS - 1)]


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
    return max(most - OTHER_FILES, most // 2)
