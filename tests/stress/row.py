"""A row of the table that a trial ends with."""

from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields

from rich import box
from rich.table import Table


@dataclass
class Row:
    """What was tried how often, how often the service held, and a figure beside its target."""

    what: str
    tried: int
    lost: int
    figure: str
    target: str
    ok: bool

    def cells(self) -> list[str]:
        """Return the cells, as they are printed."""
        what, tried, lost, figure, target, ok = astuple(self)
        return [what, f"{tried:,}", f"{tried - lost:,}", f"{lost:,}", figure, target, told(ok)]


def told(ok: bool) -> str:
    """Return how a row ended, in a word."""
    return "yes" if ok else "NO"


def table(rows: Iterable[Row]) -> Table:
    """Return the table, which is Markdown."""
    names = [field.name for field in fields(Row)]
    drawn = Table(*names[:2], "held", *names[2:], box=box.MARKDOWN)
    for row in rows:
        drawn.add_row(*row.cells())
    return drawn
