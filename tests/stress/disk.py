"""A full disk: predictions go on, whatever can't be written."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.stress.load import Load, load
from tests.stress.row import Row
from tests.stress.service import Home, serving
from tests.stress.size import Size

CLIENTS = 16
TARGET = "predictions go on"


def full_disk(home: Home, size: Size) -> Iterator[Row]:
    """Serve with a full disk under the access log, the prediction log and the metrics."""
    if os.geteuid() != 0:
        yield Row("full disk", 0, 0, "left out: needs root", TARGET, True)
        return
    with (
        small_disk(home.folder / "logs", 64) as logs,
        small_disk(home.folder / "metrics", 1000) as metrics,
        (logs / "log").open("wb") as log,
        serving(home, log, PREDICTION_LOG=str(logs), TMPDIR=str(metrics)) as service,
    ):
        yield row("both logs", load(service, CLIENTS, size.seconds))
        fill(metrics)
        yield row("metrics, later", load(service, CLIENTS, size.seconds))
    with (
        small_disk(home.folder / "metrics", 32) as metrics,
        serving(home, TMPDIR=str(metrics)) as service,
    ):
        yield row("metrics, from the start", load(service, CLIENTS, size.seconds))


def row(what: str, found: Load) -> Row:
    """Return what became of predictions."""
    lost = found.refused + found.other + found.broken
    ok = found.good > 0 and not lost
    return Row(f"disk full: {what}", found.good + lost, lost, f"{found.rate:.0f}/s", TARGET, ok)


@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[Path]:
    """Mount a disk in memory."""
    folder.mkdir(exist_ok=True)
    options = ["-t", "tmpfs", "-o", f"size={kilobytes}k", "none", str(folder)]
    subprocess.run(["mount", *options], check=True)  # noqa: S607
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)  # noqa: S607


def fill(folder: Path) -> None:
    """Write until nothing fits."""
    with (folder / "rest").open("wb", buffering=0) as file:
        try:
            while file.write(bytes(1024)):
                pass
        except OSError:
            return
