"""The API description: what BentoML generates, put right where it does not tell the truth."""

from collections.abc import Iterable
from typing import Any

import yaml
from pydantic import BaseModel, Field
from pydantic.json_schema import models_json_schema

from serving.keys import OPEN
from serving.model import ModelCard


class Error(BaseModel):
    """The body of every error."""

    message: str | dict[str, str] = Field(
        description="What to do; for invalid records, the reason for each field at fault"
    )


ERRORS = {
    "400": "The body is not JSON, or a record in it is invalid",
    "408": "The request did not arrive in time: send it again",
    "413": "The body is too large",
    "415": "The body is not announced as application/json",
    "429": "Too many predictions at once: try again after Retry-After seconds",
    "431": "The headers are too large",
    "500": "A fault of the service: report it with the request ID",
    "503": "Too many predictions are waiting: try again after Retry-After seconds",
    "504": "No prediction in time: try again",
}
FOREIGN = ("InvalidArgument", "NotFound", "InternalServerError", "TaskStatusResponse")
TAG_HEADER = {"description": "The model that predicted", "schema": {"type": "string"}}
REF = "#/components/schemas/{model}"


def corrected(
    spec: dict[str, Any], routes: Iterable[str], description: str, with_keys: bool
) -> "Description":
    """Return an OpenAPI document with the errors, the model tag and the schemas that are sent.

    BentoML describes errors of its own, no mounted route, and as OpenAPI 3.0.2 what pydantic gave
    it: JSON schemas as in 3.1.
    """
    spec["openapi"] = "3.1.0"
    info = spec["info"]
    version = info["version"] if info["version"] != "None" else "development"
    spec["info"] = {"title": info["title"], "version": version, "description": description}
    for route in routes:
        operation = spec["paths"][route]["post"]
        success = {**operation["responses"][200], "headers": {"X-Model-Tag": TAG_HEADER}}
        errors = {status: answer(reason, Error) for status, reason in ERRORS.items()}
        operation["responses"] = {"200": success, **errors}
    show = {"summary": "The served model", "responses": {"200": answer("The model", ModelCard)}}
    spec["paths"]["/model"] = {"get": {"operationId": "model", **show}}
    schemas = spec["components"]["schemas"]
    for name in FOREIGN:
        del schemas[name]
    pairs = [(Error, "serialization"), (ModelCard, "serialization")]
    schemas |= models_json_schema(pairs, ref_template=REF)[1]["$defs"]
    if with_keys:
        add_keys(spec)
    return Description(spec)


def add_keys(spec: dict[str, Any]) -> None:
    """Tell of the API key that all operations but the probes need."""
    spec["components"]["securitySchemes"] = {"ApiKey": {"type": "http", "scheme": "bearer"}}
    for path in spec["paths"].keys() - OPEN:
        for operation in spec["paths"][path].values():
            operation["security"] = [{"ApiKey": []}]
            operation["responses"]["401"] = answer("The API key is missing or unknown", Error)


def answer(description: str, model: type[BaseModel]) -> dict[str, Any]:
    """Describe an answer whose body is the JSON of a pydantic model."""
    schema = {"$ref": REF.format(model=model.__name__)}
    return {"description": description, "content": {"application/json": {"schema": schema}}}


class Description(dict[str, Any]):
    """An OpenAPI document as plain data, for where BentoML expects its own class."""

    def asdict(self) -> dict[str, Any]:
        """Return the document, as the /docs.json view asks for it."""
        return dict(self)


# `bentoml build` writes the document into the Bento with `yaml.dump`.
yaml.add_representer(Description, yaml.representer.SafeRepresenter.represent_dict)
