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

Entry = dict[str, Any]  # of one line
CHUNK_LINES = 20_000  # the objects of all lines of a long log would take ten times the memory
NUMBERS = {float, int}  # a whole number may be written with or without ".0"
TYPES: dict[Kind | None, set[type]] = {
    "number": NUMBERS,
    "integer": NUMBERS,
    "boolean": {bool},
    "category": {str},
    "text": {str},
}
MISSING = object()  # in place of a value, where a line lacks the feature


class Chunk(NamedTuple):
    """Some lines of one file."""

    path: Path
    first_line: int
    entries: list[Entry]

    def place(self, n: int) -> str:
        """Return where an entry stands, for a message."""
        return f"{self.path}, line {self.first_line + n}"


class Predictions(NamedTuple):
    """The rows of a log, in three tables with one index.

    A row that does not fit the record type lacks one of its features, or has another type of value
    there; all its features are NaN or None.
    """

    common: pd.DataFrame  # the LOG_COLUMNS
    features: pd.DataFrame
    fits: pd.Series

    def rows(self, mask: pd.Series) -> "Predictions":
        """Return the rows of a mask."""
        return Predictions(*(table[mask] for table in self))


def open_files(folder: Path) -> list[tuple[Path, BinaryIO]]:
    """Open each file of a log once, even while the service rotates them.

    Raise InvalidLogError or OSError.
    """
    opened: dict[tuple[int, int], tuple[Path, BinaryIO]] = {}
    complete = False
    while not complete:  # a file that has got a new name since the listing is in the next one
        complete = True
        # A rotation gives a file the next higher number. Opened in the order of the numbers, none
        # escapes; one that is met under two names is known by its inode.
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
                complete = False
    if not opened:
        raise InvalidLogError(f"There is no folder {folder} with a predictions-*.jsonl in it")
    return sorted(opened.values(), key=lambda pair: pair[0])


def rotation_number(path: Path) -> str:
    """Return "1" for predictions-2.1.jsonl, and "" for predictions-2.jsonl."""
    return path.stem.partition(".")[2]


def read_chunks(folder: Path) -> Iterator[Chunk]:
    """Yield the complete lines of a log; raise InvalidLogError or OSError.

    A line without an end is being written, or its writer was killed.
    """
    for path, file in open_files(folder):
        with file:
            first_line, is_whole = 1, True
            while is_whole and (lines := list(islice(file, CHUNK_LINES))):
                is_whole = lines[-1].endswith(b"\n")
                complete = lines if is_whole else lines[:-1]
                yield Chunk(path, first_line, parse_lines(complete, path, first_line))
                first_line += len(lines)


def parse_lines(lines: list[bytes], path: Path, first_line: int) -> list[Entry]:
    """Return the entries of some lines; raise InvalidLogError naming the first damaged line."""
    try:
        entries = from_json(b"[%b]" % b",".join(lines), allow_inf_nan=False)
        if len(entries) == len(lines) and all(map(is_entry, entries)):
            return entries
    except ValueError:
        pass
    for number, line in enumerate(lines, first_line):
        try:
            is_damaged = not is_entry(from_json(line, allow_inf_nan=False))
        except ValueError:
            is_damaged = True
        if is_damaged:
            raise InvalidLogError(f"{path}, line {number} is damaged: remove it")
    raise InvalidLogError(f"{path} is damaged after line {first_line}: remove it")


def is_entry(entry: Any) -> bool:
    """Tell whether the JSON value of a line has what each line of the log has."""
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("timestamp"), str)
        and isinstance(entry.get("request_id"), str)
        and isinstance(entry.get("model_tag"), str)
        and type(entry.get("record_number", 0)) is int
        and type(entry.get("prediction")) in NUMBERS
    )


def read_predictions(folder: Path, schemas: Mapping[str, Schema]) -> Predictions:
    """Return all rows of a log, with the features of these schemas.

    Raise InvalidLogError or OSError.
    """
    chunks = [to_tables(chunk.entries, schemas) for chunk in read_chunks(folder)]
    if not any(len(chunk.common) for chunk in chunks):
        raise InvalidLogError(f"The log in {folder} has no line yet")
    tables = zip(*chunks, strict=True)
    common, features, fits = (pd.concat(parts, ignore_index=True) for parts in tables)
    try:
        common["timestamp"] = pd.to_datetime(common["timestamp"], format="ISO8601", utc=True)
    except ValueError as error:
        raise InvalidLogError(f"The log in {folder} has an invalid timestamp: {error}") from None
    return Predictions(common, features, fits)


def to_tables(entries: list[Entry], schemas: Mapping[str, Schema]) -> Predictions:
    """Return the tables of some entries. A log of an earlier version has no record numbers."""
    common = {name: [entry.get(name, 0) for entry in entries] for name in LOG_COLUMNS}
    features = {name: [entry.get(name, MISSING) for entry in entries] for name in schemas}
    fits = np.full(len(entries), fill_value=True)
    for name, values in features.items():
        fits &= have_type(values, schemas[name])
    if not fits.all():
        for values in features.values():
            values[:] = [value if fit else None for value, fit in zip(values, fits, strict=True)]
    columns = {
        name: pd.Series(values, dtype=column_type(schemas[name]))
        for name, values in features.items()
    }
    return Predictions(pd.DataFrame(common), pd.DataFrame(columns), pd.Series(fits))


def have_type(values: list[Any], schema: Schema) -> Any:
    """Tell of each value whether it has the type of a feature, or may be a gap."""
    types = TYPES[kind_of(schema)] | ({type(None)} if is_nullable(schema) else set())
    if set(map(type, values)) <= types:
        return True
    return np.array([type(value) in types for value in values])


def column_type(schema: Schema) -> str:
    """Return the type of a feature's column; booleans may have gaps."""
    return "float64" if TYPES[kind_of(schema)] is NUMBERS else "object"
