"""A worker is killed, and the service is stopped, while clients are busy."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import psutil

from serving.settings import Settings
from tests.stress.row import Row
from tests.stress.service import Home, Service, serving
from tests.stress.size import Size
from tests.stress.wire import Answer, close, connect, read_answer, request

CLIENTS = 32
BACK_SECONDS = 5
SHUTDOWN_SECONDS = Settings.model_fields["shutdown_timeout"].default
SLACK_SECONDS = 2


def killed_worker(home: Home, size: Size) -> Iterator[Row]:
    """Kill the one worker with SIGKILL: only what it had in hand is lost."""
    with serving(home) as service:
        tally, seconds = asyncio.run(kill_under_load(service, size.seconds))
    lost = tally.total() - tally[200]
    ok = lost <= CLIENTS and seconds <= BACK_SECONDS
    target = f"lost <= {CLIENTS} in progress, back <= {BACK_SECONDS} s"
    yield Row(
        "worker killed under load", tally.total(), lost, f"back in {seconds:.1f} s", target, ok
    )


async def kill_under_load(service: Service, seconds: float) -> tuple[Counter, float]:
    """Return what clients got, and the seconds until the next good answer."""
    tally: Counter = Counter()
    async with busy_clients(service, tally):
        await asyncio.sleep(seconds)
        (worker,) = service.workers()
        worker.kill()
        start = time.monotonic()
        while worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE:
            await asyncio.sleep(0.001)
        before = tally[200]
        while tally[200] == before and time.monotonic() < start + 4 * BACK_SECONDS:
            await asyncio.sleep(0.01)
        back = time.monotonic() - start
        await asyncio.sleep(seconds)
    return tally, back


def stopped_service(home: Home, size: Size) -> Iterator[Row]:
    """Stop the service with SIGTERM: what it has accepted is answered, and it ends in time."""
    for workers in ("1", "2"):
        with serving(home, WORKERS=workers) as service:
            tally, seconds = asyncio.run(stop_under_load(service, size.seconds))
        lost = tally.total() - tally[200]
        most = SHUTDOWN_SECONDS + SLACK_SECONDS
        what = f"SIGTERM under load, workers: {workers}"
        ok = not lost and seconds <= most
        figure = f"ended in {seconds:.1f} s"
        yield Row(what, tally.total(), lost, figure, f"lost 0, <= {most} s", ok)


async def stop_under_load(service: Service, seconds: float) -> tuple[Counter, float]:
    """Return what clients got, and the seconds that the end took."""
    tally: Counter = Counter()
    async with busy_clients(service, tally):
        await asyncio.sleep(seconds)
        ended = await asyncio.to_thread(service.stop)
    return tally, ended


@asynccontextmanager
async def busy_clients(
    service: Service, tally: Counter, count: int = CLIENTS
) -> AsyncIterator[None]:
    """Have clients send requests, half of them over a new connection each."""
    ending = asyncio.Event()
    clients = [send(service, tally, ending, bool(n % 2)) for n in range(count)]
    tasks = [asyncio.create_task(client) for client in clients]
    try:
        yield
    finally:
        ending.set()
        await asyncio.gather(*tasks)


async def send(service: Service, tally: Counter, ending: asyncio.Event, keep: bool) -> None:
    """Send requests until told to end, or until nobody listens; count what comes of them."""
    while not ending.is_set():
        try:
            reader, writer = await connect(service)
        except ConnectionError:
            await asyncio.sleep(0.01)
            continue
        last = False
        while not last and not ending.is_set():
            writer.write(request())
            answer = await read_answer(reader)
            tally[answer.status if answer else "no answer"] += 1
            last = not keep or is_last(answer)
        await close(writer)


def is_last(answer: Answer | None) -> bool:
    """Tell whether no answer follows on the connection."""
    return answer is None or answer.headers.get(b"connection") == b"close"
