"""SIGKILL to a worker and SIGTERM to the server, both under load."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from math import inf

import psutil

from serving.settings import Settings
from tests.helpers.raw_http import request
from tests.stress.config import StressConfig
from tests.stress.raw_http import close, closes_connection, connect, read_response
from tests.stress.result import Result
from tests.stress.server import ModelStore, Server, run_server

CLIENTS = 32
MAX_RECOVERY_SECONDS = 5
SHUTDOWN_TIMEOUT_SECONDS = Settings.model_fields["shutdown_timeout"].default
SHUTDOWN_MARGIN_SECONDS = 2


def worker_crash(store: ModelStore, config: StressConfig) -> Iterator[Result]:
    """Kill the only worker with SIGKILL and check that only the requests in progress fail."""
    with run_server(store) as server:
        outcomes, seconds = asyncio.run(kill_under_load(server, config.load_seconds))
    failed = outcomes.total() - outcomes[200]
    ok = failed <= CLIENTS and seconds <= MAX_RECOVERY_SECONDS
    measured = f"recovery in {seconds:.1f} s"
    target = f"<= {CLIENTS} failed, <= {MAX_RECOVERY_SECONDS} s"
    yield Result("worker killed under load", outcomes.total(), failed, measured, target, ok)


async def kill_under_load(server: Server, seconds: float) -> tuple[Counter, float]:
    """Return the outcomes and the seconds from the kill to the first response of a new worker."""
    outcomes: Counter = Counter()
    async with background_clients(server, outcomes):
        await asyncio.sleep(seconds)
        (worker,) = server.workers()
        worker.kill()
        start = time.monotonic()
        with suppress(psutil.NoSuchProcess):
            while worker.status() != psutil.STATUS_ZOMBIE:
                await asyncio.sleep(0.001)
        # Only a new worker can answer on a new connection.
        reader, writer = await connect(server)
        writer.write(request())
        recovery_seconds = inf
        with suppress(TimeoutError):
            if await asyncio.wait_for(read_response(reader), 4 * MAX_RECOVERY_SECONDS):
                recovery_seconds = time.monotonic() - start
        await close(writer)
        await asyncio.sleep(seconds)
    return outcomes, recovery_seconds


def graceful_shutdown(store: ModelStore, config: StressConfig) -> Iterator[Result]:
    """Stop the server with SIGTERM and check that it completes every request it accepted."""
    for workers in ("1", "2"):
        with run_server(store, WORKERS=workers) as server:
            outcomes, seconds = asyncio.run(stop_under_load(server, config.load_seconds))
        failed = outcomes.total() - outcomes[200]
        limit = SHUTDOWN_TIMEOUT_SECONDS + SHUTDOWN_MARGIN_SECONDS
        ok = not failed and seconds <= limit
        check = f"SIGTERM under load, workers: {workers}"
        measured = f"shutdown in {seconds:.1f} s"
        target = f"0 failed, <= {limit} s"
        yield Result(check, outcomes.total(), failed, measured, target, ok)


async def stop_under_load(server: Server, seconds: float) -> tuple[Counter, float]:
    """Return the outcomes and the duration of the shutdown in seconds."""
    outcomes: Counter = Counter()
    async with background_clients(server, outcomes):
        await asyncio.sleep(seconds)
        shutdown_seconds = await asyncio.to_thread(server.stop)
    return outcomes, shutdown_seconds


@asynccontextmanager
async def background_clients(
    server: Server, outcomes: Counter, count: int = CLIENTS
) -> AsyncIterator[None]:
    """Run clients in the background that count outcomes; half of them use keep-alive."""
    stopping = asyncio.Event()
    clients = [send_requests(server, outcomes, stopping, bool(n % 2)) for n in range(count)]
    tasks = [asyncio.create_task(client) for client in clients]
    try:
        yield
    finally:
        stopping.set()
        await asyncio.gather(*tasks)


async def send_requests(
    server: Server, outcomes: Counter, stopping: asyncio.Event, keep_alive: bool
) -> None:
    """Send requests until the event is set; without keep-alive, each on a new connection.

    A refused connection is retried and not counted, because no request was sent on it.
    """
    while not stopping.is_set():
        try:
            reader, writer = await connect(server)
        except ConnectionError:
            await asyncio.sleep(0.01)
            continue
        last = False
        while not last and not stopping.is_set():
            writer.write(request())
            response = await read_response(reader)
            outcomes[response.status if response else "no response"] += 1
            last = not keep_alive or closes_connection(response)
        await close(writer)
