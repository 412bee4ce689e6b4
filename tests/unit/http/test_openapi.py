"""The API description: valid, complete, and true."""

import json

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from house import EXAMPLE, House
from service import HousePrice

PREDICTIONS = ("/predict", "/predict_batch")


@pytest.fixture
def description(client):
    """The description of the API."""
    return client.get("/docs.json").json()


def test_description_is_valid_openapi(description):
    """So that any client generator takes it."""
    OpenAPIV31SpecValidator(description).validate()


def test_description_tells_what_is_predicted(description):
    """With the unit, and with the address that was asked."""
    assert description["info"]["title"] == "house_price"
    assert description["info"]["version"] == "development"
    assert description["info"]["description"].startswith(HousePrice.inner.__doc__)
    assert "thousands of dollars" in description["info"]["description"]
    assert description["servers"] == [{"url": "http://testserver"}]


def test_operations_are_those_that_a_caller_can_use(description):
    """Named for client generators, and sorted by what they are about."""
    operations = {
        path: (method, operation["operationId"], *operation["tags"])
        for path, methods in description["paths"].items()
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


def test_description_holds_nothing_of_bentomls(description):
    """No schema of an error that is not sent, and no keyword of its client."""
    assert description["components"]["schemas"].keys() == {
        "Error",
        "House",
        "ModelCard",
        "Prediction",
        "Predictions",
    }
    text = json.dumps(description)
    assert not any(word in text for word in ("root_input", "bentoml", "BentoML", "Service APIs"))


def test_features_are_those_of_the_record_type(description):
    """With bounds and example, and the unit where people see it."""
    house = description["components"]["schemas"]["House"]
    expected = House.model_json_schema()
    for field in expected["properties"].values():
        del field["title"]
        field["description"] += f" ({field['unit']})"
    assert house["properties"] == expected["properties"]
    assert house["required"] == expected["required"]
    assert house["additionalProperties"] is False
    one, many = (
        description["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        for path in PREDICTIONS
    )
    for path in PREDICTIONS:
        assert description["paths"][path]["post"]["requestBody"]["required"] is True
    ref = {"$ref": "#/components/schemas/House"}
    assert one == ref
    assert many == {"type": "array", "items": ref, "minItems": 1, "maxItems": 1000}


def provoke(client, status, path, monkeypatch):
    """Return the answer to a request that goes wrong in a certain way."""
    content, headers = json.dumps(EXAMPLE), {"Content-Type": "application/json"}
    if path == "/predict_batch":
        content = f"[{content}]"
    if status == "400":
        bad = {name: value for name, value in EXAMPLE.items() if name != "LSTAT"}
        content = json.dumps(bad if path == "/predict" else [EXAMPLE] * 3 + [bad])
    if status == "413":
        headers["Content-Length"] = "1048577"
    if status == "415":
        headers["Content-Type"] = "text/plain"
    if status == "429":
        monkeypatch.setattr(client.app, "in_progress", 1000)
    if status == "500":
        headers["X-Request-ID"] = "1f0c7c4b"
        regressor = client.app.predictors[path].service.regressor
        monkeypatch.setattr(regressor, "predict", lambda _: 1 / 0)
    if status == "504":
        monkeypatch.setattr(client.app.settings, "request_timeout", 1e-9)
    return client.post(path, headers=headers, content=content)


@pytest.mark.parametrize("path", PREDICTIONS)
@pytest.mark.parametrize("status", ["400", "413", "415", "429", "500", "504"])
def test_examples_of_errors_are_what_is_sent(client, monkeypatch, path, status):
    """Word for word, with the headers that are described; tests/test_server.py has the others."""
    answer = provoke(client, status, path, monkeypatch)
    assert str(answer.status_code) == status
    described = client.get("/docs.json").json()["paths"][path]["post"]["responses"][status]
    assert described["content"]["application/json"]["example"] == answer.json()
    assert all(name in answer.headers for name in described["headers"])


@pytest.mark.parametrize("path", PREDICTIONS)
def test_errors_are_all_that_a_prediction_may_end_with(description, path):
    """Each of one schema; a prediction tells of its model."""
    success, *errors = description["paths"][path]["post"]["responses"].items()
    assert [int(status) for status, _ in errors] == [400, 408, 413, 415, 429, 431, 500, 503, 504]
    for _, error in errors:
        content = error["content"]["application/json"]
        assert content["schema"] == {"$ref": "#/components/schemas/Error"}
    assert success[1]["headers"].keys() == {"X-Request-ID", "X-Model-Tag"}
