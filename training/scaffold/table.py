"""Read a CSV or Parquet file as a table of texts, stripped of surrounding spaces."""

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import types

from training.errors import InvalidDataError

MAX_BYTES = 100 * 2**20
# Texts that mark a missing value. `make new` writes an empty cell in their place.
MISSING_MARKERS = [
    "", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "None", "<NA>", "#N/A", "?",
]  # fmt: skip
UNNAMED = "Unnamed: 0"  # the name that pandas gives to a first column without one


class Table(NamedTuple):
    """The cells of a file, and their locations in it."""

    frame: pd.DataFrame  # strings; NaN for a missing value
    row_numbers: np.ndarray  # (n_rows,): the line or row of the file that each row is from
    row_label: str  # what these numbers count: "line" or "row"
    # By column with missing values: their texts in the file, an empty one included.
    missing_markers: Mapping[str, set[str]] = {}
    unreadable: Mapping[str, str] = {}  # why a column of the file is not in the frame

    def location(self, position: int) -> str:
        """Return where the row at a position of the frame is in the file, such as `line 17`."""
        return f"{self.row_label} {self.row_numbers[position]}"

    def select(self, mask: np.ndarray) -> "Table":
        """Return the rows for which a mask (n_rows,) is true."""
        return self._replace(frame=self.frame[mask], row_numbers=self.row_numbers[mask])


def read_table(path: Path) -> Table:
    """Return the table of a file; raise InvalidDataError or OSError if it can't be used."""
    readers = {".csv": read_csv, ".parquet": read_parquet}
    if path.suffix.lower() not in readers:
        raise InvalidDataError("Give a file whose name ends with .csv or .parquet")
    table = readers[path.suffix.lower()](path)
    # csv in Python 3.11 does not quote a lone carriage return: write a line feed in its place.
    frame = table.frame.apply(lambda column: column.str.strip().str.replace("\r", "\n"))
    is_missing = frame.isin(MISSING_MARKERS)
    markers = {name: set(frame[name][is_missing[name]]) for name in frame if is_missing[name].any()}
    return table._replace(frame=frame.mask(is_missing), missing_markers=markers)


def check_size(n_bytes: int) -> None:
    """Raise InvalidDataError if a file is too large for a training in memory."""
    if n_bytes > MAX_BYTES:
        raise InvalidDataError(
            f"{n_bytes / 2**20:,.0f} MiB are too many, since training holds all rows in memory: "
            f"give at most {MAX_BYTES / 2**20:.0f} MiB, such as a random sample of the rows"
        )


def to_names(header: Sequence[str]) -> list[str]:
    """Return the names of the columns; raise InvalidDataError if one is missing or repeated.

    Only the first column may have no name: pandas and R write the numbers of the rows there.
    """
    names = [name.strip() for name in header]
    if names and not names[0]:
        names[0] = UNNAMED
    if "" in names:
        raise InvalidDataError(f"Column {names.index('') + 1} has no name: name it, or delete it")
    if repeated := [name for name, times in Counter(names).items() if times > 1]:
        raise InvalidDataError(f"Several columns have the same name: {', '.join(repeated)}")
    if len(names) < 2:
        raise InvalidDataError("There is only one column: give the features and the target")
    return names


# CSV


def read_csv(path: Path) -> Table:
    """Return the table of a CSV file."""
    check_size(path.stat().st_size)
    text = decode(path.read_bytes())
    names, line_numbers = check_csv(text)
    frame = pd.read_csv(
        io.StringIO(text),
        header=0,
        names=names,
        index_col=False,
        dtype="str",
        keep_default_na=False,
    )
    return Table(frame, line_numbers, "line")


def decode(content: bytes) -> str:
    """Return the text of a CSV file; raise InvalidDataError if it is not UTF-8."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InvalidDataError(
            f"line {line}: byte 0x{content[error.start]:x} is not UTF-8: save the file in UTF-8"
        ) from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise InvalidDataError(f"line {line}: there is a NUL character: this is not a text file")
    return text


def check_csv(text: str) -> tuple[list[str], np.ndarray]:
    """Return the names of the columns, and the number of the line on which each row ends.

    Raise InvalidDataError if the cells are not separated by commas, or if a row has too few or too
    many.
    """
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    line_numbers = []
    try:
        header = next((cells for cells in reader if cells), [])
        if len(header) == 1 and (separator := next((c for c in ";\t|" if c in header[0]), None)):
            raise InvalidDataError(
                f"The cells are separated by {separator!r}: separate them by commas, and write "
                f'numbers with a point; pandas.read_csv(path, sep={separator!r}, decimal=",") '
                "reads the file, and to_csv(path, index=False) writes it like that"
            )
        names = to_names(header)
        for cells in reader:
            if cells and len(cells) != len(names):
                raise InvalidDataError(
                    f"line {reader.line_num}: the row has {len(cells)} cells, the header "
                    f"{len(names)}"
                )
            if cells:
                line_numbers.append(reader.line_num)
    except csv.Error as error:
        raise InvalidDataError(f"line {reader.line_num}: {error}") from None
    return names, np.array(line_numbers, dtype=int)


# Parquet

# Arrow types that are read as texts: those of features, and dates, which `exclusion_reason` in
# columns.py excludes with a hint.
READABLE_TYPES = (
    types.is_boolean,
    types.is_integer,
    types.is_floating,
    types.is_decimal,
    types.is_string,
    types.is_large_string,
    types.is_date,
    types.is_timestamp,
    types.is_null,
)


def read_parquet(path: Path) -> Table:
    """Return the table of a Parquet file."""
    try:
        with pq.ParquetFile(path) as file:
            metadata = file.metadata
            n_bytes = sum(metadata.row_group(i).total_byte_size for i in range(file.num_row_groups))
            n_cells = metadata.num_rows * len(file.schema_arrow)
            # Parquet stores repeated values once; in memory, a cell takes at least 2 bytes.
            check_size(max(n_bytes, 2 * n_cells))
            arrow = file.read()
    except pa.ArrowException as error:
        raise InvalidDataError(f"This is not a Parquet file that can be read: {error}") from None
    # pandas writes an index without a name to this column, unless it is a plain 0, 1, 2, ...
    index = "__index_level_0__"
    names = to_names([UNNAMED if name == index else name for name in arrow.column_names])
    columns, unreadable = {}, {}
    for name, column in zip(names, arrow.columns, strict=True):
        values = column
        if types.is_dictionary(column.type):
            values = column.cast(column.type.value_type)
        if is_readable(values.type):
            columns[name] = to_texts(values).to_pandas()
        else:
            unreadable[name] = f"values of the type {values.type}, which no feature can have"
    frame = pd.DataFrame(columns, dtype="str").fillna("")
    return Table(frame, np.arange(1, arrow.num_rows + 1), "row", unreadable=unreadable)


def is_readable(data_type: pa.DataType) -> bool:
    """Return whether values of a type are read as texts."""
    return any(is_type(data_type) for is_type in READABLE_TYPES)


def to_texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the values of a column as a CSV file would contain them."""
    if types.is_floating(column.type) or types.is_decimal(column.type):
        # Arrow writes the float 110.0 as 110, which would be taken for an integer.
        texts = column.cast(pa.float64()).cast(pa.string())
        return pc.replace_substring_regex(texts, r"^(-?\d+)$", r"\1.0")
    return column.cast(pa.string())
