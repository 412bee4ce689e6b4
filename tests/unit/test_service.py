"""The contract of the API: requests and their responses, with the service in this process."""

import gc
import json
import logging
import math

import pytest

from house import EXAMPLE, FEATURES
from service import HousePrice
from serving.onnx_model import OnnxModel
from serving.regressor import Regressor
from tests.helpers.tutorial import TUTORIAL_RESPONSE

JSON = {"Content-Type": "application/json"}


def test_tutorial_record_gives_the_tutorial_prediction(client, model):
    """Within 1e-9; a header names the model."""
    response = client.post("/predict", json=EXAMPLE)
    assert response.status_code == 200
    assert response.json() == TUTORIAL_RESPONSE
    assert response.headers["x-model-tag"] == str(model.tag)
    assert response.headers["content-type"] == "application/json"


def test_order_of_the_features_in_the_body_does_not_matter(client):
    """The members of a JSON object are unordered."""
    reversed_example = dict(reversed(EXAMPLE.items()))
    assert client.post("/predict", json=reversed_example).json() == TUTORIAL_RESPONSE


def test_array_gives_the_predictions_of_its_single_records(client, model):
    """In the order of the records, and bit for bit."""
    houses = [EXAMPLE | {"RM": 4 + n / 50, "LSTAT": n % 30} for n in range(200)]
    response = client.post("/predict_batch", json=houses)
    assert response.headers["x-model-tag"] == str(model.tag)
    singles = [client.post("/predict", json=house).json()["prediction"] for house in houses]
    assert response.json() == {"predictions": singles}


@pytest.mark.parametrize("size", [1, 1000])
def test_array_of_allowed_size_is_predicted(client, size):
    """The limits are 1 record and, by default, 1000."""
    response = client.post("/predict_batch", json=[EXAMPLE] * size)
    assert len(response.json()["predictions"]) == size


def example_without(feature):
    """Return the example without one feature."""
    return {name: value for name, value in EXAMPLE.items() if name != feature}


def raw_example(feature, text):
    """Return the JSON of the example with an arbitrary text as the value of a feature."""
    return json.dumps(EXAMPLE | {feature: "?"}).replace('"?"', text)


INVALID_RECORDS = {
    "missing feature": (example_without("LSTAT"), {"LSTAT": "No LSTAT provided"}),
    "unknown feature": (EXAMPLE | {"POOL": 1}, {"POOL": "There is no feature POOL"}),
    "empty name": (
        example_without("RM") | {"": 1},
        {"RM": "No RM provided", "": "There is no feature "},
    ),
    "lower-case name": (
        example_without("RM") | {"rm": 6},
        {"RM": "No RM provided", "rm": "There is no feature rm"},
    ),
    "empty record": ({}, {feature: f"No {feature} provided" for feature in FEATURES}),
    "string": (EXAMPLE | {"RM": "6"}, {"RM": 'RM should be a valid number, got "6"'}),
    "boolean": (EXAMPLE | {"CHAS": True}, {"CHAS": "CHAS should be a valid number, got true"}),
    "null": (EXAMPLE | {"RM": None}, {"RM": "RM should be a valid number, got null"}),
    "NaN": (EXAMPLE | {"RM": float("nan")}, {"RM": "RM should be a finite number, got NaN"}),
    "infinity": (
        EXAMPLE | {"RM": float("inf")},
        {"RM": "RM should be a finite number, got Infinity"},
    ),
    "number beyond float64": (
        raw_example("RM", "1e999"),
        {"RM": "RM should be a finite number, got Infinity"},
    ),
    "integer of 4300 digits": (
        raw_example("RM", "9" * 4300),
        {"RM": f"RM should be a finite number, got {'9' * 37}..."},
    ),
    "below minimum": (
        EXAMPLE | {"TAX": -1},
        {"TAX": "TAX should be greater than or equal to 0, got -1"},
    ),
    "above maximum": (
        EXAMPLE | {"AGE": 100.5},
        {"AGE": "AGE should be less than or equal to 100, got 100.5"},
    ),
    "neither 0 nor 1": (
        EXAMPLE | {"CHAS": 0.5},
        {"CHAS": "CHAS should be 0 or 1, got 0.5"},
    ),
    "repeated": (raw_example("RM", '6, "RM": 7'), {"RM": "RM is given 2 times"}),
    "repeated with the same value": (
        raw_example("RM", '6, "RM": 6'),
        {"RM": "RM is given 2 times"},
    ),
    "repeated with an escaped name": (
        raw_example("RM", r'6, "\u0052M": 7'),
        {"RM": "RM is given 2 times"},
    ),
    "repeated with an object as value": (
        raw_example("RM", '{"RM": ["a:b", NaN, {}]}, "RM": 6'),
        {"RM": "RM is given 2 times"},
    ),
    "two repeated features": (
        raw_example("RM", '6, "RM": 7, "AGE": 1, "AGE": 2'),
        {"RM": "RM is given 2 times", "AGE": "AGE is given 3 times"},
    ),
    "array": ([EXAMPLE], "Send one record, as a JSON object"),
    "number": (7, "Send one record, as a JSON object"),
}


