"""The OpenAPI document of the service: every response as it is sent, errors included."""

from collections.abc import Mapping
from typing import Any

import yaml
from pydantic import BaseModel, Field, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from serving.errors import (
    APIError,
    TooManyRequests,
    UnpredictableError,
    body_too_large,
    head_too_large,
    internal_error,
    not_json,
    prediction_timeout,
    request_timeout,
    shutting_down,
)
from serving.http.auth import MESSAGE, PUBLIC_PATHS
from serving.http.model_card import ModelCard
from serving.settings import Settings

Json = dict[str, Any]

REQUESTS_DESCRIPTION = """
A prediction request with the header `X-What-If: true` is answered like any other, but its records
are left out of the prediction log and of the metrics of predictions and features.

Every error is a JSON object with one `message`: for invalid records the reason for each field at
fault, for an array with records that the model can't predict the reason for each, by its number,
otherwise a sentence that says what to do. Another path is answered with 404, another method with
405. Every answer names its request in the header `X-Request-ID`.
"""
HEADER_DESCRIPTIONS = {
    "X-Request-ID": "The request in the log: the caller's own ID, if it sent one in this header",
    "X-Model-Tag": "The model that predicted",
    "Retry-After": "Seconds to wait before the next try",
    "WWW-Authenticate": "The ways to send an API key",
}
OPERATIONAL_PATHS = {
    "/livez": "Is the service alive?",
    "/readyz": "Is it ready to predict?",
    "/metrics": "Metrics for Prometheus",
}
NUMBER_FORMATS = {"number": "double", "integer": "int64"}
SCHEMA_REF = "#/components/schemas/{model}"


class Error(BaseModel):
    """The body of every error."""

    message: str | dict[str, str] = Field(
        description="What to do; for invalid records, the reason for each field at fault; for an "
        "array with records that the model can't predict, the reason for each, by its number"
    )


class UntitledJsonSchema(GenerateJsonSchema):
    """Generates JSON schemas without titles; Swagger UI would show "Lstat" for LSTAT."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Return False, for every field."""
        return False


class OpenAPIDocument(Json):
    """An OpenAPI document as plain data, where BentoML expects a class of its own."""

    def asdict(self) -> Json:
        """Return the document; BentoML's code calls this."""
        return dict(self)


# `bentoml build` writes the document into the Bento with `yaml.dump`.
yaml.add_representer(OpenAPIDocument, yaml.representer.SafeRepresenter.represent_dict)


def openapi_document(
    title: str, version: str, description: str, apis: Mapping[str, Any], settings: Settings
) -> OpenAPIDocument:
    """Return the OpenAPI document of prediction APIs, `/model` and the operational paths."""
    bodies, schemas = json_schemas(apis)
    for body in bodies.values():
        set_default_record(record_schema(body, schemas))
    paths = {
        api.route: {"post": prediction_operation(api, bodies[name], schemas, settings)}
        for name, api in apis.items()
    }
    card = operation("model", "Model", "Describe the served model", ModelCard)
    paths["/model"] = {"get": card}
    for path, summary in OPERATIONAL_PATHS.items():
        paths[path] = {"get": operation(path[1:], "State", summary)}
    components: Json = {"schemas": schemas}
    if settings.keys:
        components["securitySchemes"] = {"ApiKey": {"type": "http", "scheme": "bearer"}}
        require_key(paths)
    return OpenAPIDocument(
        openapi="3.1.0",
        info={
            "title": title,
            "version": version,
            "description": f"{description}\n{REQUESTS_DESCRIPTION}",
        },
        servers=[{"url": "."}],
        paths=paths,
        components=components,
    )


def json_schemas(apis: Mapping[str, Any]) -> tuple[dict[str, Json], dict[str, Json]]:
    """Return the schema of each API's body, and those of all models by their names."""
    types: list[Any] = [(name, "validation", api.input_spec.adapter) for name, api in apis.items()]
    models = [*(api.output_spec for api in apis.values()), ModelCard, Error]
    types += [(model.__name__, "serialization", TypeAdapter(model)) for model in models]
    used, rest = TypeAdapter.json_schemas(
        types, ref_template=SCHEMA_REF, schema_generator=UntitledJsonSchema
    )
    schemas = rest["$defs"]
    add_formats(schemas)
    for schema in schemas.values():
        for field in schema.get("properties", {}).values():  # an Enum has no properties
            if field.get("unit"):  # Swagger UI and Postman do not show it
                field["description"] += f" ({field['unit']})"
    return {name: used[name, "validation"] for name in apis}, schemas


