"""The score command on one machine: houses in each kind of file, compared with the service."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from house import EXAMPLE, FEATURES, LabelledHouse
from tests.helpers.commands import ROOT, run, wait_until
from tests.helpers.json_lines import read_json_lines
from tests.helpers.training_cli import run_training
from tests.helpers.tutorial import TUTORIAL_PREDICTION
from train import PROJECT
from training.data import parse_csv
from training.scoring.command import score_file

ENDINGS = ("csv", "jsonl", "parquet")
N_ROWS = 1200


@pytest.fixture(scope="module")
def houses():
    """Houses with a column `id` and a column `note`, whose cells need quotes in CSV."""
    X = parse_csv(PROJECT.data.read_text(), LabelledHouse)[list(FEATURES)]
    houses = pd.concat([X] * 3, ignore_index=True).head(N_ROWS)
    generator = np.random.default_rng(0)
    houses["CRIM"] *= generator.uniform(0.5, 2, len(houses))
    houses.insert(0, "id", [f"{n:05}" for n in range(len(houses))])
    houses["note"] = ['sold\nby "auction", 1970' if n % 7 == 0 else "é" for n in range(N_ROWS)]
    return houses


@pytest.fixture(scope="module")
def service_predictions(client, houses):
    """The predictions of the service for the houses."""
    records = houses[list(FEATURES)].to_dict("records")
    predictions = []
    for start in range(0, len(records), 1000):
        response = client.post("/predict_batch", json=records[start : start + 1000])
        predictions += response.json()["predictions"]
    return predictions


def write(frame, path):
    """Write a table to a file, in the format of its ending."""
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    elif path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        records = frame.to_dict("records")
        path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return path


def read(path):
    """Return a file that the command wrote, as a table."""
    if path.suffix == ".csv":
        return pd.read_csv(path, dtype={"id": str})
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    return pd.DataFrame(read_json_lines(path))


def score(data, output, *options):
    """Run the command; return it as a finished process."""
    return run_training("score", data, output, *options, check=False)


def score_text(tmp_path, text, ending="csv"):
    """Score a text; return the process, the path of the output, and the rejected rows."""
    data, output = tmp_path / f"data.{ending}", tmp_path / "out.csv"
    data.write_bytes(text if isinstance(text, bytes) else text.encode())
    done = score(data, output)
    rejected = tmp_path / "out.rejected.jsonl"
    return done, output, read_json_lines(rejected) if rejected.exists() else []


def csv_text(*rows, header=FEATURES):
    """Return a CSV text: the header, and rows with some changes to the example."""
    lines = [",".join(header)]
    lines += [",".join(str((EXAMPLE | row).get(name, "")) for name in header) for row in rows]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("output_ending", ENDINGS)
@pytest.mark.parametrize("data_ending", ENDINGS)
def test_predictions_equal_those_of_the_service(
    model, houses, service_predictions, tmp_path, data_ending, output_ending
):
    """Bit for bit and in order, for each pair of formats. All columns of the input are kept."""
    data, output = tmp_path / f"in.{data_ending}", tmp_path / f"out.{output_ending}"
    done = score(write(houses, data), output)
    assert done.returncode == 0, done.stderr
    scored = read(output)
    assert list(scored) == [*houses, "prediction", "model_tag"]
    assert scored["prediction"].tolist() == service_predictions
    assert set(scored["model_tag"]) == {str(model.tag)}
    pd.testing.assert_frame_equal(scored[list(houses)], houses, check_dtype=False)
    assert sorted(tmp_path.iterdir()) == sorted([data, output])
    assert f"Scored 1,200 of 1,200 rows with {model.tag}: {output}" in done.stdout
    assert "Columns that are not features, kept in the output: id, note\n" in done.stdout


@pytest.mark.parametrize("data_ending", ENDINGS)
def test_invalid_row_is_rejected_with_the_message_of_the_service(
    model, client, houses, service_predictions, tmp_path, data_ending
):
    """And with its line or row number; the others are scored, and the exit status is 3."""
    wrong = houses.head(100).copy()
    wrong.loc[17, ["LSTAT", "CHAS"]] = [101.0, 0.5]
    wrong.loc[60, "RM"] = -1.0
    output = tmp_path / "out.parquet"
    done = score(write(wrong, tmp_path / f"in.{data_ending}"), output)
    assert done.returncode == 3
    assert "Scored 98 of 100 rows" in done.stdout
    assert f"Rejected 2: {tmp_path / 'out.rejected.jsonl'}" in done.stdout
    rejected = read(tmp_path / "out.rejected.jsonl")
    messages = [
        client.post("/predict", json=wrong.loc[n, list(FEATURES)].to_dict()).json()["message"]
        for n in (17, 60)
    ]
    assert rejected["message"].tolist() == messages
    column, numbers = {
        # Three of the notes before row 17, and nine before row 60, have a line end inside.
        "csv": ("line", [19 + 3, 62 + 9]),
        "jsonl": ("line", [18, 61]),
        "parquet": ("row", [18, 61]),
    }[data_ending]
    assert rejected[column].tolist() == numbers
    kept = [n for n in range(100) if n not in (17, 60)]
    assert read(output)["prediction"].tolist() == [service_predictions[n] for n in kept]
    assert read(output)["id"].tolist() == houses["id"][kept].tolist()


def test_invalid_json_line_is_rejected_with_the_message_of_the_service(model, client, tmp_path):
    """If it is not JSON or not an object, or if a feature is invalid, missing or repeated."""
    record = json.dumps(EXAMPLE)
    lines = [
        record[:-1],
        "5",
        record.replace('"RM": 5.3', '"RM": "5.3"'),
        record.replace('"RM": 5.3, ', ""),
        record.replace('"RM": 5.3', '"RM": 5.3, "RM": 5.4'),
        record.replace('"RM": 5.3', '"RM": NaN'),
        record.replace('"RM": 5.3', '"RM": null'),
        record.replace('"RM": 5.3', '"RM": {}'),
    ]
    done, output, rejected = score_text(tmp_path, "\n".join([record, "", *lines, record]), "jsonl")
    assert done.returncode == 3
    headers = {"Content-Type": "application/json"}
    errors = [client.post("/predict", content=line, headers=headers).json() for line in lines]
    assert rejected == [{"line": n} | error for n, error in enumerate(errors, 3)]
    assert read(output)["prediction"].tolist() == [TUTORIAL_PREDICTION] * 2


CELLS = {
    "text": ("n/a", {"RM": 'RM should be a valid number, got "n/a"'}),
    "NaN": ("nan", {"RM": 'RM should be a valid number, got "nan"'}),
    "infinite": ("1e999", {"RM": "RM should be a finite number, got Infinity"}),
    "empty": ("", {"RM": 'RM should be a valid number, got ""'}),
    "JSON in place of a number": ('"5,""RM"":6"', {"RM": 'RM should be a valid number, got "5'}),
    "NUL": ("5\0", {"RM": 'RM should be a valid number, got "5\\u0000"'}),
    "other digits": ("٣", {"RM": 'RM should be a valid number, got "٣"'}),
    "too few cells": ("5\n", "There are 6 cells for 13 columns"),
}


@pytest.mark.parametrize(("cell", "message"), CELLS.values(), ids=CELLS)
def test_cell_without_a_number_is_rejected(model, tmp_path, cell, message):
    """The other rows are scored."""
    text = csv_text({}, {"RM": cell}, {})
    _, output, rejected = score_text(tmp_path, text)
    assert [line["line"] for line in rejected] in ([3], [3, 4])
    if isinstance(message, dict):
        assert rejected[0]["message"]["RM"].startswith(message["RM"])
    else:
        assert rejected[0]["message"] == message
    assert read(output)["prediction"].tolist() == [TUTORIAL_PREDICTION] * 2


def test_cells_are_read_as_in_the_training_data(model, client, tmp_path):
    """Numbers may have spaces around them, a sign, and no digit before or after the point."""
    text = csv_text({"RM": " +5.3 ", "DIS": "2.1", "RAD": "24.", "NOX": ".614"})
    done, output, _ = score_text(tmp_path, text)
    assert done.returncode == 0, done.stderr
    assert read(output)["prediction"].tolist() == [TUTORIAL_PREDICTION]
    assert " +5.3 " in output.read_text()


def test_row_of_ten_megabytes_is_scored(model, tmp_path):
    """So are the rows before and after it; blank lines and a byte order mark are skipped."""
    header = (*FEATURES, "note")
    text = csv_text({}, {"note": "x" * 10_000_000}, {}, header=header).replace("\n", "\r\n\r\n")
    done, output, _ = score_text(tmp_path, b"\xef\xbb\xbf" + text.encode())
    assert done.returncode == 0, done.stderr
    assert read(output)["prediction"].tolist() == [TUTORIAL_PREDICTION] * 3


def test_file_without_rows_gives_output_without_rows(model, tmp_path):
    """With the columns of the file or, if JSON Lines have no line, those of the record type."""
    for text, ending in [(csv_text(), "csv"), ("", "jsonl")]:
        done, output, _ = score_text(tmp_path, text, ending)
        assert done.returncode == 0, done.stderr
        assert list(read(output)) == [*FEATURES, "prediction", "model_tag"]
        assert "Scored 0 of 0 rows" in done.stdout


FILES = {
    "Latin-1": ("csv", csv_text({}, header=(*FEATURES, "né")).encode("latin1"), "line 1 is not"),
    "UTF-16": ("csv", csv_text({}).encode("utf-16"), "line 1 is not UTF-8"),
    "Latin-1 in a row": ("jsonl", b'{}\n{"a": "\xe9"}\n', "line 2 is not UTF-8"),
    "no columns": ("csv", b"\n", "line 1 is empty"),
    "empty": ("csv", b"", "line 1 is empty"),
    "old line ends": ("csv", csv_text({}).replace("\n", "\r").encode(), "has a CR inside"),
    "CR in a cell": ("csv", csv_text({"RM": "5\r3"}).encode(), "has a CR inside"),
    "open quote": ("csv", csv_text({}, {"CRIM": '"1'}, {}).encode(), "line 3: a quote is not"),
    "repeated column": ("csv", csv_text({}, header=(*FEATURES, "RM")).encode(), "the name RM"),
    "missing columns": ("csv", b"CRIM;ZN\n1;2\n", "There is no column CRIM, ZN"),
    "prediction": (
        "csv",
        csv_text(header=(*FEATURES, "prediction")).encode(),
        "gets a column prediction",
    ),
    "prediction in JSON": (
        "jsonl",
        b'{"model_tag": "a"}',
        "gets a column model_tag",
    ),
    "no Parquet": ("parquet", csv_text({}).encode(), "not a complete Parquet file"),
    "empty Parquet": ("parquet", b"", "not a complete Parquet file"),
}


@pytest.mark.parametrize(("ending", "content", "sentence"), FILES.values(), ids=FILES)
def test_unusable_file_is_reported(model, tmp_path, ending, content, sentence):
    """The exit status is 1, and the output of an earlier run stays as it was."""
    (tmp_path / "out.csv").write_text("earlier")
    done, output, _ = score_text(tmp_path, content, ending)
    assert (done.returncode, done.stdout) == (1, "")
    message = done.stderr.splitlines()[-1]
    assert sentence in message
    assert f"data.{ending}: nothing is written.\n" in done.stderr
    assert output.read_text() == "earlier"
    assert len(list(tmp_path.iterdir())) == 2


def test_damaged_parquet_file_gives_no_output(model, houses, tmp_path):
    """Whether it is cut off, or bytes in the middle are overwritten."""
    data, output = write(houses, tmp_path / "in.parquet"), tmp_path / "out.csv"
    content = data.read_bytes()
    middle = len(content) // 2
    for damaged in (
        content[:middle],
        content[: middle - 500] + bytes(1000) + content[middle + 500 :],
    ):
        data.write_bytes(damaged)
        done = score(data, output)
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        assert list(tmp_path.iterdir()) == [data]


def test_types_of_parquet_are_converted_like_json(model, tmp_path):
    """Integers, decimals, float32 and dictionaries are numbers; null, NaN and lists are not."""
    table = pa.table({name: [value] * 3 for name, value in EXAMPLE.items()})
    n = list(FEATURES).index
    table = table.set_column(n("RAD"), "RAD", pa.array([24] * 3, pa.int8()))
    table = table.set_column(n("TAX"), "TAX", table["TAX"].cast(pa.decimal128(9, 2)))
    table = table.set_column(n("ZN"), "ZN", pa.array([0.0, None, np.nan], pa.float32()))
    table = table.set_column(n("CHAS"), "CHAS", pa.array([0.0] * 3).dictionary_encode())
    pq.write_table(table, tmp_path / "in.parquet")
    assert score(tmp_path / "in.parquet", tmp_path / "out.parquet").returncode == 3
    assert read(tmp_path / "out.parquet")["prediction"].tolist() == [TUTORIAL_PREDICTION]
    rejected = read(tmp_path / "out.rejected.jsonl")
    assert rejected["message"].tolist() == [
        {"ZN": "ZN should be a valid number, got null"},
        {"ZN": "ZN should be a finite number, got NaN"},
    ]
    table = table.set_column(n("RM"), "RM", pa.array([[5.3]] * 3))
    pq.write_table(table, tmp_path / "in.parquet")
    done = score(tmp_path / "in.parquet", tmp_path / "out.parquet")
    assert "The column RM has the type list<" in done.stderr


def test_nested_column_is_kept_except_in_csv(model, tmp_path):
    """So is a column of bytes; CSV can't hold either."""
    columns = {"tags": [["a", "b"]], "photo": [b"\xff"], "at": [pd.Timestamp("1970-01-01")]}
    table = pa.table({name: [value] for name, value in EXAMPLE.items()} | columns)
    pq.write_table(table, tmp_path / "in.parquet")
    done = score(tmp_path / "in.parquet", tmp_path / "out.csv")
    assert "The column tags (list<" in done.stderr
    for ending in ("parquet", "jsonl"):
        assert score(tmp_path / "in.parquet", tmp_path / f"out.{ending}").returncode == 0
        (scored,) = read(tmp_path / f"out.{ending}").to_dict("records")
        assert (list(scored["tags"]), scored["prediction"]) == (["a", "b"], TUTORIAL_PREDICTION)
    assert not (tmp_path / "out.csv").exists()


