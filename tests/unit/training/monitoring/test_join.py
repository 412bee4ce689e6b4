"""Join predictions with outcomes: matches, and remarks on what is excluded."""

import pytest

from tests.helpers.logs import write_log
from tests.helpers.mpg import ROW, SCHEMAS
from training.errors import InvalidOutcomesError
from training.monitoring.join import LATE_DAYS, join
from training.monitoring.outcomes import read_outcomes
from training.monitoring.prediction_log import read_predictions

OTHER = ("bmw", None, 4, 121.0, None, 2234, 12.5, 1970, None)


@pytest.fixture
def join_text(tmp_path):
    """A function that joins a log with the lines of an outcomes file."""

    def join_lines(*lines, target="mpg"):
        path = tmp_path / "actual.csv"
        path.write_text("".join(f"{line}\n" for line in lines))
        return join(read_predictions(tmp_path, SCHEMAS), read_outcomes(path, target))

    return join_lines


def outcomes_of(joined):
    """Return the outcomes, by request ID and record number."""
    common = joined.predictions.common
    keys = zip(common["request_id"], common["record_number"], strict=True)
    pairs = zip(keys, joined.outcome, strict=True)
    return {key: value for key, value in pairs if value == value}


def test_outcome_is_joined_with_its_record(tmp_path, join_text):
    """The order of the rows and other columns don't matter."""
    one, two = write_log(tmp_path, SCHEMAS, [([ROW], [15]), ([ROW, OTHER], [15, 25])])
    joined = join_text(
        "record_number,mpg,remark,request_id", f'1,26,"late, but right",{two}', f"0,16.5,,{one}"
    )
    assert outcomes_of(joined) == {(two, 1): 26, (one, 0): 16.5}
    assert len(joined.outcome) == 3
    assert joined.remarks == []


def test_record_number_is_optional_for_single_records(tmp_path, join_text):
    """Outcomes of an array need it."""
    one, two = write_log(tmp_path, SCHEMAS, [([ROW], [15]), ([ROW, OTHER], [15, 25])])
    assert outcomes_of(join_text("request_id,mpg", f"{one},16")) == {(one, 0): 16}
    with pytest.raises(InvalidOutcomesError, match=f"{two} has several records"):
        join_text("request_id,mpg", f"{two},16")


REMARKS = {
    "twice": (
        ["{0},0,16", "{0},0,16.0"],
        "repeated outcomes with the same value: 1",
        {0: 16},
    ),
    "contradictory": (
        ["{0},0,16", "{0},0,17", "{1},0,18"],
        "records with contradictory outcomes, excluded: 1 ({0} record 0)",
        {1: 18},
    ),
    "unknown request": (
        ["else,0,16"],
        "outcomes of requests that are not in the log: 1 (else",
        {},
    ),
    "unknown record": (
        ["{0},1,16"],
        "outcomes of records that their request lacks: 1 ({0} record 1)",
        {},
    ),
    "not known yet": (
        ["{0},0,", ",,", "{1},,5", ",0,5"],
        "outcomes without a value, ID or record number: 4",
        {},
    ),
}


@pytest.mark.parametrize(("lines", "remark", "expected"), REMARKS.values(), ids=REMARKS)
def test_excluded_outcome_is_counted(tmp_path, join_text, lines, remark, expected):
    """With the key of an example, except for repeated and missing values."""
    ids = write_log(tmp_path, SCHEMAS, [([ROW], [15]), ([OTHER], [25])])
    joined = join_text("request_id,record_number,mpg", *(line.format(*ids) for line in lines))
    assert outcomes_of(joined) == {(ids[n], 0): value for n, value in expected.items()}
    (only_remark,) = joined.remarks
    assert only_remark.startswith(remark.format(*ids))


@pytest.mark.parametrize("with_numbers", [True, False], ids=["numbers", "log without numbers"])
def test_id_of_different_records_is_excluded(tmp_path, join_text, with_numbers):
    """The outcome may be of any of them. In a log of an earlier version they may be an array."""
    (own,) = write_log(tmp_path, SCHEMAS, [([ROW], [15])], worker_index=1)
    (other,) = write_log(tmp_path, SCHEMAS, [([OTHER], [25])], worker_index=2)
    path = tmp_path / "predictions-2.jsonl"
    path.write_text(path.read_text().replace(other, own))
    if not with_numbers:
        for path in tmp_path.glob("*.jsonl"):
            path.write_text(path.read_text().replace('"record_number":0,', ""))
    joined = join_text("request_id,mpg", f"{own},16")
    assert len(joined.outcome) == 0
    assert joined.remarks == [
        f"predictions of different records with the same ID, excluded: 2 ({own} record 0)"
    ]


