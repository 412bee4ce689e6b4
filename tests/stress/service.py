"""The service under trial: `bentoml serve`, with a model store of its own."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import bentoml
import numpy as np
import psutil

from house import FEATURES, NAME

ROOT = Path(__file__).parents[2]
HOST = "127.0.0.1"
MAX_FLOAT32 = 3e38
START_SECONDS = STOP_SECONDS = 30


class Home:
    """A copy of the newest model in a store of its own, and the regressor to compare with."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        model = bentoml.models.get(f"{NAME}:latest")
        self.tag = model.tag
        self.model = folder / "models" / self.tag.name / self.tag.version
        shutil.copytree(model.path, self.model)
        self.regressor = bentoml.sklearn.load_model(model)

    def predict(self, records: Iterable[dict[str, float]]) -> list[float]:
        """Return the model's own predictions, whatever the order of the features."""
        X = np.array([[float(record[name]) for name in FEATURES] for record in records])
        # The trees are of float32, and to them all that is larger is large alike.
        return self.regressor.predict(X.clip(max=MAX_FLOAT32)).tolist()

    def env(self, **settings: str) -> dict[str, str]:
        """Return the environment of a service with these settings, and none of the caller's."""
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
def new_home() -> Iterator[Home]:
    """Make a model store, and remove it."""
    with tempfile.TemporaryDirectory(prefix="trial-") as folder:
        yield Home(Path(folder))


class Service:
    """A running service."""

    def __init__(self, process: subprocess.Popen, port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self.log = log

    def get(self, path: str) -> str:
        """Return what is at a path."""
        with urlopen(f"http://{HOST}:{self.port}{path}", timeout=10) as answer:
            return answer.read().decode()

    def is_ready(self) -> bool:
        """Tell whether it predicts."""
        with suppress(OSError):
            return bool(self.get("/readyz")) or True
        return False

    def workers(self) -> list[psutil.Process]:
        """Return its worker processes."""
        return psutil.Process(self.process.pid).children()

    def memory(self) -> float:
        """Return the resident memory of all its processes, in MB."""
        processes = [psutil.Process(self.process.pid), *self.workers()]
        return sum(process.memory_info().rss for process in processes) / 1e6

    def endpoints(self) -> set[str]:
        """Return the endpoints that its metrics tell apart."""
        return set(re.findall(r'endpoint="(.*?)"', self.get("/metrics")))

    def count(self, metric: str) -> float:
        """Return the sum of a metric over all labels."""
        values = re.findall(rf"^{metric}(?:{{.*}})? (.*)$", self.get("/metrics"), re.MULTILINE)
        return sum(map(float, values))

    def faults(self) -> int:
        """Return how many faults of its own it has logged."""
        return len(re.findall("Traceback|ERROR", self.log.read_text(errors="replace")))

    def stop(self) -> float:
        """End it as a supervisor would, and return how many seconds it took."""
        start = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(STOP_SECONDS)
        return time.monotonic() - start


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as unbound:
        unbound.bind((HOST, 0))
        return unbound.getsockname()[1]


@contextmanager
def launched(home: Home, stdout: Any = None, **settings: str) -> Iterator[Service]:
    """Start a service without waiting for it; end it, whatever happens."""
    port = free_port()
    log = home.folder / f"{port}.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            ["bentoml", "serve"],  # noqa: S607
            cwd=ROOT,
            env=home.env(PORT=str(port), **settings),
            stdout=stdout or output,
            stderr=output,
        )
    service = Service(process, port, log)
    try:
        yield service
    finally:
        if process.poll() is None:
            kill_after(service, STOP_SECONDS)


@contextmanager
def serving(home: Home, stdout: Any = None, **settings: str) -> Iterator[Service]:
    """Run a service that is ready."""
    with launched(home, stdout, **settings) as service:
        if not wait_until(service.is_ready, START_SECONDS):
            raise RuntimeError(f"The service does not start:\n{service.log.read_text()}")
        yield service


def kill_after(service: Service, seconds: float) -> None:
    """End a service; kill it and its workers if that takes too long."""
    workers = service.workers()
    service.process.terminate()
    try:
        service.process.wait(seconds)
    except subprocess.TimeoutExpired:
        service.process.kill()
        service.process.wait()
        for worker in workers:
            with suppress(psutil.NoSuchProcess):
                worker.kill()


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait for a condition, and tell whether it came to hold in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True
