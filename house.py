"""The record type: one house.

No other module of the service or the training names a feature, so that both work for another record
type, too.
"""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

NAME = "house_price"  # name of the model, the Service and the Bento


def feature(description: str, unit: str, example: float, **bounds: Any) -> Any:
    """Declare a feature: its meaning, its unit, an example value and its bounds."""
    return Field(
        description=description, json_schema_extra={"unit": unit, "example": example}, **bounds
    )


def zero_or_one(value: float) -> float:
    """Return a value that is exactly 0 or 1; raise PydanticCustomError otherwise."""
    if value not in (0, 1):
        raise PydanticCustomError("zero_or_one", "Input should be 0 or 1")
    return value


Flag = Annotated[
    float, AfterValidator(zero_or_one), WithJsonSchema({"type": "number", "enum": [0, 1]})
]


# Definitions, units and order are those of StatLib's copy of the data; the examples are those of the
# request in README.md. The bounds follow from the definitions, not from the training data.
class House(BaseModel):
    """A house, described by its census tract and its town in the Boston area around 1970."""

    # `serving.features.REQUIRED_CONFIG`, without which the service does not start.
    model_config = ConfigDict(
        strict=True, extra="forbid", allow_inf_nan=False, use_enum_values=True
    )

    CRIM: float = feature("Crime rate of the town", "per head", 15.02, ge=0)
    ZN: float = feature("Land zoned for lots over 25,000 sq ft", "%", 0.0, ge=0, le=100)
    INDUS: float = feature("Town's land in non-retail business", "%", 18.1, ge=0, le=100)
    CHAS: Flag = feature("Bounds the river", "1 yes, 0 no", 0.0)
    NOX: float = feature("Nitrogen oxides in the air", "parts per 10 million", 0.614, ge=0)
    RM: float = feature("Average rooms per dwelling", "rooms", 5.3, ge=0)
    AGE: float = feature("Owner-occupied homes built before 1940", "%", 97.3, ge=0, le=100)
    DIS: float = feature("Distance to five employment centres", "weighted index", 2.1, ge=0)
    RAD: float = feature("Access to radial highways", "index", 24.0, ge=1)
    TAX: float = feature("Property tax at full value", "$ per $10,000", 666.0, ge=0)
    PTRATIO: float = feature("Pupils per teacher in the town", "pupils", 20.2, ge=0)
    B: float = feature(
        "1000 (Bk - 0.63)^2, Bk the Black share of the town", "index", 349.48, ge=0, le=396.9
    )
    LSTAT: float = feature("Residents of 'lower status'", "%", 24.9, ge=0, le=100)


class LabelledHouse(House):
    """A row of the training data: the features of a house and, last, the target."""

    MEDV: float = Field(
        description="Median value of owner-occupied homes",
        json_schema_extra={"unit": "thousands of 1970 dollars"},
        ge=0,
    )


# For tests and benchmarks.
EXAMPLE = {
    name: schema["example"] for name, schema in House.model_json_schema()["properties"].items()
}
FEATURES = tuple(EXAMPLE)
