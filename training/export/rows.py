"""Make the rows on which an export is compared with scikit-learn."""

import json
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, ValidationError

from serving.features import Schema, declared_values, feature_schemas, is_nullable, kind_of
from serving.records import Row, to_row
from training.data import to_records  # imported from here by tests/contract of older bundles
from training.export.trees import Tree
from training.feature_values import bounds_of, neighbours, unseen_texts

FLOAT32_MAX = float(np.finfo(np.float32).max)
BEYOND_FLOAT32 = float(np.nextafter(FLOAT32_MAX, math.inf))
# The smallest and the largest numbers, and numbers around the limits of float32, in which most
# trees compare. Each feature gets the valid ones among them.
EXTREMES = [0.0, 5e-324, 1e-300, 1.5e-45, 1e-40, 3.4e38, FLOAT32_MAX, BEYOND_FLOAT32, 1e39, 1e300]
# Random values of a feature without a bound go this many widths of the training range beyond it.
BEYOND_TRAINING = 10
EDGE_REPEATS = 3  # rows of the data that get each edge value
N_AROUND = 6  # values around a threshold: itself and its neighbours, in float64 and in float32
MISSING_SHARE = 0.1  # of the random values of a feature that may be null


def data_rows(record_type: type[BaseModel], X: pd.DataFrame) -> list[Row]:
    """Return the rows of the data that are valid records."""
    return valid_rows(record_type, to_records(record_type, X))


def edge_rows(record_type: type[BaseModel], X: pd.DataFrame, rng: np.random.Generator) -> list[Row]:
    """Return rows of the data with one value replaced by an edge value."""
    records = to_records(record_type, X)
    changed = [
        records[rng.integers(len(records))] | {name: value}
        for name, schema in feature_schemas(record_type).items()
        for value in edge_values(schema, X[name])
        for _ in range(EDGE_REPEATS)
    ]
    return valid_rows(record_type, changed)


def random_rows(
    record_type: type[BaseModel], X: pd.DataFrame, rng: np.random.Generator, n_rows: int
) -> list[Row]:
    """Return rows of the data with few, many or all values replaced by random ones.

    Invalid records are excluded, so that there may be fewer than `n_rows`.
    """
    names = list(X)
    schemas = feature_schemas(record_type)
    columns = (sample_values(schemas[name], X[name], rng, n_rows) for name in names)
    samples = zip(*columns, strict=True)
    records = to_records(record_type, X)
    share = rng.choice([0.1, 0.5, 1.0], size=(n_rows, 1))  # of the values of each row
    is_replaced = rng.random((n_rows, len(names))) < share
    mixed = [
        records[rng.integers(len(records))]
        | {name: value for name, value, change in zip(names, values, row, strict=True) if change}
        for values, row in zip(samples, is_replaced, strict=True)
    ]
    return valid_rows(record_type, mixed)


def valid_rows(record_type: type[BaseModel], records: Iterable[dict[str, Any]]) -> list[Row]:
    """Return the rows of those records that are valid."""
    rows = []
    for record in records:
        try:
            rows.append(to_row(record_type.model_validate_json(json.dumps(record))))
        except ValidationError:
            continue  # a bound excludes the value, or a validator of the record type
    return rows


def edge_values(schema: Schema, column: pd.Series) -> list[Any]:
    """Return the values of a feature at the edges of what is valid; some may be invalid.

    - a category, a boolean or an enumeration of numbers: each value
    - a text: some texts that are not in the data
    - an integer: its bounds and the integers next to them
    - another number: its bounds, the floats next to them, and the extremes of floats
    - None in addition, if the feature may be null
    """
    nulls = [None] if is_nullable(schema) else []
    if choices := declared_values(schema):
        return choices + nulls
    if kind_of(schema) == "text":
        return unseen_texts(schema, column) + nulls
    bounds = bounds_of(schema)
    nearby = [number for bound in bounds for number in neighbours(bound, schema)]
    if schema["type"] == "integer":
        return [*bounds, *nearby, *nulls]
    return [*map(float, bounds), *nearby, *EXTREMES, *(-value for value in EXTREMES), *nulls]


def sample_values(
    schema: Schema, column: pd.Series, rng: np.random.Generator, n_rows: int
) -> list[Any]:
    """Return random values of a feature (n_rows); for a number, uniform within `sample_range`."""
    choices = declared_values(schema)
    if kind_of(schema) == "text":
        choices = [*column.dropna().unique(), *unseen_texts(schema, column)]
    if choices:
        values = [choices[i] for i in rng.integers(len(choices), size=n_rows)]
    else:
        low, high = sample_range(schema, column)
        values = rng.uniform(low, high, n_rows).tolist()
        if schema["type"] == "integer":
            values = [round(value) for value in values]
    is_null = rng.random(n_rows) < MISSING_SHARE * is_nullable(schema)
    return [None if null else value for value, null in zip(values, is_null, strict=True)]


