"""A full disk: predictions go on, whatever can't be written."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trial.load import Load, load
from trial.row import Row
from trial.service import Home, serving
from trial.size import Size

CLIENTS = 16
METRICS = "prometheus_multiproc_dir"  # of BentoML, in its home
TARGET = "predictions go on"


def full_disk(home: Home, size: Size) -> Iterator[Row]:
    """Serve with a full disk under the access log, the prediction log and the metrics."""
    if os.geteuid() != 0:
        yield Row("full disk", 0, 0, "left out: needs root", TARGET, True)
        return
    seconds = size.seconds
    with (
        small_disk(home.folder / "logs", 64) as folder,
        (folder / "log").open("wb") as log,
        serving(home, log) as service,
    ):
        # The log of faults has one: that the warning about this could not be logged either.
        yield row("access log", load(service, CLIENTS, seconds), 0)
    with (
        small_disk(home.folder / "predictions", 64) as folder,
        serving(home, PREDICTION_LOG=str(folder)) as service,
    ):
        yield row("prediction log", load(service, CLIENTS, seconds), service.faults())
    with small_disk(home.folder / METRICS, 32), serving(home) as service:
        yield row("metrics, from the start", load(service, CLIENTS, seconds), service.faults())
    with small_disk(home.folder / METRICS, 1000) as folder, serving(home) as service:
        fill(folder)
        yield row("metrics, later", load(service, CLIENTS, seconds), service.faults())


def row(what: str, found: Load, faults: int) -> Row:
    """Return what became of predictions."""
    lost = found.refused + found.other + found.broken + faults
    ok = found.good > 0 and not lost
    figure = f"{found.rate:.0f}/s, {faults} faults logged"
    return Row(f"disk full: {what}", found.good + lost, lost, figure, TARGET, ok)


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
