"""Choose the record that stands for the data in the API description: a typical one."""

import pandas as pd

from training.scaffold.columns import Column, Columns

GAP_DISTANCE = 1000  # from a gap to a usual value: more than all other features together


def to_value(column: Column, text: str) -> float | bool | str:
    """Return the value that a record has for a text of the data."""
    if column.kind == "integer":
        return int(float(text))
    if column.kind == "number":
        return float(text)
    return text.lower() == "true" if column.kind == "boolean" else text


def typical_record(columns: Columns) -> dict[str, float | bool | str]:
    """Return the most usual row without gaps; if each has some, usual values take their place.

    A feature that most rows lack gets a usual value, too.
    """
    frame = columns.frame
    known = [each for each in columns.features if each.n_gaps <= len(frame) / 2]
    distance = sum(
        (unusualness(feature, frame[feature.name]) for feature in known),
        pd.Series(0.0, frame.index),
    )
    row = frame.loc[distance.idxmin()]
    usual = {
        feature.name: usual_text(feature, frame[feature.name].dropna())
        for feature in columns.features
    }
    texts = {name: row[name] if isinstance(row[name], str) else usual[name] for name in usual}
    return {each.name: to_value(each, texts[each.name]) for each in columns.features}


def unusualness(feature: Column, values: pd.Series) -> pd.Series:
    """Return 0 for the median or the most frequent value, up to 1 for others."""
    if feature.kind in ("number", "integer"):
        distance = (values.astype(float).rank(pct=True) - 0.5).abs() * 2
    else:
        counts = values.map(values.value_counts())
        distance = 1 - counts / counts.max()
    return distance.astype(float).fillna(GAP_DISTANCE)


def usual_text(feature: Column, values: pd.Series) -> str:
    """Return the value in the middle, or the most frequent one."""
    if feature.kind in ("number", "integer"):
        return values.iloc[int(values.astype(float).argsort().iloc[len(values) // 2])]
    return values.mode().iloc[0]
