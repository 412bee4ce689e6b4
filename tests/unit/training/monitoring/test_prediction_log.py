"""Reading the prediction log: rotated files, several workers, damaged lines, a log that grows."""

import json

import pytest

from serving.observability.prediction_log import PredictedRequest, PredictionLog
from serving.observability.rotating_file import FILES
from serving.settings import Settings
from tests.helpers.logs import write_log
from tests.helpers.mpg import ROW, SCHEMAS
from training.errors import InvalidLogError
from training.monitoring import prediction_log
from training.monitoring.prediction_log import open_files, read_chunks, read_predictions

MISSING = ("amc", None, 8, 304.0, None, 3433, 12.5, 1970, None)


def log_lines(folder, *entries):
    """Write lines to a log, from entries or text."""
    lines = [entry if isinstance(entry, str) else json.dumps(entry) for entry in entries]
    (folder / "predictions-1.jsonl").write_text("".join(f"{line}\n" for line in lines))


def entry(**changes):
    """Return the JSON object of a line, with some changes."""
    common = {"timestamp": "2025-12-01T00:00:00.000Z", "request_id": "a", "record_number": 0}
    features = dict(zip(SCHEMAS, ROW, strict=True))
    return common | {"model_tag": "mpg:1"} | features | {"prediction": 18.5} | changes


def without(name):
    """Return the JSON object of a line, without one name."""
    return {key: value for key, value in entry().items() if key != name}


def test_rows_are_those_of_the_requests(tmp_path):
    """With their keys; missing values are NaN or None."""
    write_log(tmp_path, SCHEMAS, [([ROW, MISSING], [18.5, 19.5]), ([ROW], [18.5])])
    predictions = read_predictions(tmp_path, SCHEMAS)
    common, features, _ = predictions
    assert common["record_number"].tolist() == [0, 1, 0]
    assert common["prediction"].tolist() == [18.5, 19.5, 18.5]
    assert predictions.is_valid.all()
    assert features.iloc[0].tolist() == list(ROW)
    values = [None if value != value else value for value in features.iloc[1]]
    assert values == list(MISSING)


def test_log_of_several_workers_and_replicas_is_read_whole(tmp_path):
    """Each replica may have its own folder."""
    for worker_index in (1, 2):
        write_log(tmp_path / "replica-a", SCHEMAS, [([ROW], [1])], worker_index=worker_index)
    write_log(tmp_path / "replica-b", SCHEMAS, [([ROW], [1])], tag="house_price:2")
    common = read_predictions(tmp_path, SCHEMAS).common
    tags = ["house_price:1", "house_price:1", "house_price:2"]
    assert sorted(common["model_tag"]) == tags
    assert common["request_id"].nunique() == 3


def test_log_without_record_numbers_is_read(tmp_path):
    """An earlier version wrote none: each record gets the number 0."""
    log_lines(tmp_path, without("record_number"), without("record_number"))
    assert read_predictions(tmp_path, SCHEMAS).common["record_number"].tolist() == [0, 0]


@pytest.mark.parametrize("n_requests", [1000, 4000])
def test_rotated_files_are_read(tmp_path, n_requests):
    """The newest lines are all there."""
    write_log(tmp_path, SCHEMAS, [([ROW], [n]) for n in range(n_requests)], prediction_log_mb=1)
    assert len(list(tmp_path.iterdir())) > 1
    predictions = read_predictions(tmp_path, SCHEMAS).common["prediction"]
    assert sorted(predictions) == list(range(n_requests - len(predictions), n_requests))
    assert len(predictions) > 900


def test_file_that_is_renamed_meanwhile_is_opened_once(tmp_path, monkeypatch):
    """No file is lost, though the log rotates after the first one is opened."""
    log = PredictionLog(Settings(prediction_log=str(tmp_path)), SCHEMAS, worker_index=1)
    for n in range(FILES - 2):
        log.write([PredictedRequest(0, "a", "mpg:1", [ROW], [n])])
        log.file.rotate()
    log.write([PredictedRequest(0, "a", "mpg:1", [ROW], [FILES - 2])])
    log.writer.close()
    rotations = iter([True])
    fstat = prediction_log.os.fstat

    def rotate_and_stat(number):
        if next(rotations, None):
            log.file.rotate()
        return fstat(number)

    monkeypatch.setattr(prediction_log.os, "fstat", rotate_and_stat)
    files = [file for _, file in open_files(tmp_path)]
    monkeypatch.undo()
    lines = [json.loads(line)["prediction"] for file in files for line in file]
    assert sorted(lines) == list(range(FILES - 1))
    for file in files:
        file.close()


