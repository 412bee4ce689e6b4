"""Valid and invalid values of each feature, from the JSON schema of the record type."""

import math

from serving.features import Schema, declared_values, feature_schemas, is_nullable, kind_of
from train import PROJECT

SCHEMAS = feature_schemas(PROJECT.record_type)
EXAMPLE = {name: schema["example"] for name, schema in SCHEMAS.items()}
WRONG_TYPES = {
    "number": ["1", True, [], {}],
    "integer": ["1", True, 0.5, [], {}],
    "boolean": [1, "true", [], {}],
    "category": [1, True, [], {}],
    "text": [1, True, [], {}],
}
# For each bound of a JSON schema: the step from it to the nearest valid or invalid number. 1 is up,
# -1 is down, and 0 is the bound itself.
VALID_STEPS = {"minimum": 0, "maximum": 0, "exclusiveMinimum": 1, "exclusiveMaximum": -1}
INVALID_STEPS = {"minimum": -1, "maximum": 1, "exclusiveMinimum": 0, "exclusiveMaximum": 0}


def valid_values(schema: Schema) -> list:
    """Return each category or boolean, each bound, the longest text, and null if it is valid."""
    values = declared_values(schema)
    values += [move(schema, schema[key], VALID_STEPS[key]) for key in VALID_STEPS if key in schema]
    if "maxLength" in schema:
        values.append("x" * schema["maxLength"])
    return values + [None] * is_nullable(schema)


def invalid_values(schema: Schema) -> list:
    """Return a value beyond each bound, an unknown category, a too long text, perhaps null."""
    values = [
        move(schema, schema[key], step) for key, step in INVALID_STEPS.items() if key in schema
    ]
    if "enum" in schema or "const" in schema:
        values.append("no such category" if kind_of(schema) == "category" else 0.5)
    if "maxLength" in schema:
        values.append("x" * (schema["maxLength"] + 1))
    return values + [None] * (not is_nullable(schema))


def move(schema: Schema, bound: float, step: int) -> float:
    """Return the bound for step 0, or the next number of its type: above for 1, below for -1."""
    if kind_of(schema) == "integer":
        return bound + step
    return math.nextafter(bound, math.inf * step) if step else float(bound)