def test_byte_order_mark_of_an_appended_file_is_ignored(model, tmp_path):
    """The service ignores one before a record, too."""
    line = json.dumps(EXAMPLE)
    done, output, _ = score_text(tmp_path, f"{line}\n\ufeff{line}\n", "jsonl")
    assert done.returncode == 0
    assert read(output)["prediction"].tolist() == [TUTORIAL_PREDICTION] * 2


def test_values_of_json_lines_keep_their_types(model, tmp_path):
    """In JSON Lines; in other formats, a column that is not a feature becomes text."""
    extras = [{"id": 7}, {"id": "7", "tags": ["é"]}, {"id": None, "price": 1.5}]
    data = tmp_path / "in.jsonl"
    data.write_text("".join(json.dumps(extra | EXAMPLE) + "\n" for extra in extras))
    assert score(data, tmp_path / "out.jsonl").returncode == 0
    lines = read_json_lines(tmp_path / "out.jsonl")
    added = ("prediction", "model_tag")
    assert [{k: v for k, v in line.items() if k not in added} for line in lines] == [
        extra | EXAMPLE for extra in extras
    ]
    assert score(data, tmp_path / "out.parquet").returncode == 0
    scored = pq.read_table(tmp_path / "out.parquet")
    assert scored["id"].to_pylist() == ["7", "7", None]
    assert scored["tags"].to_pylist() == [None, '["é"]', None]
    assert scored["price"].to_pylist() == [None, None, "1.5"]


