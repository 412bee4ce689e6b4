"""Read outcomes, the true values of the target that became known later, from a CSV file."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from training.errors import InvalidOutcomesError

# Columns of the outcomes. Those of KEY identify a prediction, and are columns of the log, too.
REQUEST_ID = "request_id"
RECORD_NUMBER = "record_number"
KEY = [REQUEST_ID, RECORD_NUMBER]
OUTCOME = "outcome"
MAX_RECORD_NUMBER = 2**31


def read_outcomes(path: Path, target: str) -> pd.DataFrame:
    """Return the request IDs and, as column OUTCOME, the true values of the target in a CSV file.

    The table has the columns record_number and timestamp (when the outcome became known) if the
    file has them. An empty cell is NaN or NaT. Raise InvalidOutcomesError or OSError.
    """
    if target in KEY:
        raise InvalidOutcomesError(f"The outcomes can't have a target named {target}: rename it")
    cells = read_cells(path)
    if missing := [name for name in (REQUEST_ID, target) if name not in cells]:
        raise InvalidOutcomesError(
            f"{path}, line 1: the column {' and '.join(missing)} is missing among "
            f"{', '.join(cells)}. The file needs {REQUEST_ID}, {target} and, if requests are "
            f"arrays, {RECORD_NUMBER}"
        )
    outcomes = cells[[REQUEST_ID]].replace("", np.nan)
    if RECORD_NUMBER in cells:
        outcomes[RECORD_NUMBER] = parse_column(
            path, cells[RECORD_NUMBER], to_whole_numbers, "a whole number"
        )
    outcomes[OUTCOME] = parse_column(path, cells[target], to_finite_numbers, "a number")
    if "timestamp" in cells and target != "timestamp":
        outcomes["timestamp"] = parse_column(path, cells["timestamp"], to_times, "an ISO 8601 time")
    return outcomes


def read_cells(path: Path) -> pd.DataFrame:
    """Return the cells of a CSV file as texts; an empty line is a row, too."""
    try:
        cells = pd.read_csv(
            path, dtype=str, keep_default_na=False, skip_blank_lines=False, encoding="utf-8-sig"
        )
    except UnicodeDecodeError:
        raise InvalidOutcomesError(
            f"{path} is not UTF-8: convert the file, such as with `iconv -f latin1 -t utf-8`"
        ) from None
    except ValueError as error:  # several subclasses of pandas
        raise InvalidOutcomesError(f"{path} is not a CSV file: {str(error).strip()}") from None
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
        others = f" (and in {len(invalid) - 1} other lines)" if len(invalid) > 1 else ""
        raise InvalidOutcomesError(
            f"{path}, line {invalid[0] + 2}: {cells.name} is {cells[invalid[0]]!r}, which is not "
            f"{kind}{others}"
        )
    return values


def to_finite_numbers(cells: pd.Series) -> pd.Series:
    """Return finite numbers, and NaN for other texts."""
    numbers = pd.to_numeric(cells, errors="coerce").astype(float)
    return numbers.where(np.isfinite(numbers))


def to_whole_numbers(cells: pd.Series) -> pd.Series:
    """Return whole numbers from 0 to MAX_RECORD_NUMBER, and NaN for other texts."""
    numbers = to_finite_numbers(cells)
    return numbers.where(numbers.between(0, MAX_RECORD_NUMBER) & (numbers % 1 == 0))


def to_times(cells: pd.Series) -> pd.Series:
    """Parse ISO 8601 times, in UTC if they have no offset; return NaT for other texts."""
    return pd.to_datetime(cells, format="ISO8601", utc=True, errors="coerce")
