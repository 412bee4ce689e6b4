"""The record type: the order of its features, its JSON schema, and which values are valid."""

import pytest
from pydantic import ValidationError

from house import EXAMPLE, FEATURES, House, LabelledHouse


def test_features_are_in_statlib_order():
    """The columns of the training data have this order, and so have the rows for the model."""
    expected = "CRIM ZN INDUS CHAS NOX RM AGE DIS RAD TAX PTRATIO B LSTAT"
    assert " ".join(FEATURES) == expected
    assert list(LabelledHouse.model_fields) == [*FEATURES, "MEDV"]


def test_every_feature_has_description_unit_example_and_bounds():
    """An enumeration of the valid values may replace the lower bound."""
    for schema in House.model_json_schema()["properties"].values():
        assert schema.keys() >= {"description", "unit", "example"}
        assert schema.keys() & {"minimum", "enum"}


def test_example_is_valid():
    """The tutorial's record passes validation unchanged."""
    assert House(**EXAMPLE).model_dump() == EXAMPLE


@pytest.mark.parametrize(
    ("feature", "value"),
    [
        ("CHAS", 0),
        ("CHAS", 1),
        ("ZN", 100),
        ("B", 396.9),
        ("RAD", 1),
        ("CRIM", 1e308),
        ("RM", -0.0),
    ],
)
def test_valid_value_is_accepted(feature, value):
    """Bounds are inclusive. Integers, and values far outside the training range, are valid."""
    assert getattr(House(**EXAMPLE | {feature: value}), feature) == value


@pytest.mark.parametrize(
    ("feature", "value"),
    [
        ("CHAS", 0.5),
        ("CHAS", 2),
        ("CHAS", 1e-10),
        ("CHAS", True),
        ("ZN", 100.1),
        ("INDUS", 101),
        ("AGE", 101),
        ("LSTAT", 100.1),
        ("B", 397),
        ("RAD", 0.9),
        ("RM", "6"),
        ("RM", None),
        ("RM", [6]),
        ("RM", float("nan")),
        ("RM", float("inf")),
        *((feature, -1e-9) for feature in FEATURES),
    ],
)
def test_invalid_value_is_rejected(feature, value):
    """Out of bounds, not a number, or not finite; no feature accepts a negative value."""
    with pytest.raises(ValidationError, match=feature):
        House(**EXAMPLE | {feature: value})
