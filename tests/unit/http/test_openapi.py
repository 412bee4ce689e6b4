"""The OpenAPI document: valid, complete, and equal to the responses that are sent."""

import copy
import json
import math
import re
from itertools import chain

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from house import EXAMPLE, House
from service import HousePrice
from serving.http.openapi import add_units, set_default_record

PREDICTION_PATHS = ("/predict", "/predict_batch")


@pytest.fixture
def document(client):
    """The OpenAPI document."""
    return client.get("/docs.json").json()


def test_document_is_valid_openapi(document):
    """Client generators reject an invalid document."""
    OpenAPIV31SpecValidator(document).validate()


def test_document_describes_the_service(document):
    """It has the unit of the prediction, and the address that the client used."""
    assert document["info"]["title"] == "house_price"
    assert document["info"]["version"] == "development"
    assert document["info"]["description"].startswith(HousePrice.inner.__doc__)
    assert "thousands of dollars" in document["info"]["description"]
    assert document["servers"] == [{"url": "http://testserver"}]


def test_document_has_exactly_the_public_operations(document):
    """Generated clients are named after the operation IDs; Swagger UI groups by tag."""
    operations = {
        path: (method, operation["operationId"], *operation["tags"])
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    assert operations == {
        "/predict": ("post", "predict", "Prediction"),
        "/predict_batch": ("post", "predict_batch", "Prediction"),
        "/model": ("get", "model", "Model"),
        "/livez": ("get", "livez", "State"),
        "/readyz": ("get", "readyz", "State"),
        "/metrics": ("get", "metrics", "State"),
    }


def test_document_contains_nothing_from_bentoml(document):
    """Neither schemas of errors that are never sent, nor keywords for BentoML's client."""
    assert document["components"]["schemas"].keys() == {
        "Error",
        "House",
        "Inference",
        "ModelCard",
        "Prediction",
        "Predictions",
    }
    text = json.dumps(document)
    assert not any(word in text for word in ("root_input", "bentoml", "BentoML", "Service APIs"))


def test_every_number_has_a_format(document):
    """A generated client in Go would otherwise round a prediction to 7 digits."""
    text = json.dumps(document)
    for kind, number_format in {"number": "double", "integer": "int64"}.items():
        declared = re.findall(rf'{{[^{{}}]*"type": "{kind}"[^{{}}]*}}', text)
        assert declared
        assert all(f'"format": "{number_format}"' in schema for schema in declared)
    house = document["components"]["schemas"]["House"]["properties"]
    assert {schema["format"] for schema in house.values()} == {"double"}


def test_record_schema_is_that_of_the_record_type(document):
    """It has bounds and examples. The unit is in the description: Swagger UI shows no `unit`."""
    house = document["components"]["schemas"]["House"]
    expected = House.model_json_schema()
    for field in expected["properties"].values():
        del field["title"]
        field["description"] += f" ({field['unit']})"
        field["format"] = "double"
    assert house["properties"] == expected["properties"]
    assert house["required"] == expected["required"]
    assert house["additionalProperties"] is False
    one, many = (
        document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        for path in PREDICTION_PATHS
    )
    for path in PREDICTION_PATHS:
        assert document["paths"][path]["post"]["requestBody"]["required"] is True
    ref = {"$ref": "#/components/schemas/House"}
    assert one == ref
    assert many == {"type": "array", "items": ref, "minItems": 1, "maxItems": 1000}


def test_unit_is_added_to_a_description_or_stands_alone():
    """A feature need not have a description."""
    fields = {"x": {"unit": "m"}, "y": {"unit": "m", "description": "Length"}, "z": {}}
    add_units({"Record": {"properties": fields}})
    assert [field.get("description") for field in fields.values()] == ["(m)", "Length (m)", None]


def test_default_record_is_the_example(document):
    """Postman's converter with its option "Schema", the default, takes a body from `default` alone.

    It belongs to the record: a default of one feature would make it optional in generated clients.
    tests/docs/test_generated_clients.py runs the converter.
    """
    house = document["components"]["schemas"]["House"]
    assert house["default"] == EXAMPLE
    House.model_validate(house["default"])
    assert not any("default" in feature for feature in house["properties"].values())
    operations = [document["paths"][path]["post"] for path in PREDICTION_PATHS]
    assert all(operation["requestBody"]["required"] for operation in operations)


def test_record_type_with_a_missing_example_has_no_default():
    """A default that lacks a feature would be invalid."""
    record = {"properties": {"RM": {"type": "number", "example": 5.3}, "AGE": {"type": "number"}}}
    expected = copy.deepcopy(record)
    set_default_record(record)
    assert record == expected


def provoke_error(client, status, path, monkeypatch):
    """Return the response to a request that fails with a status."""
    content, headers = json.dumps(EXAMPLE), {"Content-Type": "application/json"}
    if path == "/predict_batch":
        content = f"[{content}]"
    if status == "400":
        invalid = {name: value for name, value in EXAMPLE.items() if name != "LSTAT"}
        content = json.dumps(invalid if path == "/predict" else [EXAMPLE] * 3 + [invalid])
    if status == "413":
        headers["Content-Length"] = "1048577"
    if status == "415":
        headers["Content-Type"] = "text/plain"
    if status == "422":
        record = EXAMPLE | {"RM": 5000.0}
        content = json.dumps(record if path == "/predict" else [EXAMPLE] * 3 + [record])
        regressor = client.app.predictors[path].batcher.instance.regressor
        predict = regressor.predict
        monkeypatch.setattr(
            regressor, "predict", lambda rows: 1 / 0 if 5000.0 in chain(*rows) else predict(rows)
        )
    if status == "429":
        monkeypatch.setattr(client.app, "active_predictions", 1000)
    if status == "500":
        headers["X-Request-ID"] = "1f0c7c4b"
        regressor = client.app.predictors[path].batcher.instance.regressor
        monkeypatch.setattr(regressor, "predict", lambda _: 1 / 0)
    if status == "504":
        monkeypatch.setattr(client.app.settings, "request_timeout", 1e-9)
        batcher = client.app.predictors[path].batcher
        monkeypatch.setattr(batcher, "single_row_seconds", math.inf)  # run it in a thread
    return client.post(path, headers=headers, content=content)


@pytest.mark.parametrize("path", PREDICTION_PATHS)
@pytest.mark.parametrize("status", ["400", "413", "415", "422", "429", "500", "504"])
def test_error_examples_equal_the_responses(client, monkeypatch, path, status):
    """The documented headers are sent. tests/live/test_connections.py compares 408 and 431."""
    response = provoke_error(client, status, path, monkeypatch)
    assert str(response.status_code) == status
    documented = client.get("/docs.json").json()["paths"][path]["post"]["responses"][status]
    assert documented["content"]["application/json"]["example"] == response.json()
    assert all(name in response.headers for name in documented["headers"])


@pytest.mark.parametrize("path", PREDICTION_PATHS)
def test_document_has_all_errors_of_a_prediction(document, path):
    """All errors have one schema; a success has the model tag in a header."""
    success, *errors = document["paths"][path]["post"]["responses"].items()
    statuses = [int(status) for status, _ in errors]
    assert statuses == [400, 408, 413, 415, 422, 429, 431, 500, 503, 504]
    for _, error in errors:
        content = error["content"]["application/json"]
        assert content["schema"] == {"$ref": "#/components/schemas/Error"}
    assert success[1]["headers"].keys() == {"X-Request-ID", "X-Model-Tag"}
