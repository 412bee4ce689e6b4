"""The server under test: `bentoml serve` with a temporary model store."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import bentoml
import numpy as np
import psutil

from house import FEATURES, NAME
from tests.helpers.commands import ROOT, becomes_true, free_port

HOST = "127.0.0.1"
MAX_FLOAT32 = 3e38
START_TIMEOUT_SECONDS = STOP_TIMEOUT_SECONDS = 30


class ModelStore:
    """A BentoML model store that holds a copy of the newest model, for servers under test.

    `regressor` is that model, loaded in this process. Its predictions are the expected values.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        model = bentoml.models.get(f"{NAME}:latest")
        self.tag = model.tag
        self.model_folder = folder / "models" / self.tag.name / self.tag.version
        shutil.copytree(model.path, self.model_folder)
        self.regressor = bentoml.sklearn.load_model(model)

    def predict(self, records: Iterable[dict[str, float]]) -> list[float]:
        """Return the model's predictions for records, whose keys may be in any order."""
        X = np.array([[float(record[name]) for name in FEATURES] for record in records])
        # scikit-learn's trees convert X to float32 and reject what overflows. All values above the
        # highest threshold take the same branch, so clipping does not change the prediction.
        return self.regressor.predict(X.clip(max=MAX_FLOAT32)).tolist()

    def server_env(self, **settings: str) -> dict[str, str]:
        """Return a server's environment: these settings, and none of the caller's but PATH."""
        bin_folder = Path(sys.executable).parent
        return {
            "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(self.folder),
            "BENTOML_HOME": str(self.folder),
            "BENTOML_DO_NOT_TRACK": "true",
            "MODEL": str(self.tag),
            **settings,
        }


@contextmanager
def temporary_model_store() -> Iterator[ModelStore]:
    """Create a model store and delete it on exit."""
    with tempfile.TemporaryDirectory(prefix="stress-") as folder:
        yield ModelStore(Path(folder))


class Server:
    """A server process, its port on HOST, and its log file."""

    def __init__(self, process: subprocess.Popen, port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self.log = log

    def get(self, path: str) -> str:
        """Send a GET request and return the response body; raise OSError if it fails."""
        with urlopen(f"http://{HOST}:{self.port}{path}", timeout=10) as response:
            return response.read().decode()

    def is_ready(self) -> bool:
        """Return whether `/readyz` responds with a success status."""
        with suppress(OSError):
            self.get("/readyz")
            return True
        return False

    def workers(self) -> list[psutil.Process]:
        """Return the worker processes."""
        return psutil.Process(self.process.pid).children()

    def memory_mb(self) -> float:
        """Return the resident memory of the supervisor and the workers, in MB."""
        processes = [psutil.Process(self.process.pid), *self.workers()]
        return sum(process.memory_info().rss for process in processes) / 1e6

    def endpoint_labels(self) -> set[str]:
        """Return the values of the `endpoint` label in the metrics."""
        return set(re.findall(r'endpoint="(.*?)"', self.get("/metrics")))

    def count_log_errors(self) -> int:
        """Return the number of tracebacks and error messages in the log."""
        return len(re.findall("Traceback|ERROR", self.log.read_text(errors="replace")))

    def stop(self) -> float:
        """Send SIGTERM, wait for the server to exit, and return how long it took, in seconds."""
        start = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(STOP_TIMEOUT_SECONDS)
        return time.monotonic() - start


@contextmanager
def launch_server(store: ModelStore, stdout: Any = None, **settings: str) -> Iterator[Server]:
    """Start a server without waiting until it is ready, and stop it on exit.

    `stdout` is a file for the server's standard output, which otherwise goes to its log.
    """
    port = free_port()
    log = store.folder / f"{port}.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            ["bentoml", "serve"],  # noqa: S607
            cwd=ROOT,
            env=store.server_env(PORT=str(port), **settings),
            stdout=stdout or output,
            stderr=output,
        )
    server = Server(process, port, log)
    try:
        yield server
    finally:
        if process.poll() is None:
            terminate(server, STOP_TIMEOUT_SECONDS)


@contextmanager
def run_server(store: ModelStore, stdout: Any = None, **settings: str) -> Iterator[Server]:
    """Start a server, wait until it is ready, and stop it on exit.

    Takes the arguments of `launch_server`. Raises RuntimeError if the server is not ready in time.
    """
    with launch_server(store, stdout, **settings) as server:
        if not becomes_true(server.is_ready, START_TIMEOUT_SECONDS):
            raise RuntimeError(f"The server did not become ready:\n{server.log.read_text()}")
        yield server


def terminate(server: Server, timeout_seconds: float) -> None:
    """Send SIGTERM to a server; after the timeout, kill it and its workers."""
    workers = server.workers()
    server.process.terminate()
    try:
        server.process.wait(timeout_seconds)
    except subprocess.TimeoutExpired:
        server.process.kill()
        server.process.wait()
        for worker in workers:
            with suppress(psutil.NoSuchProcess):
                worker.kill()