def test_retry_counts_once_for_each_model(tmp_path, join_text):
    """It has the same ID and the same record; missing values are equal, too."""
    (one,) = write_log(tmp_path, SCHEMAS, [([OTHER], [25])])
    path = tmp_path / "predictions-1.jsonl"
    line = path.read_text()
    path.write_text(line + line + line.replace('house_price:1"', 'house_price:2"'))
    joined = join_text("request_id,mpg", f"{one},26")
    assert joined.predictions.common["model_tag"].tolist() == ["house_price:1", "house_price:2"]
    assert joined.outcome.tolist() == [26, 26]
    assert joined.remarks == ["predictions of retried requests, excluded: 1"]


def test_late_outcomes_are_counted(tmp_path, join_text):
    """If the file has the times. Outcomes that are older than their prediction are counted, too."""
    ids = write_log(tmp_path, SCHEMAS, [([ROW], [15])] * 4)
    days = ["2025-12-01T12:00:00+00:00", "2025-12-03", "2026-03-01T00:00", "2025-11-30"]
    lines = [f"{each},16,{day}" for each, day in zip(ids, days, strict=True)]
    _, late, early = join_text("request_id,mpg,timestamp", *lines).remarks
    assert late == f"outcomes that came late, after more than {LATE_DAYS} days: 1"
    assert early.startswith("outcomes older than their prediction")


INVALID = {
    "empty file": ("", "is not a CSV file"),
    "no request ID": ("id,mpg\na,16\n", "line 1: the column request_id is missing among id, mpg"),
    "no target": (
        "request_id,MPG\na,16\n",
        "line 1: the column mpg is missing among request_id, MPG",
    ),
    "target is text": (
        "request_id,mpg\na,16\n\nb,many\n",
        "line 4: mpg is 'many', which is not a number",
    ),
    "target is infinite": (
        "request_id,mpg\na,inf\n",
        "line 2: mpg is 'inf', which is not a number",
    ),
    "decimal comma": ('request_id,mpg\na,"16,5"\nb,"1,5"', "not a number (and in 1 other lines)"),
    "record number": ("request_id,record_number,mpg\na,0.5,16\n", "record_number is '0.5', which"),
    "negative": (
        "request_id,record_number,mpg\na,-1,16\n",
        "record_number is '-1', which is not a who",
    ),
    "time": (
        "request_id,mpg,timestamp\na,16,yesterday\n",
        "'yesterday', which is not an ISO 8601 time",
    ),
    "surplus cells": ("request_id,mpg\na,16,5\n", "more cells than line 1 has columns"),
    "surplus cells later": ("request_id,mpg\na,16\na,16,5\n", "line 3"),
    "Latin-1": ("request_id,mpg\n\udce9,16\n", "is not UTF-8: convert the file"),
}


@pytest.mark.parametrize(("text", "message"), INVALID.values(), ids=INVALID)
def test_invalid_outcomes_are_rejected(tmp_path, text, message):
    """With one line that names the file and, if known, the line or the column."""
    path = tmp_path / "actual.csv"
    path.write_text(text, errors="surrogateescape")
    with pytest.raises(InvalidOutcomesError) as raised:
        read_outcomes(path, "mpg")
    assert message in str(raised.value)
    assert str(raised.value).startswith(str(path))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("target", ["key", "request", "key_code", "outcome", "timestamp"])
def test_target_may_have_any_other_name(tmp_path, join_text, target):
    """Such as those of the columns that the join adds."""
    (one,) = write_log(tmp_path, SCHEMAS, [([ROW], [15])])
    joined = join_text(f"request_id,{target}", f"{one},16", target=target)
    assert outcomes_of(joined) == {(one, 0): 16}
    assert joined.remarks == []


def test_target_with_the_name_of_a_key_is_rejected(tmp_path):
    """There would be two columns of that name."""
    with pytest.raises(InvalidOutcomesError, match="named request_id: rename it"):
        read_outcomes(tmp_path, "request_id")
