"""The OpenAPI document of the service, with an example of each error of a prediction."""

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
    prediction_timeout_error,
    request_timeout_error,
    shutting_down,
)
from serving.http.auth import INVALID_KEY_MESSAGE, PUBLIC_PATHS
from serving.http.model_card import ModelCard
from serving.settings import Settings

Json = dict[str, Any]

REQUESTS_DESCRIPTION = """
A prediction request with the header `X-What-If: true` gets the same response as any other, but its
records are left out of the prediction log and of the metrics of predictions and features.

Every error is a JSON object with one `message`. For invalid records, the message is an object with
a reason for each invalid field; for an array with records that the model can't predict, an object
with a reason for each such record, by its number. Otherwise, and if there are too many reasons to
list, it is a sentence that says what to do. An unknown path gets 404, and a wrong method 405. Every
response has a request ID in the header `X-Request-ID`, except the response to an accepted CORS
preflight.
"""
HEADER_DESCRIPTIONS = {
    "X-Request-ID": "The ID of the request in the log: the value that the caller sent in this "
    "header, otherwise a random one",
    "X-Model-Tag": "The tag of the model that predicted",
    "Retry-After": "Seconds to wait before the next attempt",
    "WWW-Authenticate": "The authentication schemes",
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
        description="What to do. For invalid records: the reason for each invalid field. For an "
        "array with records that the model can't predict: the reason for each, by record number"
    )


class UntitledJsonSchema(GenerateJsonSchema):
    """Generates JSON schemas without titles; Swagger UI would show "Lstat" for LSTAT."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Return False, for every field."""
        return False


class OpenAPIDocument(Json):
    """An OpenAPI document as plain data, in place of an object of BentoML's class."""

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
    model_summary = "Describe the served model"
    paths["/model"] = {"get": operation("model", "Model", model_summary, response_model=ModelCard)}
    for path, summary in OPERATIONAL_PATHS.items():
        operation_id = path.removeprefix("/")
        paths[path] = {"get": operation(operation_id, "State", summary)}
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
    """Return the schemas of bodies by API name, and those of pydantic models by class name."""
    types: list[Any] = [(name, "validation", api.input_spec.adapter) for name, api in apis.items()]
    models = [*(api.output_spec for api in apis.values()), ModelCard, Error]
    types += [(model.__name__, "serialization", TypeAdapter(model)) for model in models]
    schemas_by_type, definitions = TypeAdapter.json_schemas(
        types, ref_template=SCHEMA_REF, schema_generator=UntitledJsonSchema
    )
    schemas = definitions["$defs"]
    add_formats(schemas)
    add_units(schemas)
    return {name: schemas_by_type[name, "validation"] for name in apis}, schemas


def add_units(schemas: Mapping[str, Json]) -> None:
    """Append the unit of each field to its description: Swagger UI and Postman show no `unit`."""
    for schema in schemas.values():
        for field in schema.get("properties", {}).values():  # an Enum has no properties
            if field.get("unit"):
                description = f"{field.get('description', '')} ({field['unit']})"
                field["description"] = description.lstrip()


def add_formats(schema: Any) -> None:
    """Add the format of each number to schemas.

    Generated clients in Go treat a number without a format as float32.
    """
    if isinstance(schema, list):
        for each in schema:
            add_formats(each)
    elif isinstance(schema, dict):
        if isinstance(json_type := schema.get("type"), str) and json_type in NUMBER_FORMATS:
            schema["format"] = NUMBER_FORMATS[json_type]
        for each in schema.values():
            add_formats(each)


def record_schema(body: Json, schemas: Mapping[str, Json]) -> Json:
    """Return the schema of a record; `body` is the schema of a record or of an array of records."""
    return schemas[body.get("items", body)["$ref"].rpartition("/")[2]]


def set_default_record(record: Json) -> None:
    """Set the record's default to the examples of its features, if all of them have one.

    Postman's converter builds bodies from the schema unless configured otherwise, and then reads
    `default` but no `example`. A feature must not have a default: generated clients would make it
    optional.
    """
    features = record["properties"]
    if all("example" in feature for feature in features.values()):
        record["default"] = {name: feature["example"] for name, feature in features.items()}


def prediction_operation(
    api: Any, body: Json, schemas: Mapping[str, Json], settings: Settings
) -> Json:
    """Describe a prediction API, whose body is a record or an array of records."""
    *_, feature = record_schema(body, schemas)["properties"]  # the last one
    is_array = "items" in body
    field = f"3.{feature}" if is_array else feature
    operation_object = operation(api.name, "Prediction", api.doc.rstrip("."), api.output_spec)
    content = {"application/json": {"schema": body}}
    operation_object["requestBody"] = {"required": True, "content": content}
    responses = operation_object["responses"]
    responses["200"]["headers"] |= headers("X-Model-Tag")
    invalid = APIError(400, {field: f"No {feature} provided"})
    examples = {"Invalid JSON or invalid record": invalid, **error_examples(settings, is_array)}
    for description, error in examples.items():
        names = [name for name in error.headers if name in HEADER_DESCRIPTIONS]
        responses[str(error.status)] = error_response(description, error.message, *names)
    return operation_object


def error_examples(settings: Settings, is_array: bool) -> dict[str, APIError]:
    """Return an example of each error of a prediction request, by its description.

    400 and 401 are added elsewhere; 405 is described in REQUESTS_DESCRIPTION.
    """
    return {
        "Request timeout": request_timeout_error(settings.request_timeout),
        "Body too large": body_too_large(settings.max_body_bytes),
        "Content-Type is not JSON, or body is compressed": not_json(),
        "A valid record that the model can't predict": UnpredictableError(
            [3] if is_array else None, all_found=True, reason=ArithmeticError()
        ),
        "Too many requests": TooManyRequests(),
        "Headers too large": head_too_large(),
        "Internal error": internal_error("1f0c7c4b"),
        "Shutting down": shutting_down(),
        "Prediction timeout": prediction_timeout_error(settings.request_timeout),
    }


def operation(
    operation_id: str, tag: str, summary: str, response_model: type[BaseModel] | None = None
) -> Json:
    """Describe an operation; without `response_model` the body of its response is not described."""
    success = {"description": "Success", "headers": headers("X-Request-ID")}
    if response_model:
        success["content"] = json_content(response_model)
    responses = {"200": success}
    return {"operationId": operation_id, "tags": [tag], "summary": summary, "responses": responses}


def require_key(paths: Mapping[str, Mapping[str, Json]]) -> None:
    """Add the API key, and the error without a valid one, to all operations except the probes."""
    for path in paths.keys() - PUBLIC_PATHS:
        for operation_object in paths[path].values():
            operation_object["security"] = [{"ApiKey": []}]
            operation_object["responses"]["401"] = error_response(
                "No valid API key", INVALID_KEY_MESSAGE, "WWW-Authenticate"
            )


def error_response(description: str, message: str | dict[str, str], *header_names: str) -> Json:
    """Describe an error response, with an example of its message."""
    return {
        "description": description,
        "headers": headers("X-Request-ID", *header_names),
        "content": json_content(Error, example={"message": message}),
    }


def json_content(model: type[BaseModel], **keywords: Any) -> Json:
    """Describe a body that is the JSON of a pydantic model; `keywords` of OpenAPI are added."""
    schema = {"$ref": SCHEMA_REF.format(model=model.__name__)}
    return {"application/json": {"schema": schema, **keywords}}


def headers(*names: str) -> Json:
    """Describe headers of a response."""
    return {
        name: {"description": HEADER_DESCRIPTIONS[name], "schema": {"type": "string"}}
        for name in names
    }
