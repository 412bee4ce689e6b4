"""Parse a JSON body into rows of feature values; serialize predictions to JSON."""

import json
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from typing import Annotated, Any, ClassVar

import bentoml
from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from serving.errors import APIError
from serving.features import feature_schemas, is_nullable, kind_of

Row = tuple[Any, ...]  # the feature values of one record, in the order of the record type
Loc = tuple[str | int, ...]  # where an error is, as in pydantic: (), ("LSTAT",) or (3, "LSTAT")
FieldError = tuple[Loc, str]  # where, and the message

# A response names this many errors at most, and a body may hold this many values, objects or arrays
# more than its records need. pydantic copies each unknown feature into an error for each missing
# one: without these limits 250 kB of nested arrays took 3 s on the event loop.
MAX_ERRORS = 1000
EXTRA_VALUES = 100

# The metrics count errors by these kinds; pydantic has about a hundred types.
ERROR_KINDS = ("json", "type", "value", "missing", "unknown", "repeated", "empty", "too_many")
KIND_BY_TYPE = {
    "json_invalid": "json",
    "missing": "missing",
    "extra_forbidden": "unknown",
    "too_short": "empty",
    "too_long": "too_many",
}

# The messages for a body that is no record, or no array of the allowed length.
BODY_MESSAGES = {
    "model_type": "Send one record, as a JSON object",
    "list_type": "Send records, as a JSON array",
    "too_short": "Send at least {min_length} record",
    "too_long": "Send at most {max_length} records, not {actual_length}",
}


class WhatIfRow(tuple[Any, ...]):
    """A row of a request with the header X-What-If: it is predicted, but is no traffic."""


class RequestBody(bentoml.IODescriptor):
    """The body of a prediction request: a record or, with `max_records`, an array of records."""

    record_type: ClassVar[type[BaseModel]]
    max_records: ClassVar[int | None] = None
    adapter: ClassVar[TypeAdapter[Any]]  # validates the body
    n_features: ClassVar[int]
    has_integers: ClassVar[bool]
    nullable: ClassVar[set[str]]  # names of the features that may be null
    max_values: ClassVar[int]  # in a valid body

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Derive the validator from the record type."""
        super().__pydantic_init_subclass__(**kwargs)
        body_type: Any = cls.record_type
        if cls.max_records:
            length = Field(min_length=1, max_length=cls.max_records)
            body_type = Annotated[list[body_type], length]
        cls.adapter = TypeAdapter(body_type)
        cls.n_features = len(cls.record_type.model_fields)
        schemas = feature_schemas(cls.record_type)
        cls.has_integers = any(kind_of(schema) == "integer" for schema in schemas.values())
        cls.nullable = {name for name, schema in schemas.items() if is_nullable(schema)}
        cls.max_values = cls.n_features * (cls.max_records or 1)

    @classmethod
    def parse(cls, body: bytes) -> list[Row]:
        """Return one row for each record of the body; raise APIError (400) naming each error."""
        body = body.removeprefix(BOM_UTF8)  # editors on Windows write one
        if cls.has_too_many_values(body):
            too_many = f"Send at most {cls.max_values} values; the body has many more"
            raise APIError(400, too_many, kinds=["too_many"])
        try:
            value = cls.validate(body)
        except ValidationError as error:
            if body.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) or b"\0" in body[:2]:
                raise APIError(400, "Send the JSON in UTF-8", kinds=["json"]) from None
            message = error_message(error.error_count(), field_errors(error, cls.nullable))
            raise APIError(400, message, kinds=error_kinds(error)) from None
        records = value if cls.max_records else [value]
        # pydantic accepts a repeated feature and keeps its last value. Each feature has one colon:
        # if there are others, look for repeated features.
        n_colons = cls.n_features * len(records)
        if body.count(b":") != n_colons and (repeated := list(repeated_features(body))):
            raise APIError(400, error_message(len(repeated), repeated), kinds=["repeated"])
        return [to_row(record) for record in records]

    @classmethod
    def has_too_many_values(cls, body: bytes) -> bool:
        """Tell whether a body has many more commas, objects and arrays than valid records have."""
        max_commas = cls.max_values + EXTRA_VALUES
        max_containers = (cls.max_records or 1) + EXTRA_VALUES
        # Most of these are outside of strings. The others are excluded only if there are too many.
        return (body.count(b",") > max_commas and count_unquoted(body, b",") > max_commas) or (
            body.count(b"[") + body.count(b"{") > max_containers
            and count_unquoted(body, b"[") + count_unquoted(body, b"{") > max_containers
        )

    @classmethod
    def validate(cls, body: bytes) -> Any:
        """Return the validated body; raise ValidationError.

        An integer may be written as 110.0: pandas writes those of a column with a gap like this.
        """
        try:
            return cls.adapter.validate_json(body)
        except ValidationError as error:
            locs = list(whole_number_locs(error)) if cls.has_integers else []
            if not locs:
                raise
            try:
                body = with_integers(body, locs)
            except (LookupError, TypeError, ValueError):  # a validator has changed names or values
                raise error from None
            return cls.adapter.validate_json(body)

    @classmethod
    def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the schema of the body, for the API description and BentoML's clients."""
        # BentoML's clients read `root_input`: the only argument is the body itself.
        schema = cls.adapter.json_schema(*args, **kwargs)
        return {**schema, "description": cls.__doc__, "root_input": True}