@pytest.mark.parametrize(("record", "message"), INVALID_RECORDS.values(), ids=INVALID_RECORDS)
def test_invalid_record_is_rejected_with_400(client, caplog, record, message):
    """The message names every error; the service logs neither a warning nor a traceback."""
    text = record if isinstance(record, str) else json.dumps(record)
    response = client.post("/predict", headers=JSON, content=text)
    assert response.status_code == 400
    assert response.json() == {"message": message}
    assert not [line for line in caplog.records if line.levelno >= logging.WARNING]


INVALID_JSON = {
    "empty body": b"",
    "truncated": b'{"CRIM": 15.02,',
    "surplus brace": json.dumps(EXAMPLE).encode() + b"}",
    "NUL after the end": json.dumps(EXAMPLE).encode() + b"\0",
    "NUL in a name": b'{"CRIM\0": 1}',
    "not UTF-8": b'{"CRIM\xff": 1}',
    "overlong UTF-8": b'{"\xc1\x83RIM": 1}',
    "lone surrogate": rb'{"\ud800": 1}',
    "lone surrogate in bytes": b'{"\xed\xa0\x80": 1}',
    "too many digits": b'{"CRIM": 1' + b"0" * 10_000 + b"}",
    "negative NaN": b'{"CRIM": -NaN}',
    "hexadecimal number": b'{"CRIM": 0x1F}',
    "leading zero": b'{"CRIM": 01}',
    "comment": b"/* a house */ {}",
    "trailing comma": b'{"CRIM": 1,}',
}


@pytest.mark.parametrize("path", ["/predict", "/predict_batch"])
@pytest.mark.parametrize("body", INVALID_JSON.values(), ids=INVALID_JSON)
def test_invalid_json_is_rejected_with_400(client, path, body):
    """The syntax, the encoding or a number is invalid."""
    response = client.post(path, headers=JSON, content=body)
    assert response.status_code == 400
    assert response.json()["message"].startswith("Invalid JSON: ")


INVALID_ARRAYS = {
    "empty array": ([], "Send at least 1 record"),
    "too many records": ([EXAMPLE] * 1001, "Send at most 1000 records, not 1001"),
    "record instead of an array": (EXAMPLE, "Send records, as a JSON array"),
}


@pytest.mark.parametrize(("records", "message"), INVALID_ARRAYS.values(), ids=INVALID_ARRAYS)
def test_invalid_array_is_rejected_with_400(client, records, message):
    """The message says what to send."""
    response = client.post("/predict_batch", json=records)
    assert response.status_code == 400
    assert response.json()["message"].startswith(message)


def test_one_invalid_record_rejects_the_whole_array(client):
    """The error has the index of the record; no other record is predicted."""
    records = [EXAMPLE, EXAMPLE, EXAMPLE, example_without("LSTAT")]
    response = client.post("/predict_batch", json=records)
    assert response.status_code == 400
    assert response.json() == {"message": {"3.LSTAT": "No LSTAT provided"}}


def test_every_json_notation_of_a_number_is_accepted(client):
    """An exponent, an integer, many digits, or a negative zero."""
    notations = {
        "CRIM": "1502e-2",
        "ZN": "-0",
        "CHAS": "0e9",
        "NOX": "0.614" + "0" * 100,
        "RAD": "24",
    }
    record = EXAMPLE | dict.fromkeys(notations, "?")
    text = json.dumps(record).replace('"?"', "{}").replace("{", "{{", 1)[:-1] + "}}"
    response = client.post("/predict", headers=JSON, content=text.format(*notations.values()))
    assert response.json() == TUTORIAL_RESPONSE


