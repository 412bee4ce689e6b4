"""The result of a check, and the table of all results."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields

from rich import box
from rich.table import Table


@dataclass
class Result:
    """Attempts and failures of one check, and a measured value with its target."""

    check: str
    attempts: int
    failed: int
    measured: str
    target: str
    ok: bool

    def cells(self) -> list[str]:
        """Return the cells of the table row as text."""
        check, attempts, failed, measured, target, ok = astuple(self)
        counts = [f"{count:,}" for count in (attempts, attempts - failed, failed)]
        return [check, *counts, measured, target, format_ok(ok)]


def format_ok(ok: bool) -> str:
    """Return the text of the last column."""
    return "yes" if ok else "NO"


def format_outcomes(outcomes: Counter) -> str:
    """Return how often each outcome occurred, such as "200: 1,234, 429: 5"."""
    return ", ".join(
        f"{outcome}: {count:,}" for outcome, count in sorted(outcomes.items(), key=str)
    )


def results_table(results: Iterable[Result]) -> Table:
    """Return a Markdown table with one row for each result."""
    names = [field.name for field in fields(Result)]
    table = Table(*names[:2], "passed", *names[2:], box=box.MARKDOWN)
    for result in results:
        table.add_row(*result.cells())
    return table
