"""The API description: an OpenAPI document of what is sent, which BentoML's own does not tell."""

from collections.abc import Mapping
from typing import Any

import yaml
from pydantic import BaseModel, Field, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from serving.errors import (
    Busy,
    Refusal,
    head_too_large,
    internal_error,
    not_json,
    shutting_down,
    too_large,
    too_late,
    too_slow,
)
from serving.http.auth import OPEN, WORDS
from serving.model import ModelCard
from serving.settings import Settings

Json = dict[str, Any]

ABOUT = """
Every error is a JSON object with one `message`: for invalid records the reason for each field at
fault, otherwise a sentence that says what to do. Another path is answered with 404, another method
with 405. Every answer names its request in the header `X-Request-ID`.
"""
HEADERS = {
    "X-Request-ID": "The request in the log: the caller's own ID, if it sent one in this header",
    "X-Model-Tag": "The model that predicted",
    "Retry-After": "Seconds to wait before the next try",
    "WWW-Authenticate": "The ways to send an API key",
}
STATE = {
    "/livez": "Is the service alive?",
    "/readyz": "Is it ready to predict?",
    "/metrics": "Metrics for Prometheus",
}
REF = "#/components/schemas/{model}"


class Error(BaseModel):
    """The body of every error."""

    message: str | dict[str, str] = Field(
        description="What to do; for invalid records, the reason for each field at fault"
    )


class Untitled(GenerateJsonSchema):
    """JSON schemas without pydantic's titles: Swagger UI shows them, "Lstat" for LSTAT."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Return False, for every field."""
        return False


class Description(Json):
    """An OpenAPI document as plain data, for where BentoML expects its own class."""

    def asdict(self) -> Json:
        """Return the document, as the /docs.json view asks for it."""
        return dict(self)


# `bentoml build` writes the document into the Bento with `yaml.dump`.
yaml.add_representer(Description, yaml.representer.SafeRepresenter.represent_dict)


def describe(
    title: str, version: str, description: str, apis: Mapping[str, Any], settings: Settings
) -> Description:
    """Return the OpenAPI document of prediction APIs, their model and the state of the service."""
    bodies, schemas = json_schemas(apis)
    paths = {
        api.route: {"post": prediction(api, bodies[name], schemas, settings)}
        for name, api in apis.items()
    }
    card = operation("model", "Model", "Describe the served model", ModelCard)
    paths["/model"] = {"get": card}
    for path, summary in STATE.items():
        paths[path] = {"get": operation(path[1:], "State", summary)}
    components: Json = {"schemas": schemas}
    if settings.keys:
        components["securitySchemes"] = {"ApiKey": {"type": "http", "scheme": "bearer"}}
        require_key(paths)
    return Description(
        openapi="3.1.0",
        info={"title": title, "version": version, "description": f"{description}\n{ABOUT}"},
        servers=[{"url": "."}],
        paths=paths,
        components=components,
    )


def json_schemas(apis: Mapping[str, Any]) -> tuple[dict[str, Json], dict[str, Json]]:
    """Return the schema of each API's body, and those of all models by their names."""
    types = [(name, "validation", api.input_spec.body) for name, api in apis.items()]
    models = [*(api.output_spec for api in apis.values()), ModelCard, Error]
    types += [(model.__name__, "serialization", TypeAdapter(model)) for model in models]
    used, rest = TypeAdapter.json_schemas(types, ref_template=REF, schema_generator=Untitled)
    schemas = rest["$defs"]
    for schema in schemas.values():
        for field in schema.get("properties", {}).values():  # an Enum has none
            if field.get("unit"):  # of which Swagger UI and Postman show nothing
                field["description"] += f" ({field['unit']})"
    return {name: used[name, "validation"] for name in apis}, schemas


def prediction(api: Any, body: Json, schemas: Mapping[str, Json], settings: Settings) -> Json:
    """Describe a prediction API, whose body is a record or an array of records."""
    record = schemas[body.get("items", body)["$ref"].rpartition("/")[2]]
    *_, last = record["properties"]
    missing = {f"3.{last}" if "items" in body else last: f"No {last} provided"}
    described = operation(api.name, "Prediction", api.doc.rstrip("."), api.output_spec)
    described["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    responses = described["responses"]
    responses["200"]["headers"] |= headers("X-Model-Tag")
    invalid = Refusal(400, missing)
    for meaning, refusal in {"No JSON, or an invalid record": invalid, **errors(settings)}.items():
        named = [name for name in refusal.headers if name in HEADERS]
        responses[str(refusal.status)] = error(meaning, refusal.message, *named)
    return described


def errors(settings: Settings) -> dict[str, Refusal]:
    """Return an example of each error that a prediction request may end with, besides 400."""
    return {
        "Too slow": too_slow(settings.request_timeout),
        "Too large": too_large(settings.max_body_bytes),
        "Not announced as JSON": not_json(),
        "Too busy": Busy(),
        "Headers too large": head_too_large(),
        "Our fault": internal_error("1f0c7c4b"),
        "Shutting down": shutting_down(),
        "Too late": too_late(settings.request_timeout),
    }


def operation(name: str, tag: str, summary: str, model: type[BaseModel] | None = None) -> Json:
    """Describe an operation that answers with the JSON of a model, or with plain text."""
    success = {"description": "Success", "headers": headers("X-Request-ID")}
    if model:
        success["content"] = content(model)
    described = {"operationId": name, "tags": [tag], "summary": summary}
    return {**described, "responses": {"200": success}}


def require_key(paths: Mapping[str, Mapping[str, Json]]) -> None:
    """Tell of the API key that all operations but the probes need."""
    for path in paths.keys() - OPEN:
        for described in paths[path].values():
            described["security"] = [{"ApiKey": []}]
            described["responses"]["401"] = error("No valid API key", WORDS, "WWW-Authenticate")


def error(meaning: str, message: str | dict[str, str], *named: str) -> Json:
    """Describe an error, with the message of an example and the headers to look at."""
    body = content(Error, example={"message": message})
    described = headers("X-Request-ID", *named)
    return {"description": meaning, "headers": described, "content": body}


def content(model: type[BaseModel], **more: Any) -> Json:
    """Describe a body that is the JSON of a model."""
    return {"application/json": {"schema": {"$ref": REF.format(model=model.__name__)}, **more}}


def headers(*names: str) -> Json:
    """Describe headers of an answer."""
    return {name: {"description": HEADERS[name], "schema": {"type": "string"}} for name in names}