def test_rejected_rows_of_an_earlier_run_are_removed(model, tmp_path):
    """If a run rejects none."""
    _, _, rejected = score_text(tmp_path, csv_text({"RM": -1}))
    assert len(rejected) == 1
    done, _, rejected = score_text(tmp_path, csv_text({}))
    assert (done.returncode, rejected) == (0, [])


def test_failure_to_replace_the_output_changes_no_file(model, tmp_path, monkeypatch):
    """The rejected rows of an earlier run stay beside its output."""
    score_text(tmp_path, csv_text({}, {"RM": -1}))
    data, output = tmp_path / "data.csv", tmp_path / "out.csv"
    data.write_text(csv_text({}, {"RM": -2}))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    replace = Path.replace

    def fail_for_output(path, target):
        if target == output:
            raise OSError("Operation not permitted")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", fail_for_output)
    with pytest.raises(OSError, match="Operation not permitted"):
        score_file(PROJECT, "house_price:latest", data, output)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert len(before) == 3


PATHS = {
    "no file": ("missing.csv", "out.csv", "No such file"),
    "a folder": ("folder.csv", "out.csv", "not a regular file"),
    "other data": ("in.xlsx", "out.csv", "has to end with one of .csv, .jsonl, .parquet"),
    "other output": ("in.csv", "out.txt", "has to end with"),
    "the same": ("in.csv", "in.csv", "would replace"),
    "the rejected rows": ("out.rejected.jsonl", "out.csv", "would replace"),
    "no folder": ("in.csv", "nowhere/out.csv", "No such file"),
    "output is a folder": ("in.csv", "folder.csv", "not a regular file"),
}


