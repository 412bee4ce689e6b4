"""A JSON body becomes rows or an error message; predictions become JSON."""

import json

import pytest
from pydantic import create_model

from house import EXAMPLE, FEATURES
from service import HouseBody, HousesBody
from serving.errors import APIError
from serving.record_errors import MAX_ERRORS
from serving.records import Prediction, Predictions, RequestBody


def error_message(body_type, body):
    """Return the message of the 400 error for a body, given as bytes or as an object."""
    with pytest.raises(APIError) as caught:
        body_type.parse(body if isinstance(body, bytes) else json.dumps(body).encode())
    assert caught.value.status == 400
    return json.loads(caught.value.content)["message"]


def test_row_has_the_values_in_feature_order():
    """The order of the names in the body does not matter."""
    values = dict(zip(FEATURES, [1, 2, 3, 1, 5, 6, 7, 8, 9, 10, 11, 12, 13], strict=True))
    body = json.dumps(dict(reversed(values.items()))).encode()
    assert HouseBody.parse(body) == [tuple(values.values())]
    assert HousesBody.parse(b"[" + body + b"," + body + b"]") == [tuple(values.values())] * 2


@pytest.mark.parametrize("body_type", [HouseBody, HousesBody])
def test_byte_order_mark_of_utf8_is_skipped(body_type):
    """Editors on Windows write one into a file, which `curl -d @house.json` sends."""
    body = json.dumps([EXAMPLE] if body_type.max_records else EXAMPLE).encode("utf-8-sig")
    assert body_type.parse(body) == [tuple(EXAMPLE.values())]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_other_encoding_is_rejected_with_the_right_one(encoding):
    """PowerShell's `>` writes UTF-16."""
    assert (
        error_message(HouseBody, json.dumps(EXAMPLE).encode(encoding)) == "Send the JSON in UTF-8"
    )


def test_value_in_a_message_is_escaped_once():
    """The message is readable once its JSON is parsed."""
    message = error_message(HouseBody, EXAMPLE | {"RM": 'Peugeot é "1"'})
    assert message == {"RM": 'RM should be a valid number, got "Peugeot é \\"1\\""'}


def test_all_errors_of_a_record_are_reported():
    """One message names the errors of all four features."""
    record = EXAMPLE | {"RM": "6", "ZN": 101, "OLD": 1}
    del record["LSTAT"]
    assert error_message(HouseBody, record) == {
        "ZN": "ZN should be less than or equal to 100, got 101",
        "RM": 'RM should be a valid number, got "6"',
        "LSTAT": "No LSTAT provided",
        "OLD": "There is no feature OLD",
    }


def test_errors_in_an_array_have_the_index_of_the_record():
    """Indices start at 0."""
    assert error_message(HousesBody, [EXAMPLE, EXAMPLE | {"AGE": -1}, 7]) == {
        "1.AGE": "AGE should be greater than or equal to 0, got -1",
        "2": "Record 2 should be an object, got 7",
    }


@pytest.mark.parametrize("record", [EXAMPLE | {"RM": "x" * 100_000}, EXAMPLE | {"x" * 100_000: 1}])
def test_long_names_and_values_are_truncated(record):
    """Otherwise a response could be as large as its request."""
    assert len(str(error_message(HouseBody, record))) < 200


def test_unknown_names_that_are_equal_after_truncation_are_counted():
    """They share one entry of the message, which gives their number."""
    record = EXAMPLE | {"x" * 40 + end: 1 for end in "abc"}
    truncated = "x" * 37 + "..."
    assert error_message(HouseBody, record) == {
        truncated: f"There is no feature {truncated} (3 times)"
    }
    assert error_message(HousesBody, [EXAMPLE, record]) == {
        f"1.{truncated}": f"There is no feature {truncated} (3 times)"
    }


def test_names_of_features_are_not_truncated():
    """Two of them may begin with the same 37 characters."""
    names = ["x" * 40 + end for end in "ab"]

    class Body(RequestBody):
        record_type = create_model("Long", **dict.fromkeys(names, (float, ...)))

    assert error_message(Body, {}) == {name: f"No {name} provided" for name in names}


def test_repeated_feature_is_reported_with_its_count():
    """The message has one entry per record."""
    record = json.dumps(EXAMPLE)
    repeated = record.replace("{", '{"RM": 6, "RM": 6, ')
    body = f"[{record}, {repeated}, {repeated}]".encode()
    assert error_message(HousesBody, body) == {
        "1.RM": "RM is given 3 times",
        "2.RM": "RM is given 3 times",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"NAME": "10:30", "SIZE": 1}', None),
        ('{"NAME": "x", "NAME": "x", "SIZE": 1}', {"NAME": "NAME is given 2 times"}),
    ],
    ids=["colon in a string", "repeated feature"],
)
def test_colon_in_a_string_does_not_count_as_a_repetition(text, message):
    """The parser looks for repeated features only if the number of colons is not as expected."""

    class Body(RequestBody):
        record_type = create_model("Named", NAME=(str, ...), SIZE=(float, ...))

    if message is None:
        assert len(Body.parse(text.encode())) == 1
    else:
        assert error_message(Body, text.encode()) == message


@pytest.mark.parametrize(
    "body",
    [
        b'{"x": [' + b",".join([b"[" * 150 + b"]" * 150] * 110) + b"]}",
        b'[{"x": [' + b",".join([b'{"a": {}}'] * 13_000) + b"]}]",
        b"[" + b",".join([b"[[[[[[[[[]]]]]]]]]"] * 13_000) + b"]",
    ],
    ids=["arrays in a record", "objects in an array", "arrays in an array"],
)
def test_nested_arrays_and_objects_are_rejected_before_validation(body):
    """Pydantic would copy them into an error for each missing feature, which took seconds."""
    assert "the body has many more" in error_message(HousesBody, body)


@pytest.mark.parametrize("text", [r"a, \", b", "c:", "{[{[{[{[", "\\", "a,,,,,,,,,,b:"])
def test_commas_in_strings_do_not_count_as_separators(text):
    """The limit on the number of values counts commas, but only those outside strings."""

    class Body(RequestBody):
        record_type = create_model("Named", NAME=(str, ...))
        max_records = 100

    records = json.dumps([{"NAME": text}] * 100)
    assert Body.parse(records.encode()) == [(text,)] * 100
    oversized = f"[{records}, {json.dumps([text] * 300)}]"
    assert (
        error_message(Body, oversized.encode()) == "Send at most 100 values; the body has many more"
    )


def test_too_many_errors_are_counted_instead_of_listed():
    """An array of 1000 empty records has 3 kB; a list of its errors would have 0.5 MB."""
    assert error_message(HousesBody, [{}] * 1000) == (
        f"The body has {13 * MAX_ERRORS} errors, too many to list; check its format"
    )


@pytest.mark.parametrize("value", [12.273424794987879, 0.1 + 0.2, 1e-320, -1.7e308, 5.0])
def test_prediction_is_serialized_with_all_digits(value):
    """JSON gives back the same float."""
    assert json.loads(Prediction.to_json([value])) == {"prediction": value}
    assert json.loads(Predictions.to_json([value, 1.0])) == {"predictions": [value, 1.0]}
