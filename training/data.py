"""The training data: a CSV file in which each row is a valid record with its target."""

import csv
import io
from typing import NamedTuple

import pandas as pd
from pydantic import BaseModel, ValidationError
from sklearn.utils import shuffle

from serving.records import faults

MIN_ROWS = 20  # two for the test part, four for a fold


class InvalidData(Exception):
    """The training data cannot be used; the message says where and why."""


class Split(NamedTuple):
    """Features (n_samples, n_features) and targets (n_samples,), to fit and to evaluate on."""

    X_train: pd.DataFrame
    X_test: pd.DataFrame
    y_train: pd.Series
    y_test: pd.Series


def load(text: str, labelled: type[BaseModel]) -> pd.DataFrame:
    """Return the rows of a CSV text, each a valid `labelled`; raise `InvalidData` if not."""
    reader = csv.DictReader(io.StringIO(text, newline=""), restval="")
    wanted, columns = list(labelled.model_fields), list(reader.fieldnames or [])
    if sorted(columns) != sorted(wanted):
        raise InvalidData(f"line 1: the columns must be {wanted}, not {columns}")
    records, bad = [], []
    for cells in reader:
        surplus = cells.pop(None, [])
        try:
            if surplus:
                bad.append(f"line {reader.line_num}: there are cells beyond the columns: {surplus}")
            records.append(vars(labelled.model_validate_strings(cells)))
        except ValidationError as error:
            bad += [f"line {reader.line_num}: {reason}" for _, reason in faults(error)]
    if bad:
        raise InvalidData("\n".join(bad))
    if len(records) < MIN_ROWS:
        raise InvalidData(f"{len(records)} rows are too few: give {MIN_ROWS} or more")
    return pd.DataFrame(records)


def split(frame: pd.DataFrame) -> Split:
    """Shuffle as the tutorial does, and take 90 % to fit; the last column is the target."""
    X, y = shuffle(frame.iloc[:, :-1], frame.iloc[:, -1], random_state=13)
    n_train = int(len(X) * 0.9)
    return Split(X[:n_train], X[n_train:], y[:n_train], y[n_train:])
