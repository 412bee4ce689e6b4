"""Parse a JSON body into rows of feature values; serialize predictions to JSON."""

from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, ClassVar

import bentoml
from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from serving.errors import APIError
from serving.features import feature_schemas, is_nullable, kind_of
from serving.record_errors import Loc, error_kinds, error_message, field_errors, repeated_features

Row = tuple[Any, ...]  # the feature values of one record, in the order of the record type

# How many more commas, or more opening brackets ([ and {), a body may have than the largest valid
# one; beyond that it is rejected before it is parsed. The reason: for each missing feature,
# pydantic copies the whole record into an error, with the values of unknown features, however
# large. Without this limit, an unknown feature with 250 kB of nested arrays blocked the event loop
# for 3 s.
EXTRA_VALUES = 100


class WhatIfRow(tuple[Any, ...]):
    """A row of a request with the header X-What-If.

    It is predicted in a batch with other rows. By its type, `Batcher` leaves it out of the metrics
    of predictions.
    """


class RequestBody(bentoml.IODescriptor):
    """The body of a prediction request: a record or, with `max_records`, an array of records."""

    record_type: ClassVar[type[BaseModel]]
    max_records: ClassVar[int | None] = None
    # Derived from these two for each subclass:
    adapter: ClassVar[TypeAdapter[Any]]  # validates the body
    n_features: ClassVar[int]
    has_integers: ClassVar[bool]
    nullable: ClassVar[set[str]]  # names of the nullable features
    max_values: ClassVar[int]  # feature values in the largest valid body

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Derive the attributes of a subclass; pydantic calls this, as IODescriptor is a model."""
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
            raise APIError(400, too_many, error_kinds=["too_many"])
        try:
            value = cls.validate(body)
        except ValidationError as error:
            raise validation_error(error, body, cls.nullable) from None
        records = value if cls.max_records else [value]
        # pydantic accepts a repeated feature and keeps its last value. A quick test first: a valid
        # record has one colon per feature, unless a string has others.
        n_colons = cls.n_features * len(records)
        if body.count(b":") != n_colons and (repeated := list(repeated_features(body))):
            message = error_message(len(repeated), repeated)
            raise APIError(400, message, error_kinds=["repeated"])
        return [to_row(record) for record in records]

    @classmethod
    def has_too_many_values(cls, body: bytes) -> bool:
        """Return whether a body has far more values, objects and arrays than valid records have."""
        max_commas = cls.max_values + EXTRA_VALUES
        max_containers = (cls.max_records or 1) + EXTRA_VALUES
        return has_more_unquoted(body, [b","], max_commas) or has_more_unquoted(
            body, [b"[", b"{"], max_containers
        )

    @classmethod
    def validate(cls, body: bytes) -> Any:
        """Return the validated body; raise ValidationError.

        An integer may be written as 110.0, as pandas does in a column with missing values: if
        validation finds such numbers, it is repeated with integers in their place.
        """
        try:
            return cls.adapter.validate_json(body)
        except ValidationError as error:
            locs = list(whole_number_locs(error)) if cls.has_integers else []
            if not locs:
                raise
            try:
                body = with_integers(body, locs)
            # The JSON has no number at that location: a `BeforeValidator` of the record type has
            # made the number from another value.
            except (LookupError, TypeError, ValueError):
                raise error from None
            return cls.adapter.validate_json(body)

    @classmethod
    def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the schema of the body, for BentoML's clients (`/schema.json`)."""
        # `root_input` tells BentoML's clients that their only argument is the whole body.
        schema = cls.adapter.json_schema(*args, **kwargs)
        return {**schema, "description": cls.__doc__, "root_input": True}


class Prediction(bentoml.IODescriptor):
    """The prediction for one record."""

    prediction: float

    @classmethod
    def to_json(cls, predictions: list[float]) -> bytes:
        """Serialize the finite prediction of a single record."""
        return b'{"prediction": %b}' % to_json(predictions[0])


class Predictions(bentoml.IODescriptor):
    """A prediction for each record, in the order of the records."""

    predictions: list[float]

    @classmethod
    def to_json(cls, predictions: list[float]) -> bytes:
        """Serialize finite predictions."""
        return b'{"predictions": %b}' % to_json(predictions)


def validation_error(error: ValidationError, body: bytes, nullable: set[str]) -> APIError:
    """Return the error response for a body that pydantic has rejected."""
    if body.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) or b"\0" in body[:2]:
        return APIError(400, "Send the JSON in UTF-8", error_kinds=["json"])
    message = error_message(error.error_count(), field_errors(error, nullable))
    return APIError(400, message, error_kinds=error_kinds(error))


def has_more_unquoted(body: bytes, characters: list[bytes], limit: int) -> bool:
    """Return whether a JSON text has more than `limit` of some characters outside its strings."""
    if sum(map(body.count, characters)) <= limit:  # a quick test, which counts those in strings
        return False
    unquoted = remove_strings(body)
    return sum(map(unquoted.count, characters)) > limit


def remove_strings(body: bytes) -> bytes:
    """Return a JSON text without its strings."""
    unescaped = body.replace(rb"\\", b"").replace(rb"\"", b"")
    return b"".join(unescaped.split(b'"')[::2])


def to_row(record: BaseModel) -> Row:
    """Return the values of a record; pydantic keeps them in the order of declaration."""
    return tuple(record.__dict__.values())


def whole_number_locs(error: ValidationError) -> Iterator[Loc]:
    """Yield the location of each integer that the body has as a float, such as 110.0."""
    for details in error.errors(include_url=False, include_context=False):
        value = details["input"]
        if details["type"] == "int_type" and isinstance(value, float) and value.is_integer():
            yield details["loc"]


def with_integers(body: bytes, locs: Iterable[Loc]) -> bytes:
    """Return a JSON text with the floats at some locations as integers."""
    value = from_json(body)
    for *parents, last in locs:
        container = value
        for key in parents:
            container = container[key]
        container[last] = int(container[last])
    return to_json(value)
