"""A well-behaved client in a separate process, which must get only correct responses.

It runs during an attack, to show that the attack does not affect other clients.
`python -m tests.stress.reference_client PORT` reads pairs of a record and its prediction from
standard input, one JSON array a line, up to an empty line. It sends the records in a loop until
standard input is closed, then prints `ClientStats` as JSON.
"""

import http.client
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from house import EXAMPLE
from tests.helpers.commands import ROOT
from tests.stress.result import Result
from tests.stress.server import HOST, ModelStore, Server

PAUSE_SECONDS = 0.005
HEADERS = {"Content-Type": "application/json"}


class ClientStats:
    """Number of requests, number of wrong responses, and latency percentiles of the client."""

    requests = 0
    wrong = 0
    p50_ms = p99_ms = 0.0
    first_wrong: Any = None

    def result(self, check: str) -> Result:
        """Return the result of the check that every response was correct."""
        measured = f"p50 {self.p50_ms:.0f} ms, p99 {self.p99_ms:.0f} ms"
        return Result(check, self.requests, self.wrong, measured, "all correct", not self.wrong)


@contextmanager
def reference_client(store: ModelStore, server: Server) -> Iterator[ClientStats]:
    """Run the client in the background; its statistics are filled in on exit."""
    records = [EXAMPLE | {"RM": 4 + n / 10, "LSTAT": 30.0 - n} for n in range(16)]
    predictions = store.predict(records)
    lines = [json.dumps(pair) for pair in zip(records, predictions, strict=True)]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.stress.reference_client", str(server.port)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    process.stdin.write("\n".join([*lines, "", ""]))
    process.stdin.flush()
    stats = ClientStats()
    try:
        yield stats
    finally:
        output, _ = process.communicate()
        vars(stats).update(json.loads(output))


def main() -> None:
    """Send the records in turn until standard input is closed, and print the statistics."""
    pairs = [json.loads(line) for line in iter(sys.stdin.readline, "\n")]
    stopping = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), stopping.set())).start()
    connection = http.client.HTTPConnection(HOST, int(sys.argv[1]), timeout=30)
    latencies, wrong = [], []
    while not stopping.wait(PAUSE_SECONDS):
        record, prediction = pairs[len(latencies) % len(pairs)]
        start = time.perf_counter()
        response = post_json(connection, record)
        latencies.append(time.perf_counter() - start)
        if response != [200, {"prediction": prediction}]:
            wrong.append(response)
    connection.close()
    print(json.dumps(summarize(latencies, wrong)))


def post_json(
    connection: http.client.HTTPConnection, payload: Any, path: str = "/predict"
) -> list[Any]:
    """Send a payload and return `[status, JSON body]`, or `[0, error]` if the request failed."""
    try:
        connection.request("POST", path, json.dumps(payload), HEADERS)
        response = connection.getresponse()
        return [response.status, json.load(response)]
    except (OSError, http.client.HTTPException, ValueError) as error:
        connection.close()
        return [0, repr(error)]


def summarize(latencies: list[float], wrong: list[Any]) -> dict[str, Any]:
    """Return the attributes of `ClientStats`, from latencies in seconds and wrong responses."""
    ordered = sorted(latencies) or [0.0]
    return {
        "requests": len(latencies),
        "wrong": len(wrong),
        "first_wrong": wrong[:1],
        "p50_ms": 1000 * ordered[len(ordered) // 2],
        "p99_ms": 1000 * ordered[len(ordered) * 99 // 100],
    }


if __name__ == "__main__":
    main()
