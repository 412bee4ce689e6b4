"""Choose the example record of the API description: a typical one of the data."""

import pandas as pd

from training.scaffold.columns import Column, InferredTable

# Distance of a missing value from the typical one. That of any other value is at most 1: with up to
# 1000 features, a row without missing values is preferred to any row with one.
MISSING_DISTANCE = 1000


def typical_record(table: InferredTable) -> dict[str, float | bool | str]:
    """Return the most typical row, with a typical value for each missing one.

    Features that most rows lack do not count in the choice of the row: a row with a comment is not
    more typical than one without.
    """
    frame = table.frame
    counted = [each for each in table.features if each.n_missing <= len(frame) / 2]
    distance = sum(
        (distance_from_typical(feature, frame[feature.name]) for feature in counted),
        pd.Series(0.0, frame.index),
    )
    row = frame.loc[distance.idxmin()].dropna()
    record = {}
    for feature in table.features:
        text = row.get(feature.name, typical_text(feature, frame[feature.name].dropna()))
        record[feature.name] = to_value(feature, text)
    return record


def distance_from_typical(feature: Column, values: pd.Series) -> pd.Series:
    """Return 0 for the median or the most frequent value, up to 1 for others, (n_rows,)."""
    if feature.kind in ("number", "integer"):
        distance = (values.astype(float).rank(pct=True) - 0.5).abs() * 2
    else:
        counts = values.map(values.value_counts())
        distance = 1 - counts / counts.max()
    return distance.astype(float).fillna(MISSING_DISTANCE)


def typical_text(feature: Column, values: pd.Series) -> str:
    """Return the upper median of numbers, or the most frequent value."""
    if feature.kind in ("number", "integer"):
        return values.iloc[int(values.astype(float).argsort().iloc[len(values) // 2])]
    return values.mode().iloc[0]


def to_value(column: Column, text: str) -> float | bool | str:
    """Return a text of the data as the value of a record."""
    if column.kind == "integer":
        return int(float(text))
    if column.kind == "number":
        return float(text)
    return text.lower() == "true" if column.kind == "boolean" else text
