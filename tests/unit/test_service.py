"""The contract, request by request, against the service in this process."""

import gc
import json
import logging

import pytest
from sklearn.ensemble import GradientBoostingRegressor

from house import EXAMPLE, FEATURES
from service import HousePrice
from tests.helpers.commands import TUTORIAL_RESPONSE

JSON = {"Content-Type": "application/json"}


def test_tutorial_request_gives_the_tutorials_answer(client, model):
    """To 1e-9, and with the model that made it."""
    answer = client.post("/predict", json=EXAMPLE)
    assert answer.status_code == 200
    assert answer.json() == TUTORIAL_RESPONSE
    assert answer.headers["x-model-tag"] == str(model.tag)
    assert answer.headers["content-type"] == "application/json"


def test_order_of_the_features_does_not_matter(client):
    """An object has none."""
    backwards = dict(reversed(EXAMPLE.items()))
    assert client.post("/predict", json=backwards).json() == TUTORIAL_RESPONSE


def test_batch_equals_its_single_predictions(client, model):
    """One by one, in the same order, bit for bit."""
    houses = [EXAMPLE | {"RM": 4 + n / 50, "LSTAT": n % 30} for n in range(200)]
    answer = client.post("/predict_batch", json=houses)
    assert answer.headers["x-model-tag"] == str(model.tag)
    singles = [client.post("/predict", json=house).json()["prediction"] for house in houses]
    assert answer.json() == {"predictions": singles}


@pytest.mark.parametrize("size", [1, 1000])
def test_batch_sizes_that_are_served(client, size):
    """From one record to a thousand."""
    answer = client.post("/predict_batch", json=[EXAMPLE] * size)
    assert len(answer.json()["predictions"]) == size


def without(feature):
    """Return the example lacking a feature."""
    return {name: value for name, value in EXAMPLE.items() if name != feature}


def raw(feature, text):
    """Return the JSON of the example with any text as the value of a feature."""
    return json.dumps(EXAMPLE | {feature: "?"}).replace('"?"', text)


BAD_RECORDS = {
    "missing": (without("LSTAT"), {"LSTAT": "No LSTAT provided"}),
    "unknown": (EXAMPLE | {"POOL": 1}, {"POOL": "There is no feature POOL"}),
    "nameless": (without("RM") | {"": 1}, {"RM": "No RM provided", "": "There is no feature "}),
    "lower case": (
        without("RM") | {"rm": 6},
        {"RM": "No RM provided", "rm": "There is no feature rm"},
    ),
    "empty": ({}, {feature: f"No {feature} provided" for feature in FEATURES}),
    "string": (EXAMPLE | {"RM": "6"}, {"RM": 'RM should be a valid number, got "6"'}),
    "boolean": (EXAMPLE | {"CHAS": True}, {"CHAS": "CHAS should be a valid number, got true"}),
    "null": (EXAMPLE | {"RM": None}, {"RM": "RM should be a valid number, got null"}),
    "NaN": (EXAMPLE | {"RM": float("nan")}, {"RM": "RM should be a finite number, got NaN"}),
    "infinity": (
        EXAMPLE | {"RM": float("inf")},
        {"RM": "RM should be a finite number, got Infinity"},
    ),
    "too large for a float": (
        raw("RM", "1e999"),
        {"RM": "RM should be a finite number, got Infinity"},
    ),
    "too large an integer": (
        raw("RM", "9" * 4300),
        {"RM": f"RM should be a finite number, got {'9' * 37}..."},
    ),
    "negative": (
        EXAMPLE | {"TAX": -1},
        {"TAX": "TAX should be greater than or equal to 0, got -1"},
    ),
    "over 100 %": (
        EXAMPLE | {"AGE": 100.5},
        {"AGE": "AGE should be less than or equal to 100, got 100.5"},
    ),
    "half a river": (
        EXAMPLE | {"CHAS": 0.5},
        {"CHAS": "CHAS should be 0 or 1, got 0.5"},
    ),
    "twice": (raw("RM", '6, "RM": 7'), {"RM": "RM is given 2 times"}),
    "twice the same": (raw("RM", '6, "RM": 6'), {"RM": "RM is given 2 times"}),
    "twice, once escaped": (raw("RM", r'6, "\u0052M": 7'), {"RM": "RM is given 2 times"}),
    "twice, once no number": (
        raw("RM", '{"RM": ["a:b", NaN, {}]}, "RM": 6'),
        {"RM": "RM is given 2 times"},
    ),
    "twice and thrice": (
        raw("RM", '6, "RM": 7, "AGE": 1, "AGE": 2'),
        {"RM": "RM is given 2 times", "AGE": "AGE is given 3 times"},
    ),
    "array": ([EXAMPLE], "Send one record, as a JSON object"),
    "number": (7, "Send one record, as a JSON object"),
}


@pytest.mark.parametrize(("record", "message"), BAD_RECORDS.values(), ids=BAD_RECORDS)
def test_bad_record_is_refused(client, caplog, record, message):
    """400, naming every fault, without a traceback in the log."""
    text = record if isinstance(record, str) else json.dumps(record)
    answer = client.post("/predict", headers=JSON, content=text)
    assert answer.status_code == 400
    assert answer.json() == {"message": message}
    assert not [line for line in caplog.records if line.levelno >= logging.WARNING]


