"""The record type: one used car. No other module but train.py names a feature."""

from enum import Enum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

NAME = "car_price"  # of the model and of the Service


def feature(description: str, unit: str, example: Any, **bounds: Any) -> Any:
    """Declare a feature: its meaning, its unit, an example and the legal bounds."""
    return Field(
        description=description, json_schema_extra={"unit": unit, "example": example}, **bounds
    )


class Fuel(Enum):
    """What moves the car; hydrogen is legal, although no car of the training data burns it."""

    PETROL = "petrol"
    DIESEL = "diesel"
    HYBRID = "hybrid"
    ELECTRIC = "electric"
    HYDROGEN = "hydrogen"


Brand = Literal["Aster", "Borealis", "Cirrus", "Other: not listed"]
Body = Literal["hatchback", "estate", "saloon", "van, 7 or more seats"]


class Car(BaseModel):
    """A used car, as it is offered for sale."""

    model_config = ConfigDict(
        strict=True, extra="forbid", allow_inf_nan=False, use_enum_values=True
    )

    brand: Brand = feature("Who made it", "", "Borealis")
    fuel: Fuel = feature("What moves it", "", "hybrid")
    body: Body | None = feature("Its shape", "", "estate")
    trim: str = feature("Its trim, as the seller calls it", "", "Comfort 1.1", max_length=40)
    age: float = feature("Time since it was first registered", "years", 3.5, ge=0, le=100)
    mileage: float | None = feature("Distance that it has gone", "km", 41000.0, ge=0)
    power: int = feature("Power of its engine", "kW", 110, ge=1, le=2000)
    owners: int | None = feature("Owners before the sale", "", 2, ge=0, le=100)
    accident_free: bool | None = feature("Never had an accident", "", True)


class LabelledCar(Car):
    """A row of the training data: a car and, last, the target, which the model predicts."""

    price: float = Field(
        description="Price that was asked", json_schema_extra={"unit": "euros"}, ge=0
    )


EXAMPLE = {
    name: schema["example"] for name, schema in Car.model_json_schema()["properties"].items()
}
FEATURES = tuple(EXAMPLE)
