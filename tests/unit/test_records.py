"""From a JSON body to rows, or to the reasons why not."""

import json
import math

import pytest
from pydantic import create_model

from house import EXAMPLE, FEATURES
from service import HouseBody, HousesBody
from serving.errors import APIError
from serving.records import MAX_ERRORS, Prediction, Predictions, RequestBody


def complaint(spec, body):
    """Return what a caller is told about a body."""
    with pytest.raises(APIError) as caught:
        spec.parse(body if isinstance(body, bytes) else json.dumps(body).encode())
    assert caught.value.status == 400
    return json.loads(caught.value.content)["message"]


def test_row_holds_the_values_in_the_order_of_the_features():
    """Whatever their order in the body."""
    values = dict(zip(FEATURES, [1, 2, 3, 1, 5, 6, 7, 8, 9, 10, 11, 12, 13], strict=True))
    body = json.dumps(dict(reversed(values.items()))).encode()
    assert HouseBody.parse(body) == [tuple(values.values())]
    assert HousesBody.parse(b"[" + body + b"," + body + b"]") == [tuple(values.values())] * 2


def test_all_faults_are_named_at_once():
    """Whoever sends four mistakes learns of four."""
    record = EXAMPLE | {"RM": "6", "ZN": 101, "OLD": 1}
    del record["LSTAT"]
    assert complaint(HouseBody, record) == {
        "ZN": "ZN should be less than or equal to 100, got 101",
        "RM": 'RM should be a valid number, got "6"',
        "LSTAT": "No LSTAT provided",
        "OLD": "There is no feature OLD",
    }


def test_faults_in_an_array_carry_the_number_of_the_record():
    """Counted from 0, as in the array."""
    assert complaint(HousesBody, [EXAMPLE, EXAMPLE | {"AGE": -1}, 7]) == {
        "1.AGE": "AGE should be greater than or equal to 0, got -1",
        "2": "Record 2 should be an object, got 7",
    }


@pytest.mark.parametrize("record", [EXAMPLE | {"RM": "x" * 100_000}, EXAMPLE | {"x" * 100_000: 1}])
def test_long_names_and_values_are_cut(record):
    """An answer does not give a megabyte back."""
    assert len(str(complaint(HouseBody, record))) < 200


def test_long_names_that_are_cut_to_the_same_are_counted():
    """None of them goes unsaid."""
    record = EXAMPLE | {"x" * 40 + end: 1 for end in "abc"}
    cut = "x" * 37 + "..."
    assert complaint(HouseBody, record) == {cut: f"There is no feature {cut} (3 times)"}
    assert complaint(HousesBody, [EXAMPLE, record]) == {
        f"1.{cut}": f"There is no feature {cut} (3 times)"
    }


def test_long_names_of_features_are_not_cut():
    """Two of them might begin with the same 37 characters."""
    names = ["x" * 40 + end for end in "ab"]

    class Body(RequestBody):
        record_type = create_model("Long", **dict.fromkeys(names, (float, ...)))

    assert complaint(Body, {}) == {name: f"No {name} provided" for name in names}


def test_feature_given_repeatedly_is_named_by_its_record():
    """Once, with how often."""
    record = json.dumps(EXAMPLE)
    repeated = record.replace("{", '{"RM": 6, "RM": 6, ')
    body = f"[{record}, {repeated}, {repeated}]".encode()
    assert complaint(HousesBody, body) == {
        "1.RM": "RM is given 3 times",
        "2.RM": "RM is given 3 times",
    }


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"NAME": "10:30", "SIZE": 1}', None),
        ('{"NAME": "x"}', None),
        ('{"NAME": "x", "NAME": "x"}', {"NAME": "NAME is given 2 times"}),
    ],
)
def test_repetitions_are_told_from_colons_in_strings_and_from_defaults(text, told):
    """In whatever record type somebody may have."""

    class Body(RequestBody):
        record_type = create_model("Named", NAME=(str, ...), SIZE=(float, 0))

    if told is None:
        assert len(Body.parse(text.encode())) == 1
    else:
        assert complaint(Body, text.encode()) == told


@pytest.mark.parametrize("text", [r"a, \", b", "c:", "\\", "a,,,,,,,,,,b:"])
def test_commas_in_strings_part_no_values(text):
    """An array of categories that have commas in them is as long as its values."""

    class Body(RequestBody):
        record_type = create_model("Named", NAME=(str, ...))
        max_records = 100

    records = json.dumps([{"NAME": text}] * 100)
    assert Body.parse(records.encode()) == [(text,)] * 100
    numbers = f"[{records}, {json.dumps([text] * 300)}]"
    assert complaint(Body, numbers.encode()) == ("Send at most 100 values; the body has many more")


def test_too_many_faults_are_counted():
    """An array of 1000 empty records is 3 KB, and would be answered with half a megabyte."""
    assert complaint(HousesBody, [{}] * 1000) == (
        f"{13 * MAX_ERRORS} faults are too many to name: is this the right body?"
    )


@pytest.mark.parametrize("spec", [Prediction, Predictions])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_prediction_that_is_not_finite_is_not_rendered(spec, value):
    """JSON has no word for it."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        spec.to_json([value])