BAD_BODIES = {
    "empty": b"",
    "broken": b'{"CRIM": 15.02,',
    "surplus": json.dumps(EXAMPLE).encode() + b"}",
    "NUL after the end": json.dumps(EXAMPLE).encode() + b"\0",
    "NUL in a name": b'{"CRIM\0": 1}',
    "not UTF-8": b'{"CRIM\xff": 1}',
    "UTF-16": json.dumps(EXAMPLE).encode("utf-16"),
    "overlong UTF-8": b'{"\xc1\x83RIM": 1}',
    "lone surrogate": rb'{"\ud800": 1}',
    "lone surrogate in bytes": b'{"\xed\xa0\x80": 1}',
    "byte order mark": b"\xef\xbb\xbf" + json.dumps(EXAMPLE).encode(),
    "too deep": b"[" * 100_000,
    "too deep in an object": b'{"CRIM": ' * 100_000,
    "too many digits": b'{"CRIM": 1' + b"0" * 10_000 + b"}",
    "negative NaN": b'{"CRIM": -NaN}',
    "hexadecimal": b'{"CRIM": 0x1F}',
    "leading zero": b'{"CRIM": 01}',
    "comment": b"/* a house */ {}",
    "trailing comma": b'{"CRIM": 1,}',
}


@pytest.mark.parametrize("path", ["/predict", "/predict_batch"])
@pytest.mark.parametrize("body", BAD_BODIES.values(), ids=BAD_BODIES)
def test_body_that_is_not_json_is_refused(client, path, body):
    """400, with the place where it stops being JSON."""
    answer = client.post(path, headers=JSON, content=body)
    assert answer.status_code == 400
    assert answer.json()["message"].startswith("Invalid JSON: ")


BAD_BATCHES = {
    "empty": ([], "Send at least 1 record"),
    "too long": ([EXAMPLE] * 1001, "Send at most 1000 records, not 1001"),
    "one record": (EXAMPLE, "Send records, as a JSON array"),
}


@pytest.mark.parametrize(("batch", "message"), BAD_BATCHES.values(), ids=BAD_BATCHES)
def test_bad_batch_is_refused(client, batch, message):
    """400, with what it should be."""
    answer = client.post("/predict_batch", json=batch)
    assert answer.status_code == 400
    assert answer.json()["message"].startswith(message)


def test_faults_of_a_batch_carry_the_number_of_the_record(client):
    """And one bad record refuses all of them: nothing is predicted by halves."""
    batch = [EXAMPLE, EXAMPLE, EXAMPLE, without("LSTAT")]
    answer = client.post("/predict_batch", json=batch)
    assert answer.status_code == 400
    assert answer.json() == {"message": {"3.LSTAT": "No LSTAT provided"}}


def test_number_may_have_any_spelling_of_json(client):
    """An integer, an exponent, many digits, or a negative zero, which is zero."""
    same = {"CRIM": "1502e-2", "ZN": "-0", "CHAS": "0e9", "NOX": "0.614" + "0" * 100, "RAD": "24"}
    record = EXAMPLE | dict.fromkeys(same, "?")
    text = json.dumps(record).replace('"?"', "{}").replace("{", "{{", 1)[:-1] + "}}"
    answer = client.post("/predict", headers=JSON, content=text.format(*same.values()))
    assert answer.json() == TUTORIAL_RESPONSE


OTHER_ERRORS = {
    "form": ("POST", "/predict", {"Content-Type": "application/x-www-form-urlencoded"}, 415),
    "pickle": ("POST", "/predict", {"Content-Type": "application/vnd.bentoml+pickle"}, 415),
    "too large": ("POST", "/predict_batch", JSON | {"Content-Length": "1048577"}, 413),
    "absurdly large": ("POST", "/predict", JSON | {"Content-Length": "9" * 5000}, 413),
    "line feed": ("POST", "/predict%0a", JSON, 404),
    "trailing slash": ("POST", "/predict/", JSON, 404),
    "GET": ("GET", "/predict", {}, 405),
    "POST to health": ("POST", "/livez", JSON, 405),
    "POST to the model": ("POST", "/model", JSON, 405),
    "unknown path": ("GET", "/nowhere", {}, 404),
    "unknown file": ("GET", "/static_content/nothing.js", {}, 404),
}


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"), OTHER_ERRORS.values(), ids=OTHER_ERRORS
)
def test_every_error_has_the_same_shape(client, method, path, headers, status):
    """From whatever layer it comes."""
    answer = client.request(method, path, headers=headers, content="{}")
    assert answer.status_code == status
    assert answer.json().keys() == {"message"}
    assert isinstance(answer.json()["message"], str)
    assert answer.headers["x-request-id"]
    assert ("allow" in answer.headers) == (status == 405)


def test_body_with_far_too_many_values_is_refused_unread(client):
    """To name what is wrong with 300,000 of them would keep all other callers waiting."""
    body = b'{"x":[' + b",".join([b"[]"] * 300_000) + b"]}"
    for path, most in (("/predict", 13), ("/predict_batch", 13_000)):
        answer = client.post(path, headers=JSON, content=body)
        assert answer.status_code == 400
        assert answer.json()["message"] == f"Send at most {most} values; the body has many more"


def test_model_is_described(client, model):
    """`GET /model` tells what serves, how it was trained, and what it wants to know."""
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


def test_garbage_collector_leaves_alone_what_was_imported(client):
    """Or else it walks through it, 40 to 75 ms, while requests wait."""
    assert gc.get_freeze_count() > 100_000


def test_service_that_cannot_predict_does_not_start(model, monkeypatch):
    """A real prediction comes before /readyz."""
    monkeypatch.setattr(GradientBoostingRegressor, "predict", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        HousePrice()


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", "/", "/docs.json", "/model"])
def test_what_can_be_looked_at(client, path):
    """Health, metrics, Swagger UI, the description of the API, and the model."""
    assert client.get(path).status_code == 200
