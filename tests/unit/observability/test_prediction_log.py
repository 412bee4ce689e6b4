"""The prediction log: its lines, its files, and what happens if they cannot be written."""

import json
import random
import subprocess

import pandas as pd
import pytest
from prometheus_client import REGISTRY

from house import EXAMPLE, FEATURES
from serving.observability import LOG_COLUMNS
from serving.observability.prediction_log import MAX_INLINE_ROWS, PredictedRequest, PredictionLog
from serving.observability.rotating_file import FILES, RotatingFile
from serving.settings import Settings
from tests.helpers.commands import running_server
from tests.helpers.tutorial import TUTORIAL_PREDICTION


def log_requests(folder, *requests, **settings):
    """Log requests, given as their rows and predictions, and close the log."""
    log = PredictionLog(
        Settings(prediction_log=str(folder), **settings), ["a", "b"], worker_index=1
    )
    for rows, predictions in requests:
        random.seed(0)  # as a model may do for each prediction
        log.add(PredictedRequest(1e9, "id-1", "house_price:1", rows, predictions))
    log.writer.close()


def count_lost():
    """Return the number of requests that were lost so far."""
    return REGISTRY.get_sample_value("prediction_log_requests_lost_total")


def test_pandas_reads_a_row_for_each_record(tmp_path):
    """With time, request ID, number in the request, model tag, features and prediction."""
    log_requests(tmp_path, ([(1.5, True), (2.0, "x")], [3.25, 4.5]))
    frame = pd.read_json(tmp_path / "predictions-1.jsonl", lines=True)
    assert list(frame) == [*LOG_COLUMNS[:-1], "a", "b", LOG_COLUMNS[-1]]
    assert frame["timestamp"][0] == pd.Timestamp("2001-09-09T01:46:40Z")
    assert frame.loc[1, "request_id":].tolist() == ["id-1", 1, "house_price:1", 2.0, "x", 4.5]


def test_records_of_each_request_are_numbered_from_0(tmp_path):
    """Also of a request that is too large to be serialized on the event loop."""
    n_records = MAX_INLINE_ROWS + 1
    log_requests(tmp_path, ([(1, 2)], [3]), ([(1, 2)] * n_records, [3] * n_records))
    frame = pd.read_json(tmp_path / "predictions-1.jsonl", lines=True)
    assert frame["record_number"].tolist() == [0, *range(n_records)]


def test_sample_has_the_configured_share_of_requests(tmp_path):
    """The choice is random, also if the model seeds the generator of `random`."""
    log_requests(tmp_path, *[([(1, 2)], [3])] * 2000, prediction_log_sample=0.5)
    lines = (tmp_path / "predictions-1.jsonl").read_text().splitlines()
    assert 800 < len(lines) < 1200


@pytest.mark.parametrize("lines_per_write", [1, 7, 500])
def test_rotated_files_have_bounded_size_and_whole_lines(tmp_path, lines_per_write):
    """The oldest file is dropped."""
    file = RotatingFile(tmp_path / "predictions-1.jsonl", 1000)
    lines = [b'{"number": %d}\n' % number for number in range(500)]
    for start in range(0, 500, lines_per_write):
        file.write(b"".join(lines[start : start + lines_per_write]))
    files = list(tmp_path.iterdir())
    assert len(files) == FILES
    assert sum(path.stat().st_size for path in files) <= FILES * 1000
    newest_first = [tmp_path / "predictions-1.jsonl"]
    newest_first += [tmp_path / f"predictions-1.{number}.jsonl" for number in range(1, FILES)]
    text = "".join(path.read_text() for path in reversed(newest_first))
    numbers = [json.loads(line)["number"] for line in text.splitlines()]
    assert numbers == list(range(500 - len(numbers), 500))


def test_line_larger_than_a_file_is_written_to_its_own_file(tmp_path):
    """It is not lost, and no other line is."""
    file = RotatingFile(tmp_path / "predictions-1.jsonl", 10)
    file.write(b"1234\n" + b"x" * 20 + b"\n56\n")
    assert file.path.read_bytes() == b"56\n"
    assert file.path.with_suffix(".1.jsonl").read_bytes() == b"x" * 20 + b"\n"
    assert file.path.with_suffix(".2.jsonl").read_bytes() == b"1234\n"


def test_partial_line_of_a_killed_process_is_removed(tmp_path):
    """Otherwise the next line would be appended to it, and be unreadable, too."""
    path = tmp_path / "predictions-1.jsonl"
    path.write_bytes(b'{"number": 1}\n{"num')
    RotatingFile(path, 1000).write(b'{"number": 2}\n')
    assert path.read_bytes() == b'{"number": 1}\n{"number": 2}\n'


def test_removed_file_is_created_again(tmp_path):
    """A log shipper may move the file away."""
    file = RotatingFile(tmp_path / "predictions-1.jsonl", 1000)
    file.write(b"1\n")
    file.path.unlink()
    file.write(b"2\n")
    assert file.path.read_bytes() == b"2\n"


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 KiB."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", tmp_path], check=True)  # noqa: S607
    yield tmp_path
    subprocess.run(["umount", tmp_path], check=True)  # noqa: S607


@pytest.mark.slow  # needs root
def test_full_disk_loses_lines_only(small_disk, caplog):
    """Lost requests are counted and logged once; with free space the log continues, readable."""
    before = count_lost()
    (small_disk / "other").write_bytes(b"x" * 60 * 1024)
    log_requests(small_disk, *[([(number, number)], [number]) for number in range(500)])
    assert count_lost() == before + 500
    (message,) = [record.getMessage() for record in caplog.records]
    assert "No space left on device" in message
    (small_disk / "other").unlink()
    log_requests(small_disk, ([(1, 2)], [3]))
    assert len(pd.read_json(small_disk / "predictions-1.jsonl", lines=True)) == 1


def test_folder_that_cannot_be_created_loses_lines_only(tmp_path):
    """The lost requests are counted."""
    (tmp_path / "file").touch()
    before = count_lost()
    log_requests(tmp_path / "file" / "folder", ([(1, 2)], [3]))
    assert count_lost() == before + 1


@pytest.mark.slow  # a server of its own
def test_service_logs_each_predicted_record(model, tmp_path):
    """With the ID of its request; a rejected request and a what-if request are not logged."""
    folder = tmp_path / "predictions"
    env = {"PREDICTION_LOG": str(folder)}
    with running_server("bentoml", "serve", log=tmp_path / "log", **env) as client:
        headers = {"X-Request-ID": "mine"}
        client.post("/predict", json=EXAMPLE, headers=headers)
        client.post("/predict_batch", json=[EXAMPLE] * 3, headers=headers)
        client.post("/predict", json={}, headers=headers)
        client.post("/predict_batch", json=[EXAMPLE] * 2, headers={"X-What-If": "true"})
    frame = pd.read_json(folder / "predictions-1.jsonl", lines=True)
    assert len(frame) == 4
    assert set(frame["request_id"]) == {"mine"}
    assert frame["record_number"].tolist() == [0, 0, 1, 2]
    assert set(frame["model_tag"]) == {str(model.tag)}
    assert frame[list(FEATURES)].iloc[0].to_dict() == EXAMPLE
    assert frame["prediction"].tolist() == [TUTORIAL_PREDICTION] * 4
