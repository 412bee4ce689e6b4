"""The record type of a used car, for the CSV file of examples/cars, and an estimator."""

from enum import Enum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder

from house import feature
from tests.helpers.commands import ROOT

PATH = ROOT / "examples/cars/used_cars.csv"


class Fuel(Enum):
    """Source of energy; hydrogen is valid, although no car of the training data has it."""

    PETROL = "petrol"
    DIESEL = "diesel"
    HYBRID = "hybrid"
    ELECTRIC = "electric"
    HYDROGEN = "hydrogen"


Brand = Literal["Aster", "Borealis", "Cirrus", "Other: not listed"]
Body = Literal["hatchback", "estate", "saloon", "van, 7 or more seats"]


class Car(BaseModel):
    """A used car that is offered for sale."""

    model_config = ConfigDict(
        strict=True, extra="forbid", allow_inf_nan=False, use_enum_values=True
    )

    brand: Brand = feature("Manufacturer", "", "Borealis")
    fuel: Fuel = feature("Fuel or other source of energy", "", "hybrid")
    body: Body | None = feature("Body style", "", "estate")
    trim: str = feature("Trim, in the words of the seller", "", "Comfort 1.1", max_length=40)
    age: float = feature("Time since the first registration", "years", 3.5, ge=0, le=100)
    mileage: float | None = feature("Distance driven", "km", 41000.0, ge=0)
    power: int = feature("Power of the engine", "kW", 110, ge=1, le=2000)
    owners: int | None = feature("Owners before the sale", "", 2, ge=0, le=100)
    accident_free: bool | None = feature("Never had an accident", "", True)


class LabelledCar(Car):
    """A row of the training data: a car and, last, the target, which the model predicts."""

    price: float = Field(description="Asking price", json_schema_extra={"unit": "euros"}, ge=0)


EXAMPLE = {
    name: schema["example"] for name, schema in Car.model_json_schema()["properties"].items()
}
FEATURES = tuple(EXAMPLE)
STRINGS = [FEATURES.index(name) for name in ("brand", "fuel", "body", "trim")]


def fit(X_train, y_train):
    """Fit gradient boosting on the numbers, the boolean and the one-hot encoded strings."""
    encoder = OneHotEncoder(handle_unknown="ignore")
    columns = ColumnTransformer([("strings", encoder, STRINGS)], remainder=SimpleImputer())
    trees = GradientBoostingRegressor(random_state=0)
    estimator = Pipeline([("columns", columns), ("trees", trees)])
    return estimator.fit(X_train.to_numpy(), y_train)
