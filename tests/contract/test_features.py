"""The prediction APIs accept what the record type allows, and name the invalid feature."""

import json
import shlex

import pytest

from serving.features import kind_of
from tests.contract.feature_values import (
    EXAMPLE,
    SCHEMAS,
    WRONG_TYPES,
    invalid_values,
    valid_values,
)
from tests.helpers.commands import ROOT, run, running_server
from train import PROJECT
from training.data import load_training_data, to_records

VALID = [(name, value) for name, schema in SCHEMAS.items() for value in valid_values(schema)]
INVALID = [(name, value) for name, schema in SCHEMAS.items() for value in invalid_values(schema)]
WRONG = [(name, value) for name in SCHEMAS for value in WRONG_TYPES[kind_of(SCHEMAS[name])]]


def ids(cases):
    """Return a readable ID for each case."""
    return [f"{name}={value!r:.30}" for name, value in cases]


@pytest.fixture(scope="module")
def records():
    """The example, once for each valid value, and rows of the training data."""
    data, _ = load_training_data(PROJECT.data, PROJECT.labelled_type)
    rows = to_records(PROJECT.record_type, data.X_test.head(100))
    return [EXAMPLE, *(EXAMPLE | {name: value} for name, value in VALID), *rows]


def assert_rejected(response, name):
    """Assert that a response rejects exactly this feature."""
    assert response.status_code == 400
    assert list(response.json()["message"]) == [name]


def test_example_is_predicted(live):
    """The record type's own example is a valid record."""
    response = live.post("/predict", json=EXAMPLE)
    assert response.status_code == 200
    assert isinstance(response.json()["prediction"], float)


def test_readme_shows_a_valid_record(live):
    """The first request of README.md is valid; correct it after a change of the features."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    command = shlex.split(next(line for line in readme.splitlines() if line.startswith("$ curl")))
    record = json.loads(command[command.index("-d") + 1])
    assert live.post("/predict", json=record).status_code == 200


@pytest.mark.parametrize(("name", "value"), VALID, ids=ids(VALID))
def test_valid_value_is_predicted(live, name, value):
    """Each category and boolean, each bound, and null where it is valid."""
    response = live.post("/predict", json=EXAMPLE | {name: value})
    assert response.status_code == 200, response.text


@pytest.mark.parametrize(("name", "value"), INVALID, ids=ids(INVALID))
def test_invalid_value_is_rejected(live, name, value):
    """A value beyond a bound, an unknown category, a text that is too long, or null."""
    assert_rejected(live.post("/predict", json=EXAMPLE | {name: value}), name)


@pytest.mark.parametrize(("name", "value"), WRONG, ids=ids(WRONG))
def test_wrong_type_is_rejected(live, name, value):
    """No type is converted: not even "1" to 1."""
    assert_rejected(live.post("/predict", json=EXAMPLE | {name: value}), name)


@pytest.mark.parametrize("name", SCHEMAS)
def test_missing_feature_is_named(live, name):
    """A record must have each feature, even if its value may be null."""
    record = {key: value for key, value in EXAMPLE.items() if key != name}
    response = live.post("/predict", json=record)
    assert response.status_code == 400
    assert response.json() == {"message": {name: f"No {name} provided"}}


def test_unknown_feature_is_named(live):
    """A misspelt name is an error, not ignored."""
    assert_rejected(live.post("/predict", json=EXAMPLE | {"no such feature": 1}), "no such feature")


def test_array_equals_single_predictions(live, records):
    """The predictions of an array are those of its single records, in the same order."""
    singles = [live.post("/predict", json=record).json()["prediction"] for record in records]
    assert predict_batch(live, records) == singles


def predict_batch(client, records):
    """Return the predictions for records, sent in arrays of 100."""
    arrays = [records[start : start + 100] for start in range(0, len(records), 100)]
    responses = [client.post("/predict_batch", json=array).json() for array in arrays]
    return [prediction for response in responses for prediction in response["predictions"]]


def test_bento_predicts_the_same(live, records, tmp_path):
    """A Bento contains all files that serving needs."""
    tag = run("bentoml", "build", "--output", "tag").stdout.strip().removeprefix("__tag__:")
    with running_server("bentoml", "serve", tag, log=tmp_path / "log", cwd=tmp_path) as client:
        assert predict_batch(client, records) == predict_batch(live, records)
