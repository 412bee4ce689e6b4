"""The rows on which an export is compared with scikit-learn."""

import json
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, ValidationError

from serving.model import feature_schemas
from serving.records import Row, to_row
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
    """Return the rows of the data."""
    return to_rows(record_type, to_records(X))


def edge_rows(record_type: type[BaseModel], X: pd.DataFrame, rng: np.random.Generator) -> list[Row]:
    """Return rows of the data with one value replaced by each category, flag, bound or extreme."""
    records = to_records(X)
    changed = [
        records[rng.integers(len(records))] | {name: value}
        for name, schema in feature_schemas(record_type).items()
        for value in edge_values(schema)
        for _ in range(EDGE_REPEATS)
    ]
    return to_rows(record_type, changed)


def random_rows(
    record_type: type[BaseModel], X: pd.DataFrame, rng: np.random.Generator, n_rows: int
) -> list[Row]:
    """Return rows of the data with few, many or all of their values drawn over the bounds."""
    names = list(X)
    schemas = feature_schemas(record_type)
    drawn = zip(*(draw(schemas[name], X[name], rng, n_rows) for name in names), strict=True)
    records = to_records(X)
    share = rng.choice([0.1, 0.5, 1.0], size=(n_rows, 1))  # of the values, in each row
    is_drawn = rng.random((n_rows, len(names))) < share
    mixed = [
        records[rng.integers(len(records))]
        | {name: value for name, value, change in zip(names, values, row, strict=True) if change}
        for values, row in zip(drawn, is_drawn, strict=True)
    ]
    return to_rows(record_type, mixed)


def to_records(X: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table as JSON values; a gap is None."""
    return [
        {name: None if value != value else value for name, value in record.items()}
        for record in X.to_dict("records")
    ]


def to_rows(record_type: type[BaseModel], records: Iterable[dict[str, Any]]) -> list[Row]:
    """Return the rows that the service makes of the valid ones among some records."""
    rows = []
    for record in records:
        try:
            row = to_row(record_type.model_validate_json(json.dumps(record)))
        except ValidationError:
            continue  # a value that only a validator of the record type excludes
        rows.append(tuple(math.nan if value is None else value for value in row))
    return rows


def without_null(schema: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """Return the schema of a feature's values other than null, and whether null is legal."""
    types = schema.get("anyOf", [schema])
    values = [each for each in types if each.get("type") != "null"]
    return (schema | values[0] if len(types) > 1 else schema), len(values) < len(types)


def edge_values(schema: dict[str, Any]) -> list[Any]:
    """Return each category or flag; of a number, its bounds and the extremes, legal or not."""
    schema, has_gaps = without_null(schema)
    gaps = [None] if has_gaps else []
    if choices := declared_values(schema):
        return choices + gaps
    bounds = [schema[key] for key in BOUNDS if key in schema]
    if schema["type"] == "integer":
        return [bound + step for bound in bounds for step in (-1, 0, 1)] + gaps
    nearby = [math.nextafter(bound, side) for bound in bounds for side in (-math.inf, math.inf)]
    return [*map(float, bounds), *nearby, *EXTREMES, *(-value for value in EXTREMES), *gaps]


BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")


def declared_values(schema: dict[str, Any]) -> list[Any]:
    """Return the values of a feature that has only a few, otherwise nothing."""
    if schema.get("type") == "boolean":
        return [False, True]
    return list(schema.get("enum", [schema["const"]] if "const" in schema else []))


def draw(
    schema: dict[str, Any], column: pd.Series, rng: np.random.Generator, n_rows: int
) -> list[Any]:
    """Draw values of a feature over its bounds; an open side is ten training ranges away."""
    schema, has_gaps = without_null(schema)
    if choices := declared_values(schema):
        values = [choices[i] for i in rng.integers(len(choices), size=n_rows)]
    else:
        low, high = drawn_range(schema, column)
        values = rng.uniform(low, high, n_rows).tolist()
        if schema["type"] == "integer":
            values = [round(value) for value in values]
    is_gap = rng.random(n_rows) < GAP_SHARE * has_gaps
    return [None if gap else value for value, gap in zip(values, is_gap, strict=True)]


def drawn_range(schema: dict[str, Any], column: pd.Series) -> tuple[float, float]:
    """Return the least and the greatest value to draw for a number."""
    least, greatest = float(column.min()), float(column.max())
    margin = BEYOND_TRAINING * ((greatest - least) or 1.0)
    low = schema.get("minimum", schema.get("exclusiveMinimum", least - margin))
    high = schema.get("maximum", schema.get("exclusiveMaximum", greatest + margin))
    return float(low), float(max(low, high))


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
