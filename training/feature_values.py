"""Values of a feature that requests may have and the data may lack: bounds and unseen texts."""

import math

import pandas as pd

from serving.features import Schema

EXCLUSIVE_BOUNDS = ("exclusiveMinimum", "exclusiveMaximum")
BOUNDS = ("minimum", "maximum", *EXCLUSIVE_BOUNDS)


def bounds_of(schema: Schema, keys: tuple[str, ...] = BOUNDS) -> list[float]:
    """Return the bounds in the JSON schema of a number: the values of those `keys` that it has."""
    return [schema[key] for key in keys if key in schema]


def neighbours(number: float, schema: Schema) -> list[float]:
    """Return the next lower and the next higher number: an integer, or a float64."""
    if schema["type"] == "integer":
        return [number - 1, number + 1]
    return [math.nextafter(number, side) for side in (-math.inf, math.inf)]


def unseen_texts(schema: Schema, column: pd.Series) -> list[str]:
    """Return texts of different lengths that are not in the data; a pattern may exclude them."""
    lengths = {schema.get("minLength", 0), 1, schema["maxLength"]}
    known = set(column)
    return [text for text in ("?" * length for length in sorted(lengths)) if text not in known]
