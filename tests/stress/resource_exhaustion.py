"""Slow clients, large bodies and random paths, which must not exhaust memory or delay others."""

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress

from tests.helpers.raw_http import CHUNKED_HEAD, request
from tests.stress.config import StressConfig
from tests.stress.raw_http import close, connect, read_response
from tests.stress.reference_client import reference_client
from tests.stress.result import Result, format_outcomes
from tests.stress.server import ModelStore, Server, run_server

MAX_MEMORY_GROWTH_MB = 100
BYTE_INTERVAL_SECONDS = 0.5
PATH_CONNECTIONS = 32
REJECTED_STATUSES = {400, 404, 405, 408, 413}


def resource_exhaustion(store: ModelStore, config: StressConfig) -> Iterator[Result]:
    """Run all attacks at once; check memory, metric series and the reference client."""
    with run_server(store) as server:
        with reference_client(store, server):  # warm-up, which creates all metric series
            asyncio.run(request_random_paths(server, 1000))
        labels, baseline_mb = server.endpoint_labels(), server.memory_mb()
        with reference_client(store, server) as stats:
            outcomes, peak_mb = asyncio.run(run_attacks(server, config))
        new_labels = server.endpoint_labels() - labels
    attempts = outcomes.total()
    failed = sum(n for outcome, n in outcomes.items() if outcome not in REJECTED_STATUSES)
    measured = format_outcomes(outcomes)
    check = "slow clients, paths, 100 MB bodies"
    yield Result(check, attempts, failed, measured, "all rejected", not failed)
    growth_mb = peak_mb - baseline_mb
    measured = f"{baseline_mb:.0f} MB, {growth_mb:+.0f} MB at the peak"
    target = f"<= +{MAX_MEMORY_GROWTH_MB} MB"
    yield Result("server memory", 1, 0, measured, target, growth_mb <= MAX_MEMORY_GROWTH_MB)
    measured = f"{len(labels)} endpoint labels, {len(new_labels):+d}"
    check, paths = "metric series", config.random_paths
    yield Result(check, paths, len(new_labels), measured, "no new label", not new_labels)
    yield stats.result("reference client during attacks")


async def run_attacks(server: Server, config: StressConfig) -> tuple[Counter, float]:
    """Return the outcomes of all attacks and the peak memory meanwhile, in MB."""
    outcomes: Counter = Counter()
    attacks = asyncio.gather(
        *(send_slowly(server, outcomes, bool(n % 2)) for n in range(config.slow_clients)),
        *(
            send_large_body(server, outcomes, config.large_body_bytes, bool(n % 2))
            for n in range(config.large_bodies)
        ),
        request_random_paths(server, config.random_paths, outcomes),
    )
    peak_mb = 0.0
    while not attacks.done():
        peak_mb = max(peak_mb, server.memory_mb())
        await asyncio.wait([attacks], timeout=0.2)
    attacks.result()
    return outcomes, peak_mb


async def send_slowly(server: Server, outcomes: Counter, slow_head: bool) -> None:
    """Send a head (the Slowloris attack) or a body byte by byte until it is rejected."""
    reader, writer = await connect(server)
    sent = request()
    start = 20 if slow_head else len(sent) - 50
    writer.write(sent[:start])
    reading = asyncio.create_task(read_response(reader))
    for position in range(start, len(sent)):
        done, _ = await asyncio.wait([reading], timeout=BYTE_INTERVAL_SECONDS)
        if done:
            break
        writer.write(sent[position : position + 1])
    response = await reading
    outcomes[response.status if response else "no response"] += 1
    await close(writer)


async def send_large_body(server: Server, outcomes: Counter, length: int, chunked: bool) -> None:
    """Send a body of `length` bytes, chunked or with Content-Length, until it is rejected."""
    reader, writer = await connect(server)
    part = b" " * (1 << 16)
    if chunked:
        part = b"10000\r\n" + part + b"\r\n"
    writer.write(CHUNKED_HEAD if chunked else request(body=b"", length=length))
    # Read while writing, because asyncio discards received data once a write fails.
    reading = asyncio.create_task(read_response(reader))
    with suppress(ConnectionError):
        for _ in range(length >> 16):
            writer.write(part)
            await writer.drain()
    response = await reading
    # If the server closes the connection before the client has read the response, the client's
    # kernel discards the response. That counts as 413.
    outcomes[response.status if response else 413] += 1
    await close(writer)


async def request_random_paths(server: Server, count: int, outcomes: Counter | None = None) -> None:
    """Request `count` paths that do not exist, over several connections."""
    counter = Counter() if outcomes is None else outcomes
    share = count // PATH_CONNECTIONS
    await asyncio.gather(
        *(send_random_paths(server, share, n, counter) for n in range(PATH_CONNECTIONS))
    )


async def send_random_paths(server: Server, count: int, seed: int, outcomes: Counter) -> None:
    """Request random paths with random methods over one connection."""
    rng = random.Random(seed)
    reader, writer = await connect(server)
    for _ in range(count):
        method = rng.choice(["GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
        path = f"/{rng.getrandbits(64):x}?{rng.getrandbits(64):x}"
        writer.write(request(path, method=method, body=b""))
        response = await read_response(reader)
        outcomes[response.status if response else "no response"] += 1
        if response is None:
            return
    await close(writer)
