"""Records in, predictions out: a JSON body becomes rows of feature values, or is refused."""

import json
from collections.abc import Iterator
from typing import Any, ClassVar

import bentoml
from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from serving.refusal import Refusal

Row = tuple[Any, ...]

# Beyond these the faults are counted, not named: a body of 1 MiB can hold 100,000.
MAX_FAULTS = 1000


class Records(bentoml.IODescriptor):
    """The body of a prediction request, handed to BentoML's dispatcher as a list of rows.

    `body` is the type of the body: a record type, or a list of it.
    """

    # Makes BentoML pass on what `from_http_request` returns, instead of a model's fields.
    __root_input__ = True

    body: ClassVar[TypeAdapter[Any]]

    @classmethod
    async def from_http_request(cls, request: Request, serde: Any) -> list[Row]:
        """Return a row for each record of the body; raise `Refusal` (400) naming every fault."""
        try:
            records = cls.body.validate_json(await request.body())
        except ValidationError as error:
            raise Refusal(400, explain(error)) from None
        return [row(record) for record in (records if isinstance(records, list) else [records])]

    @classmethod
    def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the schema of the body, for the API description and BentoML's clients."""
        schema = cls.body.json_schema(*args, **kwargs)
        return {**schema, "description": cls.__doc__, "root_input": True}


class Prediction(bentoml.IODescriptor):
    """The prediction for one record."""

    prediction: float

    @classmethod
    async def to_http_response(cls, predictions: list[float], serde: Any) -> Response:
        """Write the one prediction of a request."""
        return answer({"prediction": predictions[0]})


class Predictions(bentoml.IODescriptor):
    """A prediction for each record, in the order of the records."""

    predictions: list[float]

    @classmethod
    async def to_http_response(cls, predictions: list[float], serde: Any) -> Response:
        """Write all the predictions of a request."""
        return answer({"predictions": predictions})


def answer(predictions: dict[str, Any]) -> Response:
    """Return predictions as JSON, naming the model; raise ValueError if one is not finite."""
    tag = str(bentoml.get_current_service().model.tag)
    body = json.dumps(predictions, allow_nan=False)
    return Response(body, media_type="application/json", headers={"X-Model-Tag": tag})


def row(record: BaseModel) -> Row:
    """Return a record's values, which pydantic keeps in the order of their declaration."""
    return tuple(vars(record).values())


def explain(error: ValidationError) -> str | dict[str, str]:
    """Say what is wrong with the body as a whole, or with each field at fault."""
    if error.error_count() > MAX_FAULTS:
        return f"{error.error_count()} faults are too many to name: is this the right body?"
    named = dict(faults(error))
    return named.get("", named)


def faults(error: ValidationError) -> Iterator[tuple[str, str]]:
    """Yield the place of each fault, such as LSTAT, 3.LSTAT or nothing, and the reason."""
    for fault in error.errors(include_url=False):
        place, kind, message = fault["loc"], fault["type"], fault["msg"]
        name = place[-1] if place else "The body"
        if isinstance(name, int):
            name = f"Record {name}"
        if kind == "missing":
            message = f"No {name} provided"
        elif kind == "extra_forbidden":
            message = f"There is no feature {quote(name)}"
        elif message.startswith("Input"):
            message = f"{message.replace('Input', name, 1)}, got {quote(fault['input'])}"
        yield ".".join(map(str, place)), message


def quote(value: Any) -> str:
    """Return a value as JSON, cut to the length of a message."""
    text = json.dumps(value, default=str)
    return text if len(text) <= 40 else f"{text[:37]}..."
