"""Records in, predictions out: a JSON body becomes rows of feature values, or is refused."""

import json
from collections.abc import Iterator
from typing import Any, ClassVar

import bentoml
from pydantic import BaseModel, TypeAdapter, ValidationError

from serving.refusal import Refusal

Row = tuple[Any, ...]
Place = tuple[str | int, ...]

# The most faults that an answer names, and the most values beyond those of its records that a body
# may hold: pydantic copies an unknown feature into an error for each missing one, which took 2 s on
# the event loop for 1 MiB of empty arrays.
MAX_FAULTS = 1000
SLACK = 100


class Records(bentoml.IODescriptor):
    """The body of a prediction request: a record, or an array of records."""

    body: ClassVar[TypeAdapter[Any]]
    most_values: ClassVar[int]

    @classmethod
    def rows(cls, body: bytes) -> list[Row]:
        """Return a row for each record of the body; raise `Refusal` (400) naming the faults."""
        if body.count(b",") > cls.most_values + SLACK:
            raise Refusal(400, f"Send at most {cls.most_values} values; the body has many more")
        try:
            records = cls.body.validate_json(body)
        except ValidationError as error:
            raise Refusal(400, explain(error)) from None
        return [row(record) for record in (records if isinstance(records, list) else [records])]

    @classmethod
    def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the schema of the body, for the API description and BentoML's clients."""
        # `root_input` tells the clients that the one argument is the body.
        schema = cls.body.json_schema(*args, **kwargs)
        return {**schema, "description": cls.__doc__, "root_input": True}


class Prediction(bentoml.IODescriptor):
    """The prediction for one record."""

    prediction: float

    @classmethod
    def render(cls, predictions: list[float]) -> bytes:
        """Return the JSON of the one prediction; raise ValueError if it is not finite."""
        return json.dumps({"prediction": predictions[0]}, allow_nan=False).encode()


class Predictions(bentoml.IODescriptor):
    """A prediction for each record, in the order of the records."""

    predictions: list[float]

    @classmethod
    def render(cls, predictions: list[float]) -> bytes:
        """Return the JSON of all predictions; raise ValueError if one is not finite."""
        return json.dumps({"predictions": predictions}, allow_nan=False).encode()


def row(record: BaseModel) -> Row:
    """Return a record's values, which pydantic keeps in the order of their declaration."""
    return tuple(vars(record).values())


def explain(error: ValidationError) -> str | dict[str, str]:
    """Say what is wrong with the body as a whole, or with each field at fault."""
    if error.error_count() > MAX_FAULTS:
        return f"{error.error_count()} faults are too many to name: is this the right body?"
    named = dict(faults(error))
    return named.get(()) or {
        ".".join(shorten(str(part)) for part in place): reason for place, reason in named.items()
    }


def faults(error: ValidationError) -> Iterator[tuple[Place, str]]:
    """Yield the place of each fault, such as (3, "LSTAT") or (), and the reason."""
    for fault in error.errors(include_url=False):
        place, kind, reason = fault["loc"], fault["type"], fault["msg"]
        name = shorten(str(place[-1])) if place else "The body"
        if place and isinstance(place[-1], int):
            name = f"Record {name}"
        if kind == "missing":
            reason = f"No {name} provided"
        elif kind == "extra_forbidden":
            reason = f"There is no feature {name}"
        elif reason.startswith("Input"):
            got = shorten(json.dumps(fault["input"], default=str))
            reason = f"{reason.replace('Input', name, 1)}, got {got}"
        yield place, reason


def shorten(text: str) -> str:
    """Cut a text to the length of a message."""
    return text if len(text) <= 40 else f"{text[:37]}..."
