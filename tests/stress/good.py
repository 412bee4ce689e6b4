"""A well-behaved client in a process of its own, for which nothing may ever go wrong.

`python -m tests.stress.good PORT` sends the records of its standard input, which has a record and
its prediction in each line, until that is closed; it prints what became of them as JSON.
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
from tests.stress.service import HOST, ROOT, Home, Service

PAUSE_SECONDS = 0.005
HEADERS = {"Content-Type": "application/json"}


class Answers:
    """What the client got: its requests, those not answered right, and its latencies."""

    requests = 0
    wrong = 0
    p50_ms = p99_ms = 0.0
    first_wrong: Any = None


@contextmanager
def good_client(home: Home, service: Service) -> Iterator[Answers]:
    """Have a client send requests meanwhile; what it got is known at the end."""
    records = [EXAMPLE | {"RM": 4 + n / 10, "LSTAT": 30.0 - n} for n in range(16)]
    predictions = home.predict(records)
    lines = [json.dumps(pair) for pair in zip(records, predictions, strict=True)]
    process = subprocess.Popen(
        [sys.executable, "-m", "trial.good", str(service.port)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    process.stdin.write("\n".join([*lines, "", ""]))
    process.stdin.flush()
    answers = Answers()
    try:
        yield answers
    finally:
        output, _ = process.communicate()
        vars(answers).update(json.loads(output))


def main() -> None:
    """Send the records in turn until the input ends."""
    pairs = [json.loads(line) for line in iter(sys.stdin.readline, "\n")]
    ending = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ending.set())).start()
    connection = http.client.HTTPConnection(HOST, int(sys.argv[1]), timeout=30)
    seconds, wrong = [], []
    while not ending.wait(PAUSE_SECONDS):
        record, prediction = pairs[len(seconds) % len(pairs)]
        start = time.perf_counter()
        got = ask(connection, record)
        seconds.append(time.perf_counter() - start)
        if got != [200, {"prediction": prediction}]:
            wrong.append(got)
    connection.close()
    print(json.dumps(summary(seconds, wrong)))


def ask(connection: http.client.HTTPConnection, record: Any, path: str = "/predict") -> list[Any]:
    """Return the status and the answer, or the error that came instead."""
    try:
        connection.request("POST", path, json.dumps(record), HEADERS)
        response = connection.getresponse()
        return [response.status, json.load(response)]
    except (OSError, http.client.HTTPException, ValueError) as error:
        connection.close()
        return [0, repr(error)]


def summary(seconds: list[float], wrong: list[Any]) -> dict[str, Any]:
    """Return the attributes of `Answers`."""
    ordered = sorted(seconds) or [0.0]
    return {
        "requests": len(seconds),
        "wrong": len(wrong),
        "first_wrong": wrong[:1],
        "p50_ms": 1000 * ordered[len(ordered) // 2],
        "p99_ms": 1000 * ordered[len(ordered) * 99 // 100],
    }


if __name__ == "__main__":
    main()