def add_formats(schema: Any) -> None:
    """Add the format of each number to schemas.

    Generated clients in Go take a number without a format for one of 32 bits.
    """
    if isinstance(schema, list):
        for each in schema:
            add_formats(each)
    elif isinstance(schema, dict):
        if isinstance(kind := schema.get("type"), str) and kind in NUMBER_FORMATS:
            schema["format"] = NUMBER_FORMATS[kind]
        for each in schema.values():
            add_formats(each)


def record_schema(body: Json, schemas: Mapping[str, Json]) -> Json:
    """Return the schema of a record, of which the body is one or an array."""
    return schemas[body.get("items", body)["$ref"].rpartition("/")[2]]


def set_default_record(record: Json) -> None:
    """Make the record of all examples the default; do nothing if a feature has no example.

    Postman's converter fills in bodies by the schema unless told otherwise, and then reads no
    example, only `default`. A feature must not get one: generated clients would make it optional.
    """
    features = record["properties"]
    if all("example" in feature for feature in features.values()):
        record["default"] = {name: feature["example"] for name, feature in features.items()}


def prediction_operation(
    api: Any, body: Json, schemas: Mapping[str, Json], settings: Settings
) -> Json:
    """Describe a prediction API, whose body is a record or an array of records."""
    *_, last = record_schema(body, schemas)["properties"]
    is_array = "items" in body
    missing = {f"3.{last}" if is_array else last: f"No {last} provided"}
    described = operation(api.name, "Prediction", api.doc.rstrip("."), api.output_spec)
    described["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    responses = described["responses"]
    responses["200"]["headers"] |= headers("X-Model-Tag")
    invalid = APIError(400, missing)
    examples = {"No JSON, or an invalid record": invalid, **error_examples(settings, is_array)}
    for meaning, error in examples.items():
        names = [name for name in error.headers if name in HEADER_DESCRIPTIONS]
        responses[str(error.status)] = error_response(meaning, error.message, *names)
    return described


def error_examples(settings: Settings, is_array: bool) -> dict[str, APIError]:
    """Return an example of each error of a prediction request, besides 400, by its meaning."""
    return {
        "Too slow": request_timeout(settings.request_timeout),
        "Too large": body_too_large(settings.max_body_bytes),
        "Not announced as JSON": not_json(),
        "A valid record that the model can't predict": UnpredictableError(
            [3] if is_array else None, are_all=True, reason=ArithmeticError()
        ),
        "Too busy": TooManyRequests(),
        "Headers too large": head_too_large(),
        "Our fault": internal_error("1f0c7c4b"),
        "Shutting down": shutting_down(),
        "Too late": prediction_timeout(settings.request_timeout),
    }


def operation(name: str, tag: str, summary: str, model: type[BaseModel] | None = None) -> Json:
    """Describe an operation whose response is the JSON of a model, or plain text."""
    success = {"description": "Success", "headers": headers("X-Request-ID")}
    if model:
        success["content"] = json_content(model)
    described = {"operationId": name, "tags": [tag], "summary": summary}
    return {**described, "responses": {"200": success}}


def require_key(paths: Mapping[str, Mapping[str, Json]]) -> None:
    """Add the API key, and the error without one, to all operations but the probes."""
    for path in paths.keys() - PUBLIC_PATHS:
        for described in paths[path].values():
            described["security"] = [{"ApiKey": []}]
            described["responses"]["401"] = error_response(
                "No valid API key", MESSAGE, "WWW-Authenticate"
            )


def error_response(meaning: str, message: str | dict[str, str], *header_names: str) -> Json:
    """Describe an error response, with an example of its message."""
    content = json_content(Error, example={"message": message})
    described = headers("X-Request-ID", *header_names)
    return {"description": meaning, "headers": described, "content": content}


def json_content(model: type[BaseModel], **more: Any) -> Json:
    """Describe a body that is the JSON of a model."""
    return {
        "application/json": {"schema": {"$ref": SCHEMA_REF.format(model=model.__name__)}, **more}
    }


def headers(*names: str) -> Json:
    """Describe headers of a response."""
    return {
        name: {"description": HEADER_DESCRIPTIONS[name], "schema": {"type": "string"}}
        for name in names
    }
