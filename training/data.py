"""Load the training data: a CSV file in which each row is a valid record with its target."""

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
from serving.records import Row, to_row
from training.errors import InvalidDataError
from training.request_body import make_body_type

NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
MIN_ROWS = 20  # they give 2 test rows, and 5 folds of 4 rows for the cross-validation


class Split(NamedTuple):
    """Features (n_samples, n_features) and targets (n_samples,), to fit and to evaluate."""

    X_train: pd.DataFrame
    X_test: pd.DataFrame
    y_train: pd.Series
    y_test: pd.Series

    @property
    def X(self) -> pd.DataFrame:  # noqa: N802
        """The features of all rows."""
        return pd.concat([self.X_train, self.X_test])

    @property
    def y(self) -> pd.Series:
        """The targets of all rows."""
        return pd.concat([self.y_train, self.y_test])


def load_training_data(path: Path, labelled_type: type[BaseModel]) -> tuple[Split, str]:
    """Return the rows of a CSV file, split into training and test part, and the file's SHA-256.

    Raise InvalidDataError or OSError.
    """
    content = path.read_bytes()
    try:
        frame = parse_csv(content.decode("utf-8-sig"), labelled_type)
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise InvalidDataError(f"{path}:\nline {line} is not UTF-8: change its encoding") from None
    except (InvalidDataError, csv.Error) as error:
        raise InvalidDataError(f"{path}:\n{error}") from None
    return split_train_test(frame), hashlib.sha256(content).hexdigest()


# The old name of the function. A bundle is upgraded by replacing serving/ and training/; its
# tests/contract stay, and may import this name.
read_csv = load_training_data


def load_data_of_model(
    path: Path, labelled_type: type[BaseModel], training: TrainingMetadata
) -> Split:
    """Return the data that a model was trained on, with the same split.

    Raise InvalidDataError if the file's SHA-256 is not the one in the model's metadata.
    """
    data, sha256 = load_training_data(path, labelled_type)
    if sha256 != training.data_sha256:
        raise InvalidDataError(
            "The model was trained on other data: give that file with --data, or run "
            f"`make train`.\nSHA-256 of {path}: {sha256}\n"
            f"of the training data: {training.data_sha256}"
        )
    return data


def parse_csv(text: str, labelled_type: type[BaseModel]) -> pd.DataFrame:
    """Return the rows of a CSV text; ignore columns that the record type does not declare.

    Raise InvalidDataError with each different error, its first line and the number of other lines.
    """
    body_type = make_body_type(labelled_type)
    schemas = feature_schemas(labelled_type)
    reader = csv.DictReader(io.StringIO(text, newline=""))
    check_header(list(reader.fieldnames or []), list(schemas))
    rows, lines_by_message = [], defaultdict[str, list[int]](list)
    for cells in reader:
        line = reader.line_num
        if surplus := cells.pop(None, []):
            lines_by_message[f"there are cells beyond the columns: {surplus}"].append(line)
        if None in cells.values():
            lines_by_message["there are fewer cells than columns"].append(line)
            continue
        record = {name: parse_cell(cells[name], schema) for name, schema in schemas.items()}
        try:
            rows.append(to_row(body_type.validate(json.dumps(record).encode())))
        except ValidationError as error:
            for _, message in field_errors(error, body_type.nullable, null="an empty cell"):
                lines_by_message[message].append(line)
    if lines_by_message:
        raise InvalidDataError("\n".join(starmap(format_error, lines_by_message.items())))
    if len(rows) < MIN_ROWS:
        raise InvalidDataError(f"{len(rows)} rows are too few: give {MIN_ROWS} or more")
    return to_frame(rows, schemas)


def format_error(message: str, lines: Sequence[int]) -> str:
    """Return a message with the first line that has the error, and the number of other lines."""
    others = f" (and in {len(lines) - 1} other lines)" if len(lines) > 1 else ""
    return f"line {lines[0]}: {message}{others}"


def check_header(columns: Sequence[str], declared: Sequence[str]) -> None:
    """Raise InvalidDataError unless a file has each declared column once, in any order.

    Print the names of the other columns.
    """
    if repeated := [name for name, times in Counter(columns).items() if times > 1]:
        raise InvalidDataError(f"line 1: there are several columns {', '.join(repeated)}")
    if missing := [name for name in declared if name not in columns]:
        raise InvalidDataError(f"line 1: there is no column {', '.join(missing)}")
    if others := [name for name in columns if name not in declared]:
        print(f"Columns that the record type does not declare are ignored: {', '.join(others)}")


def parse_cell(cell: str, schema: Schema) -> Any:
    """Return the JSON value of a cell: None for an empty cell of a feature that may be null.

    A text that can't be parsed is returned unchanged; the validation then rejects it.
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
    """Return rows as a table. A missing value is NaN, in a column of strings None.

    Raise InvalidDataError if a column has only missing values.
    """
    columns = {}
    for (name, schema), values in zip(schemas.items(), zip(*rows, strict=True), strict=True):
        if all(value is None for value in values):
            raise InvalidDataError(f"{name} has no value in any row: remove it from the record")
        columns[name] = pd.Series(values, dtype=dtype_of(schema))
    return pd.DataFrame(columns)


def to_rows(X: pd.DataFrame, record_type: type[BaseModel]) -> list[Row]:
    """Return the rows of a table as the service gets them: a missing value is None."""
    schemas = feature_schemas(record_type)
    return list(zip(*(to_values(X[name], schemas[name]) for name in X), strict=True))


def to_records(record_type: type[BaseModel], X: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table as records."""
    return [dict(zip(X, row, strict=True)) for row in to_rows(X, record_type)]


def to_values(column: pd.Series, schema: Schema) -> list[Any]:
    """Return the values of a column as a record has them: a missing value is None.

    pandas holds integers and booleans as floats if a value of their column is missing.
    """
    values = [None if is_missing(value) else value for value in column.tolist()]
    cast = {"integer": int, "boolean": bool}.get(kind_of(schema) or "")
    return [cast(value) if cast and value is not None else value for value in values]


def is_missing(value: Any) -> bool:
    """Return whether a value is None or NaN."""
    return value is None or value != value


def split_train_test(frame: pd.DataFrame) -> Split:
    """Shuffle the rows with a fixed seed; take 90 % as training part, the rest as test part.

    The last column is the target.
    """
    # Seed and share come from a Flask tutorial. Reports of stored models split the data again: with
    # another seed or share, the test part would contain rows that the model was fitted on.
    from sklearn.utils import shuffle  # scoring imports this module, and needs no scikit-learn

    X, y = shuffle(frame.iloc[:, :-1], frame.iloc[:, -1], random_state=13)
    n_train = int(len(X) * 0.9)
    return Split(X[:n_train], X[n_train:], y[:n_train], y[n_train:])
