"""Bad clients, whose valid records the model can't predict, next to good clients with others."""

import asyncio
import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from house import EXAMPLE
from tests.helpers.commands import ROOT
from tests.helpers.raw_http import request
from tests.stress.config import StressConfig
from tests.stress.load_generator import LoadResult, background_load, run_load
from tests.stress.raw_http import Response, close, connect, read_response
from tests.stress.result import Result, format_outcomes
from tests.stress.server import ModelStore, Server, run_server
from tests.stress.unreliable_model import HUGE, RATE_FILE

GOOD_CLIENTS, BAD_CLIENTS = 24, 3
MAX_LOG_BYTES = 400  # for each request
ARRAY_SIZE, BAD_NUMBER = 10, 3
RANDOM_RATE = 0.01


def unpredictable_records(store: ModelStore, config: StressConfig) -> Iterator[Result]:
    """Measure good clients alone and next to bad ones; then with a model that fails."""
    rate_file = store.folder / "failure_rate"
    rate_file.write_text("0")
    env = {
        "BENTOML_HOME": train_unreliable_model(store),
        "MODEL": "house_price:latest",
        RATE_FILE: str(rate_file),
    }
    with run_server(store, **env) as server:
        run_load(server, GOOD_CLIENTS, 1)  # warm-up
        for check in BODIES:
            yield isolation_result(server, config, check)
        rate_file.write_text(str(RANDOM_RATE))
        yield random_failures_result(server, config)
        rate_file.write_text("1")
        yield broken_model_result(server, config)


def train_unreliable_model(store: ModelStore) -> str:
    """Train the model in a separate model store; return the folder of the store."""
    home = store.folder / "unreliable"
    env = store.server_env(BENTOML_HOME=str(home))
    command = [sys.executable, "-m", "tests.stress.unreliable_model"]
    subprocess.run(command, cwd=ROOT, env=env, check=True, capture_output=True)
    return str(home)


def bad_record(**values: float) -> dict[str, float]:
    """Return a valid record with these values; no two are equal."""
    return EXAMPLE | {"LSTAT": 100 * random.random()} | values


def bad_array() -> list[dict[str, float]]:
    """Return valid records of which the model can't predict one."""
    return [bad_record(CRIM=0.0 if n == BAD_NUMBER else 1.0) for n in range(ARRAY_SIZE)]


# By check: the path and the body of a request that the model can't answer.
BODIES: dict[str, tuple[str, Any]] = {
    "unpredictable record": ("/predict", lambda: bad_record(CRIM=0.0)),
    "unpredictable record in an array": ("/predict_batch", bad_array),
    "prediction that is not finite": ("/predict", lambda: bad_record(TAX=2 * HUGE)),
}


def isolation_result(server: Server, config: StressConfig, check: str) -> Result:
    """Compare good clients alone with good clients next to bad ones, in alternating rounds."""
    alone, together, outcomes = [], [], Counter()
    log_bytes = -log_size(server)
    for _ in range(config.isolation_rounds):
        alone.append(run_load(server, GOOD_CLIENTS, config.load_seconds))
        with background_load(server, GOOD_CLIENTS, config.load_seconds) as load:
            outcomes += asyncio.run(send_bad_requests(server, config.load_seconds, check))
        together.append(load.result())
    log_bytes += log_size(server)
    failed = sum(map(count_failed, together)) + outcomes.total() - outcomes["expected"]
    succeeded = sum(load.succeeded for load in together)
    n_requests = succeeded + outcomes.total() + sum(load.succeeded for load in alone)
    share = median(b.throughput / a.throughput for a, b in zip(alone, together, strict=True))
    p99 = [median(load.p99_ms for load in loads) for loads in (alone, together)]
    bytes_per_request = log_bytes / n_requests
    measured = (
        f"{share:.0%} of the good responses/s without the bad clients, p99 {p99[0]:.0f} and "
        f"{p99[1]:.0f} ms, {bytes_per_request:.0f} bytes of log a request"
    )
    target = f"none failed, >= {config.isolation_min_share:.0%}, < {MAX_LOG_BYTES} bytes"
    ok = not failed and share >= config.isolation_min_share and bytes_per_request < MAX_LOG_BYTES
    return Result(check, succeeded + outcomes.total(), failed, measured, target, ok)


def random_failures_result(server: Server, config: StressConfig) -> Result:
    """Check that a model which fails at random still answers nearly every request."""
    load = run_load(server, GOOD_CLIENTS, config.load_seconds)
    failed = count_failed(load)
    n_requests = load.succeeded + failed
    measured = f"{failed / n_requests:.2%} failed"
    target = f"< {RANDOM_RATE:.0%} failed"
    ok = failed < RANDOM_RATE * n_requests
    return Result("model fails at random", n_requests, failed, measured, target, ok)


def broken_model_result(server: Server, config: StressConfig) -> Result:
    """Check that a model which always fails gives 500, not 422, and few bytes of log."""
    log_bytes = -log_size(server)
    outcomes = asyncio.run(send_bad_requests(server, config.load_seconds, "unpredictable record"))
    log_bytes += log_size(server)
    failed = outcomes.total() - outcomes[500]
    bytes_per_request = log_bytes / outcomes.total()
    measured = f"{format_outcomes(outcomes)}, {bytes_per_request:.0f} bytes of log a request"
    target = f"all 500, < {MAX_LOG_BYTES} bytes"
    ok = not failed and bytes_per_request < MAX_LOG_BYTES
    return Result("model fails always", outcomes.total(), failed, measured, target, ok)


async def send_bad_requests(server: Server, seconds: float, check: str) -> Counter:
    """Send bad requests over some connections, each again at once; count the outcomes."""
    end = time.monotonic() + seconds
    outcomes: Counter = Counter()

    async def client() -> None:
        reader, writer = await connect(server)
        path, make_body = BODIES[check]
        while time.monotonic() < end:
            writer.write(request(path, body=json.dumps(make_body()).encode()))
            outcomes[outcome(await read_response(reader), path)] += 1
        await close(writer)

    await asyncio.gather(*(client() for _ in range(BAD_CLIENTS)))
    return outcomes


def outcome(response: Response | None, path: str) -> int | str:
    """Return "expected" for a 422 that names the unpredictable record, otherwise the status."""
    if response is None:
        return "no response"
    if response.status == 422:
        message = json.loads(response.body)["message"]
        names = list(message) if isinstance(message, dict) else None
        if names == ([str(BAD_NUMBER)] if path == "/predict_batch" else None):
            return "expected"
    return response.status


def count_failed(load: LoadResult) -> int:
    """Return the number of requests without a prediction."""
    return load.rejected + load.unexpected + load.connection_errors


def log_size(server: Server) -> int:
    """Return the size of the server's log in bytes."""
    return Path(server.log).stat().st_size
