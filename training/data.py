"""The training data: a CSV file in which each row is a valid record with its target."""

import csv
import hashlib
import io
import json
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import starmap
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from pydantic import BaseModel, ValidationError

from serving.features import Schema, dtype_of, feature_schemas, is_nullable, kind_of
from serving.model import TrainingMetadata
from serving.record_errors import field_errors
from serving.records import RequestBody, Row, to_row
from training.errors import InvalidDataError

NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
MIN_ROWS = 20  # two for the test part, four for each fold


class Split(NamedTuple):
    """Features (n_samples, n_features) and targets (n_samples,), to fit and to evaluate."""

    X_train: pd.DataFrame
    X_test: pd.DataFrame
    y_train: pd.Series
    y_test: pd.Series


def read_csv(path: Path, labelled_type: type[BaseModel]) -> tuple[Split, str]:
    """Return the rows of a CSV file, split, and the file's SHA-256.

    Raise InvalidDataError or OSError.
    """
    content = path.read_bytes()
    try:
        frame = parse_csv(content.decode("utf-8-sig"), labelled_type)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidDataError(str(error)) from None
    return split(frame), hashlib.sha256(content).hexdigest()


def read_training_csv(
    path: Path, labelled_type: type[BaseModel], training: TrainingMetadata
) -> Split:
    """Return the data that a model was trained on, split as then; raise InvalidDataError."""
    data, sha256 = read_csv(path, labelled_type)
    if sha256 != training.data_sha256:
        raise InvalidDataError(
            "The model was trained on other data: give that with --data, or run `make train`.\n"
            f"SHA-256 of this file: {sha256}\nof the training data: {training.data_sha256}"
        )
    return data


def parse_csv(text: str, labelled_type: type[BaseModel]) -> pd.DataFrame:
    """Return the rows of a CSV text; raise InvalidDataError naming each invalid cell.

    Print the names of the columns that the record type does not declare, which are ignored.
    """

    class Body(RequestBody):
        record_type = labelled_type

    schemas = feature_schemas(labelled_type)
    reader = csv.DictReader(io.StringIO(text, newline=""))
    check_header(list(reader.fieldnames or []), list(schemas))
    rows, errors = [], defaultdict[str, list[int]](list)  # the lines of each message
    for cells in reader:
        line = reader.line_num
        if surplus := cells.pop(None, []):
            errors[f"there are cells beyond the columns: {surplus}"].append(line)
        if None in cells.values():
            errors["there are fewer cells than columns"].append(line)
            continue
        record = {name: parse_cell(cells[name], schema) for name, schema in schemas.items()}
        try:
            rows.append(to_row(Body.validate(json.dumps(record).encode())))
        except ValidationError as error:
            for _, message in field_errors(error, Body.nullable, null="an empty cell"):
                errors[message].append(line)
    if errors:
        raise InvalidDataError("\n".join(starmap(format_error, errors.items())))
    if len(rows) < MIN_ROWS:
        raise InvalidDataError(f"{len(rows)} rows are too few: give {MIN_ROWS} or more")
    return to_frame(rows, schemas)


def format_error(message: str, lines: Sequence[int]) -> str:
    """Return a message with the first line that it is about, and how many others there are."""
    others = f" (and in {len(lines) - 1} other lines)" if len(lines) > 1 else ""
    return f"line {lines[0]}: {message}{others}"


def check_header(columns: Sequence[str], declared: Sequence[str]) -> None:
    """Raise InvalidDataError unless a file has each declared column once, in any order.

    Print the names of other columns.
    """
    if repeated := [name for name, times in Counter(columns).items() if times > 1]:
        raise InvalidDataError(f"line 1: there are several columns {', '.join(repeated)}")
    if missing := [name for name in declared if name not in columns]:
        raise InvalidDataError(f"line 1: there is no column {', '.join(missing)}")
    if others := [name for name in columns if name not in declared]:
        print(f"Columns that the record type does not declare are ignored: {', '.join(others)}")


def parse_cell(cell: str, schema: Schema) -> Any:
    """Return the JSON value of a cell, or its text if it has none, which is then invalid.

    An empty cell of a feature that may be null is a gap.
    """
    kind = kind_of(schema)
    if not cell and is_nullable(schema):
        return None
    if kind == "boolean":
        return {"true": True, "false": False}.get(cell.lower(), cell)
    if kind in ("number", "integer") and NUMBER.fullmatch(cell.strip()):
        is_integer = cell.strip("+- ").isdigit()
        return int(cell) if is_integer else float(cell)
    return cell


def to_frame(rows: Sequence[Row], schemas: Mapping[str, Schema]) -> pd.DataFrame:
    """Return rows as a table. A gap is NaN, or None among strings.

    Raise InvalidDataError if a column has nothing but gaps.
    """
    columns = {}
    for (name, schema), values in zip(schemas.items(), zip(*rows, strict=True), strict=True):
        if all(value is None for value in values):
            raise InvalidDataError(f"{name} has no value in any row: leave the feature out")
        columns[name] = pd.Series(values, dtype=dtype_of(schema))
    return pd.DataFrame(columns)


def to_rows(X: pd.DataFrame, record_type: type[BaseModel]) -> list[Row]:
    """Return the rows of a table as the service gets them: a gap is None."""
    schemas = feature_schemas(record_type)
    return list(zip(*(to_values(X[name], schemas[name]) for name in X), strict=True))


def to_values(column: pd.Series, schema: Schema) -> list[Any]:
    """Return the values of a column as those of records."""
    cast = {"integer": int, "boolean": bool}.get(kind_of(schema) or "", lambda value: value)
    return [None if value is None or value != value else cast(value) for value in column.tolist()]


def split(frame: pd.DataFrame) -> Split:
    """Shuffle as the tutorial does, and take 90 % to fit; the last column is the target."""
    from sklearn.utils import shuffle  # scoring reads cells, but needs no scikit-learn

    X, y = shuffle(frame.iloc[:, :-1], frame.iloc[:, -1], random_state=13)
    n_train = int(len(X) * 0.9)
    return Split(X[:n_train], X[n_train:], y[:n_train], y[n_train:])
