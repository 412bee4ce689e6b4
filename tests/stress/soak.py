"""Full load for the rest of the time: no error, and no more memory than after the first minute."""

from collections.abc import Iterator

from tqdm import trange

from tests.stress.load import Load, load
from tests.stress.row import Row
from tests.stress.service import Home, serving
from tests.stress.size import Size

CONNECTIONS = 64
STEP_SECONDS = 10
MAX_GROWTH = 0.01


def soak(home: Home, size: Size) -> Iterator[Row]:
    """Load the service step by step, and weigh it after each."""
    step = min(STEP_SECONDS, size.soak_seconds)
    loads: list[Load] = []
    sizes: list[float] = []
    with serving(home) as service:
        for _ in trange(size.soak_seconds // step, unit="step", leave=False, disable=None):
            loads.append(load(service, CONNECTIONS, step))
            sizes.append(service.memory())
        faults = service.faults()
    good = sum(one.good for one in loads)
    lost = faults + sum(one.refused + one.other + one.broken for one in loads)
    seconds = sum(one.seconds for one in loads)
    figure = f"{good / seconds:.0f}/s for {seconds:.0f} s"
    yield Row("full load", good + lost, lost, figure, "no error", not lost)
    start = sizes[min(60 // step, len(sizes)) - 1]
    if sizes[-1] is start:  # a minute, or less: the second half of it
        start = sizes[len(sizes) // 2]
    growth = sizes[-1] / start - 1
    figure = f"{start:.1f} to {sizes[-1]:.1f} MB, {growth:+.1%}"
    yield Row("its memory", len(sizes), 0, figure, f"<= +{MAX_GROWTH:.0%}", growth <= MAX_GROWTH)
