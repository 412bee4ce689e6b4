"""The training data: a CSV file in which each row is a valid record with its target."""

import csv
import hashlib
import io
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from pydantic import BaseModel, ValidationError
from sklearn.utils import shuffle

from serving.model import TrainingMetadata
from serving.records import field_errors
from training.errors import InvalidDataError

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
    """Return the rows of a CSV text; raise InvalidDataError naming each invalid cell."""
    reader = csv.DictReader(io.StringIO(text, newline=""), restval="")
    expected, columns = list(labelled_type.model_fields), list(reader.fieldnames or [])
    if sorted(columns) != sorted(expected):
        raise InvalidDataError(f"line 1: the columns must be {expected}, not {columns}")
    records, errors = [], []
    for cells in reader:
        surplus = cells.pop(None, [])
        try:
            if surplus:
                errors.append(
                    f"line {reader.line_num}: there are cells beyond the columns: {surplus}"
                )
            records.append(vars(labelled_type.model_validate_strings(cells)))
        except ValidationError as error:
            errors += [f"line {reader.line_num}: {message}" for _, message in field_errors(error)]
    if errors:
        raise InvalidDataError("\n".join(errors))
    if len(records) < MIN_ROWS:
        raise InvalidDataError(f"{len(records)} rows are too few: give {MIN_ROWS} or more")
    return pd.DataFrame(records)


def split(frame: pd.DataFrame) -> Split:
    """Shuffle as the tutorial does, and take 90 % to fit; the last column is the target."""
    X, y = shuffle(frame.iloc[:, :-1], frame.iloc[:, -1], random_state=13)
    n_train = int(len(X) * 0.9)
    return Split(X[:n_train], X[n_train:], y[:n_train], y[n_train:])
