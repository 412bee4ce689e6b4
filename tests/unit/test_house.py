"""The record type: what it allows, and that everything else derives from it."""

import pytest
from pydantic import ValidationError

from house import EXAMPLE, FEATURES, House, LabelledHouse


def test_features_are_in_the_order_of_statlib():
    """Order matters: it is that of the columns which the model is trained on."""
    expected = "CRIM ZN INDUS CHAS NOX RM AGE DIS RAD TAX PTRATIO B LSTAT"
    assert " ".join(FEATURES) == expected
    assert list(LabelledHouse.model_fields) == [*FEATURES, "MEDV"]


def test_every_feature_tells_what_it_means():
    """Each has a description, a unit, an example, and a lower bound or the legal values."""
    for schema in House.model_json_schema()["properties"].values():
        assert schema.keys() >= {"description", "unit", "example"}
        assert schema.keys() & {"minimum", "enum"}


def test_example_is_valid():
    """The tutorial's record passes."""
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
def test_bounds_are_legal(feature, value):
    """A value at its bound, an integer, or one far outside the training range is legal."""
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
def test_other_values_are_not(feature, value):
    """Nothing negative, no share over 100 %, no stand-in for a number."""
    with pytest.raises(ValidationError, match=feature):
        House(**EXAMPLE | {feature: value})
