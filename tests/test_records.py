"""From a JSON body to rows, or to the reasons why not."""

import json

import pytest
from pydantic import ValidationError

from house import EXAMPLE
from service import Houses, OneHouse
from serving.records import MAX_FAULTS, explain


def explained(spec, body):
    """Return what a caller is told about a body."""
    with pytest.raises(ValidationError) as caught:
        spec.body.validate_json(body)
    return explain(caught.value)


def test_all_faults_are_named_at_once():
    """Whoever sends four mistakes learns of four."""
    record = EXAMPLE | {"RM": "6", "ZN": 101, "OLD": 1}
    del record["LSTAT"]
    assert explained(OneHouse, json.dumps(record)) == {
        "ZN": "ZN should be less than or equal to 100, got 101",
        "RM": 'RM should be a valid number, got "6"',
        "LSTAT": "No LSTAT provided",
        "OLD": 'There is no feature "OLD"',
    }


def test_faults_in_an_array_carry_the_number_of_the_record():
    """Counted from 0, as in the array."""
    records = [EXAMPLE, EXAMPLE | {"AGE": -1}, 7]
    assert explained(Houses, json.dumps(records)) == {
        "1.AGE": "AGE should be greater than or equal to 0, got -1",
        "2": "Record 2 should be an object, got 7",
    }


def test_long_values_are_cut():
    """A message does not give a megabyte back."""
    reason = explained(OneHouse, json.dumps(EXAMPLE | {"RM": "x" * 100_000}))["RM"]
    assert len(reason) < 100


def test_too_many_faults_are_counted():
    """Naming 100,000 of them would take longer than any prediction."""
    body = json.dumps(EXAMPLE | dict.fromkeys(map(str, range(MAX_FAULTS + 1)), 0))
    assert explained(OneHouse, body).startswith(f"{MAX_FAULTS + 1} faults are too many to name")
