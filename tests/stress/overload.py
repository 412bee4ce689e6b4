"""Ten times the clients that there are places for: the service goes on serving what it can.

An open loop at ten times the rate would need a load generator ten times as fast as the service,
which two cores don't have. wrk's clients ask again as soon as they are refused, whatever
Retry-After says, and so are as rude as clients get; those that probe come once a second.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from statistics import median

from tests.stress.faults import busy_clients
from tests.stress.load import background, load
from tests.stress.row import Row
from tests.stress.service import START_SECONDS, Home, Service, launched, serving, wait_until
from tests.stress.size import Size
from tests.stress.wire import close, connect, read_answer, request

PLACES = 64
TIMES = 10
LEAST_SHARE = 0.9
REFUSED_MS = 50
PROBES = 50


def overload(home: Home, size: Size) -> Iterator[Row]:
    """Measure the capacity, offer ten times the clients, and see how it is afterwards."""
    clients = PLACES * TIMES
    with serving(home, MAX_CONCURRENCY=str(PLACES)) as service:
        load(service, PLACES, 1)
        # In turn, for the rate of a machine changes from one second to the next.
        steps = (PLACES, size.seconds), (clients, size.seconds), (PLACES, 1)
        rounds = [[load(service, *step) for step in steps] for _ in range(size.rounds)]
        with background(service, clients, size.seconds + 1):
            refusals = asyncio.run(probe(service, size.seconds))
    before, over, after = zip(*rounds, strict=True)
    target = f">= {LEAST_SHARE:.0%} of the capacity"
    for what, loads in ((f"{TIMES} times the clients", over), ("first second afterwards", after)):
        good, refused = sum(one.good for one in loads), sum(one.refused for one in loads)
        lost = sum(one.other + one.broken for one in loads)
        share = median(one.rate / full.rate for one, full in zip(loads, before, strict=True))
        figure = f"{share:.0%} of {median(full.rate for full in before):.0f}/s, {refused:,} refused"
        yield Row(what, good + lost, lost, figure, target, share >= LEAST_SHARE and not lost)
    yield refusal_row(refusals)


def refusal_row(seconds: list[float]) -> Row:
    """Return how long polite clients waited to be refused."""
    late = sum(second * 1000 > REFUSED_MS for second in seconds)
    ordered = sorted(seconds) or [0.0]
    p50, p99 = (1000 * ordered[int(len(ordered) * share)] for share in (0.5, 0.99))
    figure = f"p50 {p50:.0f} ms, p99 {p99:.0f} ms"
    target = f"p99 <= {REFUSED_MS} ms"
    return Row("time to a refusal", len(seconds), late, figure, target, p99 <= REFUSED_MS)


async def probe(service: Service, seconds: float) -> list[float]:
    """Return how long refusals took, for clients that wait as Retry-After says."""
    refusals: list[float] = []
    end = time.monotonic() + seconds

    async def ask(delay: float) -> None:
        await asyncio.sleep(delay)
        reader, writer = await connect(service)
        while time.monotonic() < end:
            start = time.perf_counter()
            writer.write(request())
            answer = await read_answer(reader)
            if answer and answer.status == 429:
                refusals.append(time.perf_counter() - start)
            await asyncio.sleep(1)
        await close(writer)

    await asyncio.gather(*(ask(n / PROBES) for n in range(PROBES)))
    return refusals


def cold_start(home: Home, size: Size) -> Iterator[Row]:
    """Start under full load: whoever is connected is served."""
    with launched(home) as service:
        tally, ready = asyncio.run(start_under_load(service, size.seconds))
    lost = tally.total() - tally[200]
    ok = ready and tally[200] > 0 and not lost
    figure = ", ".join(f"{status}: {times:,}" for status, times in tally.items())
    yield Row("start under full load", tally.total(), lost, figure, "all served", ok)


async def start_under_load(service: Service, seconds: float) -> tuple[Counter, bool]:
    """Return what clients got that were there before the service."""
    tally: Counter = Counter()
    async with busy_clients(service, tally, PLACES):
        ready = await asyncio.to_thread(wait_until, lambda: tally[200] > 0, START_SECONDS)
        await asyncio.sleep(seconds)
    return tally, ready
