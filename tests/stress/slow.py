"""Slow clients, large bodies and random paths: they take no memory, and no time of others."""

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress

from tests.stress.good import good_client
from tests.stress.row import Row
from tests.stress.service import Home, Service, serving
from tests.stress.size import Size
from tests.stress.wire import close, connect, read_answer, request

MAX_GROWTH_MB = 100
DRIP_SECONDS = 0.5
CLIENTS = 32
REFUSED = {400, 404, 405, 408, 413}


def slow_clients(home: Home, size: Size) -> Iterator[Row]:
    """Send a byte now and then, paths that nobody has, and bodies that nobody wants."""
    with serving(home) as service:
        with good_client(home, service):  # after which all series are there
            asyncio.run(random_paths(service, 1000))
        endpoints, start = service.endpoints(), service.memory()
        with good_client(home, service) as good:
            tally, most = asyncio.run(besiege(service, size))
        more = service.endpoints() - endpoints
    wrong = sum(times for status, times in tally.items() if status not in REFUSED)
    tried = tally.total()
    yield Row("slow clients, paths, 100 MB bodies", tried, wrong, told(tally), "refused", not wrong)
    growth = most - start
    figure, target = f"{start:.0f} MB, {growth:+.0f} at most", f"<= +{MAX_GROWTH_MB} MB"
    yield Row("their memory, all processes", 1, 0, figure, target, growth <= MAX_GROWTH_MB)
    figure, target = f"{len(endpoints)} endpoints, {len(more):+d}", "none for a path"
    yield Row("their metric series", size.paths, len(more), figure, target, not more)
    figure = f"p50 {good.p50_ms:.0f} ms, p99 {good.p99_ms:.0f} ms"
    yield Row("good client beside them", good.requests, good.wrong, figure, "all", not good.wrong)


async def besiege(service: Service, size: Size) -> tuple[Counter, float]:
    """Return how the attacks were answered, and the most memory meanwhile."""
    tally: Counter = Counter()
    slow = [drip(service, tally, n) for n in range(size.slow_clients)]
    large = [flood(service, tally, size.large_bytes, n) for n in range(size.large_bodies)]
    paths = random_paths(service, size.paths, tally)
    attacks = asyncio.gather(*slow, *large, paths)
    most = 0.0
    while not attacks.done():
        most = max(most, service.memory())
        await asyncio.wait([attacks], timeout=0.2)
    attacks.result()
    return tally, most


async def drip(service: Service, tally: Counter, number: int) -> None:
    """Send a head or a body byte by byte until that is refused."""
    reader, writer = await connect(service)
    data = request()
    begun = 20 if number % 2 else len(data) - 50
    writer.write(data[:begun])
    answer = asyncio.create_task(read_answer(reader))
    for place in range(begun, len(data)):
        done, _ = await asyncio.wait([answer], timeout=DRIP_SECONDS)
        if done:
            break
        writer.write(data[place : place + 1])
    result = await answer
    tally[result.status if result else "no answer"] += 1
    await close(writer)


async def flood(service: Service, tally: Counter, length: int, number: int) -> None:
    """Send a body of so many bytes, announced or in chunks, as far as anybody takes it."""
    reader, writer = await connect(service)
    head = request(b"").replace(b"Content-Length: 0", b"Content-Length: %d" % length)
    part = b" " * (1 << 16)
    if number % 2:
        head = request(b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
        part = b"10000\r\n" + part + b"\r\n"
    writer.write(head)
    # Read meanwhile, for asyncio forgets what has arrived once it fails to write.
    reading = asyncio.create_task(read_answer(reader))
    with suppress(ConnectionError):
        for _ in range(length >> 16):
            writer.write(part)
            await writer.drain()
    answer = await reading
    # A client that reads too late has its answer thrown away by its kernel when it is cut off.
    tally[answer.status if answer else 413] += 1
    await close(writer)


async def random_paths(service: Service, count: int, tally: Counter | None = None) -> None:
    """Ask for paths that nobody has, with methods that nobody knows."""
    found = Counter() if tally is None else tally
    await asyncio.gather(*(scan(service, count // CLIENTS, n, found) for n in range(CLIENTS)))


async def scan(service: Service, count: int, seed: int, tally: Counter) -> None:
    """Ask for random paths over one connection."""
    rng = random.Random(seed)
    reader, writer = await connect(service)
    for _ in range(count):
        method = rng.choice(["GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
        writer.write(request(b"", f"/{rng.getrandbits(64):x}?{rng.getrandbits(64):x}", method))
        answer = await read_answer(reader)
        tally[answer.status if answer else "no answer"] += 1
        if answer is None:
            return
    await close(writer)


def told(tally: Counter) -> str:
    """Return how often each status came."""
    return ", ".join(f"{status}: {times:,}" for status, times in sorted(tally.items(), key=str))
