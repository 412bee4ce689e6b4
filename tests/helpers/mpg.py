"""A table with missing values, integers, texts and a name that needs an alias, and its record type.

tests/data/mpg.csv has rows of the cars in Vega's datasets (vega_datasets 0.9.0, BSD 3-Clause), with
more missing values: one origin in 19, and one in 17 of `wagon`, which says whether the name has
"(sw)".
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from sklearn.preprocessing import OrdinalEncoder

from serving.features import REQUIRED_CONFIG, feature_schemas
from tests.helpers.commands import ROOT
from training.data import parse_csv

PATH = ROOT / "tests/data/mpg.csv"
ORDINAL = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)


class CarType(BaseModel):
    """A type of car."""

    model_config = ConfigDict(**REQUIRED_CONFIG)

    name: Annotated[str, Field(max_length=40)]
    origin: Literal["USA", "Europe", "Japan"] | None
    cylinders: Annotated[int, Field(ge=1, le=16)]
    displacement: Annotated[float, Field(ge=0)]
    horsepower: Annotated[int, Field(ge=0, le=1000)] | None
    weight: Annotated[int, Field(ge=0, le=10000)]
    acceleration: float = Field(alias="0-60 mph", ge=0)
    year: Annotated[int, Field(ge=1900, le=2100)]
    wagon: bool | None


class LabelledCarType(CarType):
    """A type of car with its fuel consumption."""

    mpg: float = Field(description="Consumption", json_schema_extra={"unit": "miles per gallon"})


SCHEMAS = feature_schemas(CarType)
ROW = ("amc", "USA", 8, 304.0, 150, 3433, 12.5, 1970, False)


def read_table():
    """Return the table."""
    return parse_csv(PATH.read_text(), LabelledCarType)