def sample_range(schema: Schema, column: pd.Series) -> tuple[float, float]:
    """Return the bounds of a number; without one, a value far beyond the training range."""
    least, greatest = float(column.min()), float(column.max())
    margin = BEYOND_TRAINING * ((greatest - least) or 1.0)
    lows = (schema.get("minimum"), schema.get("exclusiveMinimum"), least - margin)
    highs = (schema.get("maximum"), schema.get("exclusiveMaximum"), greatest + margin)
    low = float(next(bound for bound in lows if bound is not None))
    high = float(next(bound for bound in highs if bound is not None))
    return low, max(low, high)


def threshold_rows(
    trees: list[Tree], X: np.ndarray, rng: np.random.Generator, max_rows: int, with_missing: bool
) -> np.ndarray:
    """Return rows (up to max_rows, n_features) with values at the thresholds of trees.

    For each threshold there are N_AROUND rows, and `with_missing` adds one without the value. Each
    is a row of X, changed so that it reaches the split. If there are more splits than fit, they are
    sampled.
    """
    splits = [(tree, node) for tree in trees for node in np.flatnonzero(~tree.is_leaf).tolist()]
    n_values = N_AROUND + with_missing
    if len(splits) > max_rows // n_values:
        chosen = rng.choice(len(splits), max_rows // n_values, replace=False)
        splits = [splits[i] for i in chosen]
    if not splits:
        return X[:0]
    rows = X[rng.integers(len(X), size=len(splits))]
    parents: dict[int, np.ndarray] = {}
    for row, (tree, node) in zip(rows, splits, strict=True):
        if id(tree) not in parents:
            parents[id(tree)] = parents_of(tree)
        steer(row, tree, parents[id(tree)], node, X)
    features = [tree.feature[node] for tree, node in splits]
    values = values_around(np.array([tree.threshold[node] for tree, node in splits]))
    for i, (tree, node) in enumerate(splits):
        if tree.codes[node] is not None:  # it has categories instead of a threshold
            values[:, i] = rng.choice(X[:, features[i]], N_AROUND)
    if with_missing:
        values = np.vstack([values, np.full(len(splits), np.nan)])
    repeated = np.repeat(rows[np.newaxis], n_values, axis=0)
    repeated[:, np.arange(len(rows)), features] = values
    return repeated.reshape(-1, X.shape[1])


def values_around(thresholds: np.ndarray) -> np.ndarray:
    """Return the values around thresholds: (N_AROUND, n_thresholds)."""
    singles = thresholds.astype(np.float32)
    around = [
        np.nextafter(numbers, numbers.dtype.type(side)).astype(float)
        for numbers in (thresholds, singles)
        for side in (-np.inf, np.inf)
    ]
    return np.array([thresholds, singles, *around], dtype=float)


def parents_of(tree: Tree) -> np.ndarray:
    """Return the index of the parent of each node (n_nodes,), -1 for the root."""
    parents = np.full(len(tree.is_leaf), -1)
    splits = np.flatnonzero(~tree.is_leaf)
    parents[tree.left[splits]] = parents[tree.right[splits]] = splits
    return parents


def steer(row: np.ndarray, tree: Tree, parents: np.ndarray, node: int, X: np.ndarray) -> None:
    """Change a row (n_features,) in place so that it reaches a node of a tree."""
    bounds: dict[int, tuple[float, float]] = {}
    while (parent := parents[node]) >= 0:
        feature, threshold = tree.feature[parent], tree.threshold[parent]
        is_left = tree.left[parent] == node
        low, high = bounds.get(feature, (-math.inf, math.inf))
        if tree.codes[parent] is not None:
            steer_category(row, feature, tree.codes[parent], is_left, X)
        elif is_left:
            bounds[feature] = (low, min(high, threshold))
        else:
            bounds[feature] = (max(low, threshold), high)
        node = parent
    for feature, (low, high) in bounds.items():
        if not low < row[feature] <= high:
            row[feature] = between(low, high)


def steer_category(
    row: np.ndarray, feature: int, codes: np.ndarray, is_left: bool, X: np.ndarray
) -> None:
    """Change a row in place so that its category goes to one side of a split.

    Take the first such category of the data; without one, leave the row as it is.
    """
    fitting = X[np.isin(X[:, feature], codes) == is_left, feature]
    if np.isin(row[feature], codes) != is_left and len(fitting):
        row[feature] = fitting[0]


def between(low: float, high: float) -> float:
    """Return a number in (low, high]; at least one of both is finite."""
    if math.isinf(low):
        return high
    return low + (high - low) / 2 if math.isfinite(high) else low + max(1.0, abs(low) / 1000)
