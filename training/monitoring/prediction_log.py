"""Read the prediction log: lines of JSON, in rotated files of several workers."""

import os
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pandas as pd
from pydantic_core import from_json

from serving.features import Kind, Schema, is_nullable, kind_of
from serving.observability import LOG_COLUMNS
from training.errors import InvalidLogError

Entry = dict[str, Any]  # the JSON object of one line
CHUNK_LINES = 20_000  # the objects of all lines of a long log would take ten times the memory
NUMBERS = {float, int}  # a whole number may be written with or without ".0"
TYPES: dict[Kind | None, set[type]] = {
    "number": NUMBERS,
    "integer": NUMBERS,
    "boolean": {bool},
    "category": {str},
    "text": {str},
}
ABSENT = object()  # replaces the value of a feature that a line lacks


class LoggedPredictions(NamedTuple):
    """The predictions of a log, in tables with one index.

    A record is valid here if it has a value of the right type for each feature; bounds are not
    checked. In an invalid record all features are NaN or None.
    """

    common: pd.DataFrame  # the LOG_COLUMNS
    features: pd.DataFrame
    invalid_feature: pd.Series  # the first feature that makes the record invalid, or ""

    @property
    def is_valid(self) -> pd.Series:
        """Whether each record is valid; bounds are not checked."""
        return self.invalid_feature == ""

    def select(self, mask: pd.Series) -> "LoggedPredictions":
        """Return the rows that a mask selects."""
        return LoggedPredictions(*(table[mask] for table in self))


def open_files(folder: Path) -> list[tuple[Path, BinaryIO]]:
    """Open each file of a log once, even while the service rotates them.

    Raise InvalidLogError or OSError.
    """
    opened: dict[tuple[int, int], tuple[Path, BinaryIO]] = {}  # by device and inode
    found_new = True
    while found_new:  # a rotation may give a file a name that the listing lacks
        found_new = False
        # A rotation adds 1 to the number in each name. In ascending order, a file that is renamed
        # meanwhile is still ahead of this loop, or it is open already and has the same inode.
        for path in sorted(folder.glob("**/predictions-*.jsonl"), key=rotation_number):
            try:
                file = path.open("rb")
            except FileNotFoundError:
                continue
            status = os.fstat(file.fileno())
            inode = status.st_dev, status.st_ino
            if inode in opened:
                file.close()
            else:
                opened[inode] = path, file
                found_new = True
    if not opened:
        raise InvalidLogError(f"There is no folder {folder} with a predictions-*.jsonl in it")
    return sorted(opened.values(), key=lambda pair: pair[0])


def rotation_number(path: Path) -> int:
    """Return 1 for predictions-2.1.jsonl, and 0 for predictions-2.jsonl."""
    number = path.stem.partition(".")[2]
    return int(number) if number.isdecimal() else 0


def read_chunks(folder: Path) -> Iterator[list[Entry]]:
    """Yield the entries of a log, CHUNK_LINES at most at a time; raise InvalidLogError or OSError.

    Skip a last line without a line end: it is still being written, or its writer was killed.
    """
    is_empty = True
    for path, file in open_files(folder):
        with file:
            first_line, has_line_end = 1, True
            while has_line_end and (lines := list(islice(file, CHUNK_LINES))):
                has_line_end = lines[-1].endswith(b"\n")
                if entries := parse_lines(lines if has_line_end else lines[:-1], path, first_line):
                    is_empty = False
                    yield entries
                first_line += len(lines)
    if is_empty:
        raise InvalidLogError(f"The log in {folder} has no line yet")


def parse_lines(lines: list[bytes], path: Path, first_line: int) -> list[Entry]:
    """Return the entries of some lines; raise InvalidLogError naming the first damaged line.

    `pandas.read_json` would neither name the line nor keep texts such as "3" apart from numbers.
    """
    try:
        entries = from_json(b"[%b]" % b",".join(lines), allow_inf_nan=False)
        if len(entries) == len(lines) and all(map(is_entry, entries)):
            return entries
    except ValueError:
        pass
    for line_number, line in enumerate(lines, first_line):
        if is_damaged(line):
            raise InvalidLogError(f"{path}, line {line_number} is damaged: remove it")
    # Each line is valid alone. In the array, one of them is nested too deeply for the parser.
    raise InvalidLogError(f"{path} is damaged after line {first_line}: remove it")


def is_damaged(line: bytes) -> bool:
    """Return whether a line is not the JSON of an entry."""
    try:
        return not is_entry(from_json(line, allow_inf_nan=False))
    except ValueError:
        return True


def is_entry(value: Any) -> bool:
    """Return whether a JSON value has what the service writes to each line of the log."""
    return (
        isinstance(value, dict)
        and isinstance(value.get("timestamp"), str)
        and isinstance(value.get("request_id"), str)
        and isinstance(value.get("model_tag"), str)
        and type(value.get("record_number", 0)) is int
        and type(value.get("prediction")) in NUMBERS
    )


def read_predictions(folder: Path, schemas: Mapping[str, Schema]) -> LoggedPredictions:
    """Return all predictions of a log, with the features that `schemas` describes.

    Raise InvalidLogError or OSError.
    """
    chunks = [to_tables(entries, schemas) for entries in read_chunks(folder)]
    common, *others = (pd.concat(tables, ignore_index=True) for tables in zip(*chunks, strict=True))
    try:
        common["timestamp"] = pd.to_datetime(common["timestamp"], format="ISO8601", utc=True)
    except ValueError as error:
        raise InvalidLogError(f"The log in {folder} has an invalid timestamp: {error}") from None
    return LoggedPredictions(common, *others)


def to_tables(entries: list[Entry], schemas: Mapping[str, Schema]) -> LoggedPredictions:
    """Return the tables of some entries. A log of an earlier version has no record numbers."""
    common = {name: [entry.get(name, 0) for entry in entries] for name in LOG_COLUMNS}
    values = {name: [entry.get(name, ABSENT) for entry in entries] for name in schemas}
    invalid_feature = np.full(len(entries), "", dtype=object)
    for name in reversed(values):  # so that the first one remains
        invalid_feature[~have_valid_type(values[name], schemas[name])] = name
    is_valid = invalid_feature == ""
    features = {name: to_column(values[name], is_valid, schemas[name]) for name in schemas}
    return LoggedPredictions(
        pd.DataFrame(common), pd.DataFrame(features), pd.Series(invalid_feature, dtype=object)
    )


def have_valid_type(values: list[Any], schema: Schema) -> np.ndarray:
    """Return for each value whether a feature may have it, by its type: (n_values,) of bool."""
    types = TYPES[kind_of(schema)] | ({type(None)} if is_nullable(schema) else set())
    if set(map(type, values)) <= types:
        return np.full(len(values), fill_value=True)
    return np.array([type(value) in types for value in values])


def to_column(values: list[Any], is_valid: np.ndarray, schema: Schema) -> pd.Series:
    """Return the values of a feature as a column, without those of invalid records."""
    if not is_valid.all():
        values = [value if valid else None for value, valid in zip(values, is_valid, strict=True)]
    has_numbers = TYPES[kind_of(schema)] is NUMBERS
    return pd.Series(values, dtype="float64" if has_numbers else "object")