INVALID_REQUESTS = {
    "form data": ("POST", "/predict", {"Content-Type": "application/x-www-form-urlencoded"}, 415),
    "pickle": ("POST", "/predict", {"Content-Type": "application/vnd.bentoml+pickle"}, 415),
    "Content-Length over limit": (
        "POST",
        "/predict_batch",
        JSON | {"Content-Length": "1048577"},
        413,
    ),
    "Content-Length of 5000 digits": (
        "POST",
        "/predict",
        JSON | {"Content-Length": "9" * 5000},
        413,
    ),
    "path with line feed": ("POST", "/predict%0a", JSON, 404),
    "path with trailing slash": ("POST", "/predict/", JSON, 404),
    "GET to /predict": ("GET", "/predict", {}, 405),
    "POST to /livez": ("POST", "/livez", JSON, 405),
    "POST to /model": ("POST", "/model", JSON, 405),
    "unknown path": ("GET", "/nowhere", {}, 404),
    "unknown static file": ("GET", "/static_content/nothing.js", {}, 404),
}


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"), INVALID_REQUESTS.values(), ids=INVALID_REQUESTS
)
def test_every_error_has_the_same_shape(client, method, path, headers, status):
    """BentoML's application rejects some of these requests, `ServiceApp` the others."""
    response = client.request(method, path, headers=headers, content="{}")
    assert response.status_code == status
    assert response.json().keys() == {"message"}
    assert isinstance(response.json()["message"], str)
    assert response.headers["x-request-id"]
    assert ("allow" in response.headers) == (status == 405)


@pytest.mark.parametrize("opening", [b"[", b'{"CRIM": '], ids=["arrays", "objects"])
@pytest.mark.parametrize("path", ["/predict", "/predict_batch"])
def test_deeply_nested_body_is_rejected_before_validation(client, path, opening):
    """Without a limit, a parser could run out of memory or of stack."""
    response = client.post(path, headers=JSON, content=opening * 100_000)
    assert response.status_code == 400
    assert "the body has many more" in response.json()["message"]


def test_body_with_too_many_values_is_rejected_before_validation(client):
    """Validation of 1 MiB of empty arrays would block the event loop for 2 s."""
    body = b'{"x":[' + b",".join([b"[]"] * 300_000) + b"]}"
    for path, max_values in (("/predict", 13), ("/predict_batch", 13_000)):
        response = client.post(path, headers=JSON, content=body)
        assert response.status_code == 400
        message = f"Send at most {max_values} values; the body has many more"
        assert response.json()["message"] == message


def test_failed_batch_responds_with_500_and_the_next_one_succeeds(client, monkeypatch):
    """The message has the request ID."""
    with monkeypatch.context() as broken:
        broken.setattr(Regressor, "predict", lambda *_: 1 / 0)
        failed = client.post("/predict", json=EXAMPLE)
    assert failed.status_code == 500
    assert failed.headers["x-request-id"] in failed.json()["message"]
    assert client.post("/predict", json=EXAMPLE).status_code == 200


def test_non_finite_prediction_responds_with_500(client, monkeypatch):
    """The response would otherwise have NaN, which is not JSON."""
    monkeypatch.setattr(Regressor, "predict", lambda *_: [math.nan])
    assert client.post("/predict", json=EXAMPLE).status_code == 500


def test_model_card_describes_model_and_training(client, model):
    """`GET /model` returns the tag, the metadata of the training, and the features."""
    card = client.get("/model").json()
    assert card["tag"] == str(model.tag)
    assert card["trained_at"] == model.info.metadata["trained_at"]
    assert card["metrics"] == model.info.metadata["metrics"]
    assert card["data_sha256"] == model.info.metadata["data_sha256"]
    assert card["versions"].keys() >= {"python", "scikit-learn", "bentoml"}
    assert list(card["features"]) == list(FEATURES)
    lstat = card["features"]["LSTAT"]
    assert (lstat["unit"], lstat["minimum"], lstat["maximum"]) == ("%", 0, 100)
    assert card["training_range"]["LSTAT"] == [1.73, 37.97]
    deciles = card["training_deciles"]["LSTAT"]
    assert len(deciles) == 11
    assert deciles == sorted(deciles)


def test_garbage_collector_skips_imported_objects(client):
    """A full collection over them takes 40 to 75 ms, and no request is served meanwhile."""
    assert gc.get_freeze_count() > 100_000
    assert gc.get_threshold()[0] == 20_000


def test_service_that_cannot_predict_does_not_start(model, monkeypatch):
    """The constructor predicts, before /readyz answers 200."""
    monkeypatch.setattr(OnnxModel, "predict", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        HousePrice()


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", "/", "/docs.json", "/model"])
def test_get_endpoint_responds_with_200(client, path):
    """Probes, metrics, Swagger UI, the OpenAPI document, and the model card."""
    assert client.get(path).status_code == 200
