"""The rows on which an export is compared with scikit-learn."""

import json
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, ValidationError

from serving.features import Schema, declared_values, feature_schemas, is_nullable, kind_of
from serving.records import Row, to_row
from training.data import to_rows
from training.export.trees import Tree

FLOAT32_MAX = float(np.finfo(np.float32).max)
BEYOND_FLOAT32 = float(np.nextafter(FLOAT32_MAX, math.inf))
# Of these, each feature gets those that are legal: the least and the greatest numbers, and those
# around the limits of float32, in which most trees compare.
EXTREMES = [0.0, 5e-324, 1e-300, 1.5e-45, 1e-40, 3.4e38, FLOAT32_MAX, BEYOND_FLOAT32, 1e39, 1e300]
# A feature without a bound is drawn from its training range, extended by this many times its width.
BEYOND_TRAINING = 10
EDGE_REPEATS = 3  # rows of the data in which each edge value is put
GAP_SHARE = 0.1  # of the drawn values, if gaps are legal


def data_rows(record_type: type[BaseModel], X: pd.DataFrame) -> list[Row]:
    """Return the rows of the data that are valid records."""
    return valid_rows(record_type, to_records(record_type, X))


def edge_rows(record_type: type[BaseModel], X: pd.DataFrame, rng: np.random.Generator) -> list[Row]:
    """Return rows of the data with one value replaced by each category, flag, bound or extreme."""
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
    """Return rows of the data with few, many or all of their values drawn over the bounds."""
    names = list(X)
    schemas = feature_schemas(record_type)
    drawn = zip(*(draw(schemas[name], X[name], rng, n_rows) for name in names), strict=True)
    records = to_records(record_type, X)
    share = rng.choice([0.1, 0.5, 1.0], size=(n_rows, 1))  # of the values, in each row
    is_drawn = rng.random((n_rows, len(names))) < share
    mixed = [
        records[rng.integers(len(records))]
        | {name: value for name, value, change in zip(names, values, row, strict=True) if change}
        for values, row in zip(drawn, is_drawn, strict=True)
    ]
    return valid_rows(record_type, mixed)


def to_records(record_type: type[BaseModel], X: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table as records."""
    return [dict(zip(X, row, strict=True)) for row in to_rows(X, record_type)]


def valid_rows(record_type: type[BaseModel], records: Iterable[dict[str, Any]]) -> list[Row]:
    """Return the rows that the service makes of the valid ones among some records."""
    rows = []
    for record in records:
        try:
            rows.append(to_row(record_type.model_validate_json(json.dumps(record))))
        except ValidationError:
            continue  # a value that only a validator of the record type excludes
    return rows


def edge_values(schema: Schema, column: pd.Series) -> list[Any]:
    """Return each category or flag; of a number, its bounds and the extremes, legal or not.

    Of a text, return one that the data lack. Return a gap, too, if it is legal.
    """
    gaps = [None] if is_nullable(schema) else []
    if choices := declared_values(schema):
        return choices + gaps
    if kind_of(schema) == "text":
        return unknown_texts(schema, column) + gaps
    bounds = [schema[key] for key in BOUNDS if key in schema]
    if schema["type"] == "integer":
        return [bound + step for bound in bounds for step in (-1, 0, 1)] + gaps
    nearby = [math.nextafter(bound, side) for bound in bounds for side in (-math.inf, math.inf)]
    return [*map(float, bounds), *nearby, *EXTREMES, *(-value for value in EXTREMES), *gaps]


BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")


def unknown_texts(schema: Schema, column: pd.Series) -> list[str]:
    """Return texts of different lengths that the data lack, legal or not."""
    lengths = {schema.get("minLength", 0), 1, schema["maxLength"]}
    known = set(column)
    return [text for text in ("?" * length for length in sorted(lengths)) if text not in known]


def draw(schema: Schema, column: pd.Series, rng: np.random.Generator, n_rows: int) -> list[Any]:
    """Draw values of a feature over its bounds; an open side is ten training ranges away."""
    choices = declared_values(schema)
    if kind_of(schema) == "text":
        choices = [*column.dropna().unique(), *unknown_texts(schema, column)]
    if choices:
        values = [choices[i] for i in rng.integers(len(choices), size=n_rows)]
    else:
        low, high = drawn_range(schema, column)
        values = rng.uniform(low, high, n_rows).tolist()
        if schema["type"] == "integer":
            values = [round(value) for value in values]
    is_gap = rng.random(n_rows) < GAP_SHARE * is_nullable(schema)
    return [None if gap else value for value, gap in zip(values, is_gap, strict=True)]


def drawn_range(schema: Schema, column: pd.Series) -> tuple[float, float]:
    """Return the least and the greatest value to draw for a number."""
    least, greatest = float(column.min()), float(column.max())
    margin = BEYOND_TRAINING * ((greatest - least) or 1.0)
    lows = (schema.get("minimum"), schema.get("exclusiveMinimum"), least - margin)
    highs = (schema.get("maximum"), schema.get("exclusiveMaximum"), greatest + margin)
    low = float(next(bound for bound in lows if bound is not None))
    high = float(next(bound for bound in highs if bound is not None))
    return low, max(low, high)


def split_rows(
    trees: list[Tree], X: np.ndarray, rng: np.random.Generator, limit: int, gaps: bool
) -> np.ndarray:
    """Return rows (up to limit, n_features) at the thresholds of trees and one ulp beside them.

    Each is a row of X, changed so that it reaches the split. `gaps` adds rows without the value.
    """
    splits = [(tree, node) for tree in trees for node in np.flatnonzero(~tree.is_leaf).tolist()]
    n_values = 6 + gaps
    if len(splits) > limit // n_values:
        chosen = rng.choice(len(splits), limit // n_values, replace=False)
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
    values = values_around(np.array([tree.threshold[node] for tree, node in splits]))[:n_values]
    for i, (tree, node) in enumerate(splits):
        if tree.codes[node] is not None:  # there is no threshold: take categories of the data
            values[:6, i] = rng.choice(X[:, features[i]], 6)
    repeated = np.repeat(rows[np.newaxis], n_values, axis=0)
    repeated[:, np.arange(len(rows)), features] = values
    return repeated.reshape(-1, X.shape[1])


def values_around(thresholds: np.ndarray) -> np.ndarray:
    """Return (7, n) values: thresholds and their neighbours in float64 and float32, then NaN."""
    singles = thresholds.astype(np.float32)
    around = [
        np.nextafter(numbers, numbers.dtype.type(side)).astype(float)
        for numbers in (thresholds, singles)
        for side in (-np.inf, np.inf)
    ]
    return np.array([thresholds, singles, *around, np.full(len(thresholds), np.nan)], dtype=float)


def parents_of(tree: Tree) -> np.ndarray:
    """Return the parent of each node (n_nodes,); that of the root is -1."""
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
    """Give a row the first category of the data that goes to one side of a split, if there is."""
    fitting = X[np.isin(X[:, feature], codes) == is_left, feature]
    if np.isin(row[feature], codes) != is_left and len(fitting):
        row[feature] = fitting[0]


def between(low: float, high: float) -> float:
    """Return a number above one and not above the other; one of them is finite."""
    if math.isinf(low):
        return high
    return low + (high - low) / 2 if math.isfinite(high) else low + max(1.0, abs(low) / 1000)