def test_line_that_is_being_written_is_skipped(tmp_path):
    """Even if its end is written before the next lines are read."""
    path = tmp_path / "predictions-1.jsonl"
    log_lines(tmp_path, entry())
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:-9])
    chunks = read_chunks(tmp_path)
    first = next(chunks)
    path.write_bytes(whole * 3)
    assert [len(entries) for entries in [first, *chunks]] == [1]


def test_log_that_grows_meanwhile_is_read_to_its_end(tmp_path, monkeypatch):
    """Lines that are added meanwhile are read, too."""
    monkeypatch.setattr(prediction_log, "CHUNK_LINES", 2)
    log_lines(tmp_path, entry(), entry(), entry())
    chunks = read_chunks(tmp_path)
    n_lines = len(next(chunks))
    with (tmp_path / "predictions-1.jsonl").open("a") as file:
        file.write(f"{json.dumps(entry())}\n" * 2)
    assert n_lines + sum(map(len, chunks)) == 5


DAMAGED = {
    "truncated": '{"timestamp": "2025',
    "empty": "",
    "number": "5",
    "two values": '{"a": 1}, {"b": 2}',
    "no request ID": without("request_id"),
    "no prediction": without("prediction"),
    "prediction is text": entry(prediction="18.5"),
    "prediction is NaN": json.dumps(entry(prediction=float("nan"))),
    "record number is text": entry(record_number="0"),
}


@pytest.mark.parametrize("line", DAMAGED.values(), ids=DAMAGED)
def test_damaged_line_is_named(tmp_path, line):
    """With its file and its number."""
    log_lines(tmp_path, entry(), line, entry())
    with pytest.raises(InvalidLogError, match=r"predictions-1.jsonl, line 2 is damaged: remove it"):
        read_predictions(tmp_path, SCHEMAS)


def test_invalid_time_is_reported(tmp_path):
    """The message has the time."""
    log_lines(tmp_path, entry(), entry(timestamp="yesterday"))
    with pytest.raises(InvalidLogError, match="yesterday"):
        read_predictions(tmp_path, SCHEMAS)


def test_log_without_lines_is_reported(tmp_path):
    """As is a folder without a log."""
    with pytest.raises(InvalidLogError, match="There is no folder"):
        read_predictions(tmp_path, SCHEMAS)
    log_lines(tmp_path)
    with pytest.raises(InvalidLogError, match="has no line yet"):
        read_predictions(tmp_path, SCHEMAS)


INVALID_RECORDS = {
    "feature missing": without("weight"),
    "text for a number": entry(weight="3433"),
    "boolean for a number": entry(weight=True),
    "number for a boolean": entry(wagon=1),
    "number for a text": entry(name=5),
    "null for a text": entry(name=None),
}


@pytest.mark.parametrize("line", INVALID_RECORDS.values(), ids=INVALID_RECORDS)
def test_record_that_does_not_match_the_record_type_is_invalid(tmp_path, line):
    """Its prediction counts; its features are missing."""
    log_lines(tmp_path, entry(), line)
    predictions = read_predictions(tmp_path, SCHEMAS)
    assert predictions.is_valid.tolist() == [True, False]
    assert predictions.invalid_feature[1] in ("weight", "wagon", "name")
    assert predictions.features.iloc[1].isna().all()
    assert predictions.common["prediction"].tolist() == [18.5, 18.5]


def test_first_invalid_feature_is_named(tmp_path):
    """In the order of the record type."""
    log_lines(tmp_path, entry(year="1970", cylinders=None))
    assert read_predictions(tmp_path, SCHEMAS).invalid_feature.tolist() == ["cylinders"]