class Prediction(bentoml.IODescriptor):
    """The prediction for one record."""

    prediction: float

    @classmethod
    def to_json(cls, predictions: list[float]) -> bytes:
        """Serialize the only prediction, which is finite."""
        return b'{"prediction": %b}' % to_json(predictions[0])


class Predictions(bentoml.IODescriptor):
    """A prediction for each record, in the order of the records."""

    predictions: list[float]

    @classmethod
    def to_json(cls, predictions: list[float]) -> bytes:
        """Serialize the predictions, which are finite."""
        return b'{"predictions": %b}' % to_json(predictions)


def count_unquoted(body: bytes, character: bytes) -> int:
    """Count a character of a JSON text outside its strings."""
    unescaped = body.replace(rb"\\", b"").replace(rb"\"", b"")
    return b"".join(unescaped.split(b'"')[::2]).count(character)


def to_row(record: BaseModel) -> Row:
    """Return the values of a record; pydantic keeps them in the order of declaration."""
    return tuple(record.__dict__.values())


def error_message(count: int, errors: Iterable[FieldError]) -> str | dict[str, str]:
    """Return the one message for the whole body, or a message for each field."""
    if count > MAX_ERRORS:
        return f"{count} faults are too many to name: is this the right body?"
    messages = {}
    # Unknown names are truncated, so that two of them may become equal.
    for (loc, message), times in Counter(errors).items():
        if not loc:
            return message
        messages[".".join(map(str, loc))] = message if times == 1 else f"{message} ({times} times)"
    return messages


def whole_number_locs(error: ValidationError) -> Iterator[Loc]:
    """Yield the location of each integer that is written as 110.0."""
    for details in error.errors(include_url=False, include_context=False):
        value = details["input"]
        if details["type"] == "int_type" and isinstance(value, float) and value.is_integer():
            yield details["loc"]


def with_integers(body: bytes, locs: Iterable[Loc]) -> bytes:
    """Return a JSON text with integers at some locations in place of floats."""
    value = from_json(body)
    for *parents, last in locs:
        container = value
        for key in parents:
            container = container[key]
        container[last] = int(container[last])
    return to_json(value)


def field_errors(
    error: ValidationError, nullable: Collection[str], null: str = "null"
) -> Iterator[FieldError]:
    """Yield the location and the message of each error that pydantic found.

    `nullable`: the names of the features that may be null; `null`: how it is written.
    """
    for details in error.errors(include_url=False):
        loc, kind, message = details["loc"], details["type"], details["msg"]
        name = str(loc[-1]) if loc else "The body"
        if loc and isinstance(loc[-1], int):
            name = f"Record {name}"
        if not loc and kind in BODY_MESSAGES:
            message = BODY_MESSAGES[kind].format_map(details.get("ctx", {}))
        elif kind == "missing":
            message = f"No {name} provided"
        elif kind == "extra_forbidden":
            name = truncate(name)
            loc, message = (*loc[:-1], name), f"There is no feature {name}"
        elif message.startswith(("Input", "String")):
            value = truncate(json.dumps(details["input"], default=str, ensure_ascii=False))
            message = f"{name} {message.partition(' ')[2]}"
            if name in nullable and is_type_error(kind):
                message = f"{message.removesuffix(' or None')} or {null}"
            message = f"{message}, got {value}"
        yield loc, message


def is_type_error(kind: str) -> bool:
    """Tell whether an error of pydantic says which type or which values are legal."""
    return kind.endswith("_type") or kind in ("literal_error", "enum")


def error_kinds(error: ValidationError) -> set[str]:
    """Return the kinds of the errors that pydantic found, for the metrics."""
    if error.error_count() > MAX_ERRORS:
        return {"too_many"}
    errors = error.errors(include_url=False, include_context=False, include_input=False)
    types = {details["type"] for details in errors}
    return {KIND_BY_TYPE.get(name, "type" if name.endswith("_type") else "value") for name in types}


def repeated_features(body: bytes) -> Iterator[FieldError]:
    """Yield an error for each feature that occurs repeatedly in a record of a valid body."""
    value = json.loads(body, object_pairs_hook=lambda pairs: Counter(name for name, _ in pairs))
    records = enumerate(value) if isinstance(value, list) else [(None, value)]
    for number, names in records:
        for name, times in names.items():
            if times > 1:
                loc = (name,) if number is None else (number, name)
                yield loc, f"{name} is given {times} times"


def truncate(text: str) -> str:
    """Cut a text to 40 characters, for a message."""
    return text if len(text) <= 40 else f"{text[:37]}..."