@pytest.mark.parametrize(("data", "output", "sentence"), PATHS.values(), ids=PATHS)
def test_unusable_path_is_reported(model, tmp_path, data, output, sentence):
    """No file is changed or added."""
    (tmp_path / "folder.csv").mkdir()
    for name in ("in.csv", "in.xlsx", "out.rejected.jsonl"):
        (tmp_path / name).write_text(csv_text({}))
    done = score(tmp_path / data, tmp_path / output)
    assert done.returncode == 1
    assert sentence in done.stderr.splitlines()[-1]
    assert len(list(tmp_path.iterdir())) == 4


def test_tag_chooses_the_model(model, tmp_path):
    """A tag that the store lacks is reported as by the service."""
    (tmp_path / "in.csv").write_text(csv_text({}))
    done = score(tmp_path / "in.csv", tmp_path / "out.csv", "--model", model.tag)
    assert done.returncode == 0
    for option in ("--model", "--tag"):  # the former name
        done = score(tmp_path / "in.csv", tmp_path / "out.csv", option, "house_price:nowhere")
        assert done.returncode == 1
        assert "has no house_price:nowhere" in done.stderr


def test_make_scores_a_file(model, tmp_path):
    """`make` exits with 2 if rows are rejected, and names a missing variable."""
    data, output = tmp_path / "in.csv", tmp_path / "out.csv"
    data.write_text(csv_text({}, {"RM": -1}))
    done = run("make", "score", f"DATA={data}", f"OUT={output}", check=False)
    assert done.returncode == 2
    assert "Scored 1 of 2 rows" in done.stdout
    done = run("make", "score", f"DATA={data}", check=False)
    assert "Say where to" in done.stderr


