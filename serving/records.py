"""Records in, predictions out: a JSON body becomes rows of feature values, or is refused."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

import bentoml
from pydantic import BaseModel, TypeAdapter, ValidationError

from serving.errors import Refusal

Row = tuple[Any, ...]
Place = tuple[str | int, ...]
Fault = tuple[Place, str]

# The most faults that an answer names, and the most values beyond those of its records that a body
# may hold: pydantic copies an unknown feature into an error for each missing one, which took 2 s on
# the event loop for 1 MiB of empty arrays.
MAX_FAULTS = 1000
SLACK = 100

# What the metrics tell apart of pydantic's errors, of which there are a hundred.
FAULT_KINDS = ("json", "type", "value", "missing", "unknown", "repeated", "empty", "too_many")
KIND_OF_ERROR = {
    "json_invalid": "json",
    "missing": "missing",
    "extra_forbidden": "unknown",
    "too_short": "empty",
    "too_long": "too_many",
}

# What to do about a body that is no record, or no array of 1 to so many.
WHOLE = {
    "model_type": "Send one record, as a JSON object",
    "list_type": "Send records, as a JSON array",
    "too_short": "Send at least {min_length} record",
    "too_long": "Send at most {max_length} records, not {actual_length}",
}


class Records(bentoml.IODescriptor):
    """The body of a prediction request: a record, or an array of records."""

    body: ClassVar[TypeAdapter[Any]]
    most_values: ClassVar[int]

    @classmethod
    def rows(cls, body: bytes) -> list[Row]:
        """Return a row for each record of the body; raise `Refusal` (400) naming the faults."""
        most = cls.most_values + SLACK
        # A comma parts two values, or is in a string: if there are too many, look closer.
        if body.count(b",") > most and commas(body) > most:
            words = f"Send at most {cls.most_values} values; the body has many more"
            raise Refusal(400, words, faults=["too_many"])
        try:
            value = cls.body.validate_json(body)
        except ValidationError as error:
            words = explain(error.error_count(), faults(error))
            raise Refusal(400, words, faults=kinds(error)) from None
        records = value if isinstance(value, list) else [value]
        # Of a feature given twice pydantic takes the last. Each one given has a colon: if there are
        # as many colons as features, none is given twice; if there are more, look closer.
        given = sum(len(record.model_fields_set) for record in records)
        if body.count(b":") != given and (repeated := list(repetitions(body))):
            raise Refusal(400, explain(len(repeated), repeated), faults=["repeated"])
        return [row(record) for record in records]

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


def commas(body: bytes) -> int:
    """Count the commas between the values of a body, which are those outside of its strings."""
    unescaped = body.replace(rb"\\", b"").replace(rb"\"", b"")
    return b"".join(unescaped.split(b'"')[::2]).count(b",")


def row(record: BaseModel) -> Row:
    """Return a record's values, which pydantic keeps in the order of their declaration."""
    return tuple(vars(record).values())


def explain(count: int, found: Iterable[Fault]) -> str | dict[str, str]:
    """Say what is wrong with the body as a whole, or with each field at fault."""
    if count > MAX_FAULTS:
        return f"{count} faults are too many to name: is this the right body?"
    told = {}
    # Names that differ may be cut to the same.
    for (place, reason), times in Counter(found).items():
        if not place:
            return reason
        told[".".join(map(str, place))] = reason if times == 1 else f"{reason} ({times} times)"
    return told


def faults(error: ValidationError) -> Iterator[Fault]:
    """Yield the place of each fault, such as (3, "LSTAT") or (), and the reason."""
    for fault in error.errors(include_url=False):
        place, kind, reason = fault["loc"], fault["type"], fault["msg"]
        name = str(place[-1]) if place else "The body"
        if place and isinstance(place[-1], int):
            name = f"Record {name}"
        if not place and kind in WHOLE:
            reason = WHOLE[kind].format_map(fault.get("ctx", {}))
        elif kind == "missing":
            reason = f"No {name} provided"
        elif kind == "extra_forbidden":
            name = shorten(name)
            place, reason = (*place[:-1], name), f"There is no feature {name}"
        elif reason.startswith("Input"):
            got = shorten(json.dumps(fault["input"], default=str))
            reason = f"{reason.replace('Input', name, 1)}, got {got}"
        yield place, reason


def kinds(error: ValidationError) -> set[str]:
    """Return the kinds of the faults, each once."""
    if error.error_count() > MAX_FAULTS:
        return {"too_many"}
    found = error.errors(include_url=False, include_context=False, include_input=False)
    types = {fault["type"] for fault in found}
    return {
        KIND_OF_ERROR.get(name, "type" if name.endswith("_type") else "value") for name in types
    }


def repetitions(body: bytes) -> Iterator[Fault]:
    """Yield, as `faults` does, each feature that a record of a valid body gives repeatedly."""
    value = json.loads(body, object_pairs_hook=lambda pairs: Counter(name for name, _ in pairs))
    records = enumerate(value) if isinstance(value, list) else [(None, value)]
    for number, names in records:
        for name, times in names.items():
            if times > 1:
                place = (name,) if number is None else (number, name)
                yield place, f"{name} is given {times} times"


def shorten(text: str) -> str:
    """Cut a text to the length of a message."""
    return text if len(text) <= 40 else f"{text[:37]}..."
