"""A full disk under the logs and the metrics, which must not stop predictions."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.stress.config import StressConfig
from tests.stress.load_generator import LoadResult, run_load
from tests.stress.result import Result
from tests.stress.server import ModelStore, run_server

CONNECTIONS = 16
TARGET = "all predictions served"


def full_disk(store: ModelStore, config: StressConfig) -> Iterator[Result]:
    """Load servers whose access log, prediction log or metrics files are on a full disk."""
    if os.geteuid() != 0:
        yield Result("full disk", 0, 0, "skipped: needs root to mount a tmpfs", TARGET, True)
        return
    with (
        mount_tmpfs(store.folder / "logs", 64) as logs,
        mount_tmpfs(store.folder / "metrics", 1000) as metrics,
        (logs / "log").open("wb") as access_log,
        run_server(store, access_log, PREDICTION_LOG=str(logs), TMPDIR=str(metrics)) as server,
    ):
        # The disk of the logs fills up during the load.
        yield disk_result("both logs", run_load(server, CONNECTIONS, config.load_seconds))
        fill(metrics)
        load = run_load(server, CONNECTIONS, config.load_seconds)
        yield disk_result("metrics, after the start", load)
    with (
        mount_tmpfs(store.folder / "metrics", 32) as metrics,
        run_server(store, TMPDIR=str(metrics)) as server,
    ):
        load = run_load(server, CONNECTIONS, config.load_seconds)
        yield disk_result("metrics, before the start", load)


def disk_result(disk: str, load: LoadResult) -> Result:
    """Return the result of a load, with the disk that was full."""
    failed = load.rejected + load.unexpected + load.connection_errors
    ok = load.succeeded > 0 and not failed
    measured = f"{load.throughput:.0f}/s"
    return Result(f"disk full: {disk}", load.succeeded + failed, failed, measured, TARGET, ok)


@contextmanager
def mount_tmpfs(folder: Path, kilobytes: int) -> Iterator[Path]:
    """Mount an in-memory file system of limited size, and unmount it on exit."""
    folder.mkdir(exist_ok=True)
    options = ["-t", "tmpfs", "-o", f"size={kilobytes}k", "none", str(folder)]
    subprocess.run(["mount", *options], check=True)  # noqa: S607
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)  # noqa: S607


def fill(folder: Path) -> None:
    """Write a file in a folder until the file system is full."""
    with (folder / "rest").open("wb", buffering=0) as file:
        try:
            while file.write(bytes(1024)):
                pass
        except OSError:
            return
