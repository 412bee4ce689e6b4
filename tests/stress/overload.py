"""Overload with ten times the clients that the server accepts, and a start under full load.

An open-loop test at ten times the capacity would need a load generator ten times as fast as the
server, which two cores do not provide. Therefore the clients are wrk's connections. Without the
proxy they wait after a rejection, as `Retry-After` says; with the proxy they do not wait. Separate
probe clients send one request a second, to measure how long a rejection takes.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from statistics import median

from tests.helpers.commands import becomes_true
from tests.helpers.raw_http import request
from tests.stress.config import StressConfig
from tests.stress.load_generator import LoadResult, background_load, run_load
from tests.stress.process_signals import background_clients
from tests.stress.proxy import run_proxy
from tests.stress.raw_http import close, connect, read_response
from tests.stress.result import Result
from tests.stress.server import START_TIMEOUT_SECONDS, ModelStore, Server, launch_server, run_server

MAX_CONCURRENCY = 64
OVERLOAD_FACTOR = 10
MIN_CAPACITY_SHARE = 0.9
MIN_DIRECT_SHARE = 0.7  # without a proxy: a rejection takes nearly as long as a prediction
MAX_REJECTION_MS = 200  # clients that are rejected together come back together
PROBE_CLIENTS = 50


def overload(store: ModelStore, config: StressConfig) -> Iterator[Result]:
    """Measure the throughput at capacity, under overload, and in the first second afterwards."""
    clients = MAX_CONCURRENCY * OVERLOAD_FACTOR
    with run_server(store, MAX_CONCURRENCY=str(MAX_CONCURRENCY)) as server:
        rounds = measure_rounds(server, config, honour_retry_after=True)
        seconds = config.load_seconds
        with background_load(server, clients, seconds + 1, honour_retry_after=True):
            latencies = asyncio.run(measure_rejections(server, seconds))
    at_capacity, overloaded, afterwards = zip(*rounds, strict=True)
    check = f"overload, {OVERLOAD_FACTOR} times the clients"
    direct = f"{check}, which honour Retry-After"
    yield throughput_result(direct, overloaded, at_capacity, MIN_DIRECT_SHARE)
    yield throughput_result("first second after the overload", afterwards, at_capacity)
    yield rejection_latency_result(latencies)
    with run_server(store) as server, run_proxy(server) as proxied:
        rounds = measure_rounds(proxied, config, honour_retry_after=False)
    at_capacity, overloaded, _ = zip(*rounds, strict=True)
    yield throughput_result(f"{check}, through the proxy", overloaded, at_capacity)


def measure_rounds(
    server: Server, config: StressConfig, honour_retry_after: bool
) -> list[list[LoadResult]]:
    """Return the loads at capacity, under overload and afterwards, of each round.

    The phases alternate, because the speed of a machine changes from second to second.
    """
    phases = (
        (MAX_CONCURRENCY, config.load_seconds),
        (MAX_CONCURRENCY * OVERLOAD_FACTOR, config.load_seconds),
        (MAX_CONCURRENCY, 1),
    )
    run_load(server, MAX_CONCURRENCY, 1)  # warm-up
    return [
        [run_load(server, *phase, honour_retry_after) for phase in phases]
        for _ in range(config.overload_rounds)
    ]


def throughput_result(
    check: str,
    loads: Iterable[LoadResult],
    at_capacity: Iterable[LoadResult],
    min_share: float = MIN_CAPACITY_SHARE,
) -> Result:
    """Return the median share of the capacity; each load is compared within its round."""
    pairs = list(zip(loads, at_capacity, strict=True))
    succeeded = sum(load.succeeded for load, _ in pairs)
    rejected = sum(load.rejected for load, _ in pairs)
    failed = sum(load.unexpected + load.connection_errors for load, _ in pairs)
    share = median(load.throughput / baseline.throughput for load, baseline in pairs)
    capacity = median(baseline.throughput for _, baseline in pairs)
    measured = f"{share:.0%} of {capacity:.0f}/s, {rejected:,} rejected"
    target = f">= {min_share:.0%} of the capacity"
    ok = share >= min_share and not failed
    return Result(check, succeeded + failed, failed, measured, target, ok)


def rejection_latency_result(latencies: list[float]) -> Result:
    """Return the percentiles of rejection latencies, which are in seconds."""
    late = sum(1000 * latency > MAX_REJECTION_MS for latency in latencies)
    ordered = sorted(latencies) or [0.0]
    p50, p99 = (1000 * ordered[int(len(ordered) * share)] for share in (0.5, 0.99))
    measured = f"p50 {p50:.0f} ms, p99 {p99:.0f} ms"
    target = f"p99 <= {MAX_REJECTION_MS} ms"
    ok = p99 <= MAX_REJECTION_MS
    return Result("latency of a rejection (429)", len(latencies), late, measured, target, ok)


async def measure_rejections(server: Server, seconds: float) -> list[float]:
    """Return the latencies in seconds of 429 responses, for clients that obey `Retry-After`."""
    latencies: list[float] = []
    end = time.monotonic() + seconds

    async def probe(delay: float) -> None:
        await asyncio.sleep(delay)
        reader, writer = await connect(server)
        while time.monotonic() < end:
            start = time.perf_counter()
            writer.write(request())
            response = await read_response(reader)
            if response and response.status == 429:
                latencies.append(time.perf_counter() - start)
            await asyncio.sleep(1)
        await close(writer)

    await asyncio.gather(*(probe(n / PROBE_CLIENTS) for n in range(PROBE_CLIENTS)))
    return latencies


def cold_start(store: ModelStore, config: StressConfig) -> Iterator[Result]:
    """Start the server under full load and check that every connected client is served."""
    with launch_server(store) as server:
        outcomes, ready = asyncio.run(start_under_load(server, config.load_seconds))
    failed = outcomes.total() - outcomes[200]
    ok = ready and outcomes[200] > 0 and not failed
    measured = ", ".join(f"{outcome}: {count:,}" for outcome, count in outcomes.items())
    yield Result("start under full load", outcomes.total(), failed, measured, "all served", ok)


async def start_under_load(server: Server, seconds: float) -> tuple[Counter, bool]:
    """Return the outcomes for clients that connect before the server listens, and its readiness."""
    outcomes: Counter = Counter()
    async with background_clients(server, outcomes, MAX_CONCURRENCY):
        ready = await asyncio.to_thread(
            becomes_true, lambda: outcomes[200] > 0, START_TIMEOUT_SECONDS
        )
        await asyncio.sleep(seconds)
    return outcomes, ready
