"""What really happened: a CSV file of outcomes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from training.errors import InvalidOutcomesError

KEY = ["request_id", "record_number"]
MAX_RECORD_NUMBER = 2**31


def read_outcomes(path: Path, target: str) -> pd.DataFrame:
    """Return the KEY and the target of each row of a CSV file, without a value for an empty cell.

    The record number and a timestamp are there if the file has them. Raise InvalidOutcomesError or
    OSError.
    """
    if target in KEY:
        raise InvalidOutcomesError(f"The outcomes can't have a target named {target}: rename it")
    cells = read_cells(path)
    if missing := [name for name in (KEY[0], target) if name not in cells]:
        raise InvalidOutcomesError(
            f"{path}, line 1: there is no column {' or '.join(missing)}, only {', '.join(cells)}. "
            f"The file needs {KEY[0]}, {target} and, if requests are arrays, {KEY[1]}"
        )
    outcomes = cells[[KEY[0]]].copy()
    if KEY[1] in cells:
        outcomes[KEY[1]] = parse_column(path, cells[KEY[1]], to_whole_numbers, "whole number")
    outcomes[target] = parse_column(path, cells[target], to_numbers, "number")
    if "timestamp" in cells and target != "timestamp":
        outcomes["timestamp"] = parse_column(path, cells["timestamp"], to_times, "ISO 8601 time")
    return outcomes


def read_cells(path: Path) -> pd.DataFrame:
    """Return the cells of a CSV file as texts, a row for each line, also for an empty one."""
    try:
        cells = pd.read_csv(
            path, dtype=str, keep_default_na=False, skip_blank_lines=False, encoding="utf-8-sig"
        )
    except ValueError as error:  # pandas raises kinds of it
        raise InvalidOutcomesError(f"{path} is no CSV file: {str(error).strip()}") from None
    if not isinstance(cells.index, pd.RangeIndex):
        raise InvalidOutcomesError(f"{path}: the rows have more cells than line 1 has columns")
    return cells.fillna("")


def parse_column(
    path: Path, cells: pd.Series, parse: Callable[[pd.Series], pd.Series], kind: str
) -> pd.Series:
    """Return the values of a column; an empty cell has none. Raise InvalidOutcomesError."""
    values = parse(cells)
    invalid = cells.index[values.isna() & (cells.str.strip() != "")]
    if len(invalid):
        others = f"; so are {len(invalid) - 1} others" if len(invalid) > 1 else ""
        raise InvalidOutcomesError(
            f"{path}, line {invalid[0] + 2}: {cells.name} is {cells[invalid[0]]!r}, which is no "
            f"{kind}{others}"
        )
    return values


def to_numbers(cells: pd.Series) -> pd.Series:
    """Return finite numbers, and NaN for other texts."""
    numbers = pd.to_numeric(cells, errors="coerce").astype(float)
    return numbers.where(np.isfinite(numbers))


def to_whole_numbers(cells: pd.Series) -> pd.Series:
    """Return numbers from 0 without a fraction, and NaN for other texts."""
    numbers = to_numbers(cells)
    return numbers.where(numbers.between(0, MAX_RECORD_NUMBER) & (numbers % 1 == 0))


def to_times(cells: pd.Series) -> pd.Series:
    """Return times, in UTC unless they say otherwise, and NaT for other texts."""
    return pd.to_datetime(cells, format="ISO8601", utc=True, errors="coerce")