@pytest.fixture
def many_rows(model, tmp_path):
    """A file that takes some seconds to score, and the output of an earlier run."""
    row = csv_text({}).splitlines()[1]
    (tmp_path / "in.csv").write_text("\n".join([",".join(FEATURES), *[row] * 400_000]))
    (tmp_path / "out.csv").write_text("earlier")
    return tmp_path / "in.csv", tmp_path / "out.csv"


@pytest.mark.slow  # scores a large file
@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL], ids=lambda n: n.name
)
def test_killed_command_keeps_the_earlier_output(many_rows, number):
    """It leaves no temporary files, except after SIGKILL: those with hidden names."""
    data, output = many_rows
    command = [sys.executable, "-m", "training", "score", data, output]
    log = data.with_name("log")
    with log.open("w") as errors:
        process = subprocess.Popen(command, cwd=ROOT, stdout=errors, stderr=errors)
    wait_until(lambda: any(p.stat().st_size for p in data.parent.glob(".out.csv*")), log, 120)
    process.send_signal(number)
    assert process.wait(60) == (-number if number == signal.SIGKILL else 128 + number)
    assert output.read_text() == "earlier"
    names = {path.name for path in data.parent.iterdir()} - {"in.csv", "out.csv", "log"}
    hidden = {f".out{kind}.{process.pid}.part" for kind in (".csv", ".rejected.jsonl")}
    assert names == (hidden if number == signal.SIGKILL else set())
    assert "Traceback" not in log.read_text()


@pytest.mark.slow  # scores a large file
@pytest.mark.parametrize("ending", ENDINGS)
def test_full_disk_is_reported(many_rows, ending):
    """A limit on the size of files simulates it. The earlier output is kept."""
    data, output = many_rows
    output = output.rename(output.with_suffix(f".{ending}"))
    command = f"ulimit -f 3; exec {sys.executable} -m training score {data} {output}"
    done = run("bash", "-c", command, check=False)
    assert done.returncode == 1
    assert done.stderr.endswith(f"{data}: nothing is written.\n[Errno 27] File too large\n")
    assert output.read_text() == "earlier"
    assert {path.name for path in data.parent.iterdir()} == {"in.csv", output.name}
