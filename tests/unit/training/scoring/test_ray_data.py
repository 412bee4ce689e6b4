"""The score command on a Ray cluster of two nodes, in the environment of requirements-ray.txt."""

import json

import numpy as np
import pandas as pd
import pytest

from house import FEATURES, LabelledHouse
from tests.helpers.commands import ROOT, run
from tests.helpers.json_lines import read_json_lines
from tests.helpers.training_cli import run_training
from train import PROJECT
from training.data import parse_csv

pytestmark = pytest.mark.slow  # starts a cluster

PYTHON = ROOT / ".venv-ray/bin/python"
N_FILES, ROWS_PER_FILE = 10, 8_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of all files."""
    return tmp_path_factory.mktemp("ray")


@pytest.fixture(scope="module")
def houses(folder):
    """Houses with a column `id`: in the CSV files of the folder in.csv, and in other formats."""
    X = parse_csv(PROJECT.data.read_text(), LabelledHouse)[list(FEATURES)]
    generator = np.random.default_rng(0)
    houses = X.iloc[generator.integers(len(X), size=N_FILES * ROWS_PER_FILE)].reset_index(drop=True)
    houses["CRIM"] *= generator.uniform(0.5, 2, len(houses))
    houses.loc[17::1000, "RM"] = -1.0
    houses.insert(0, "id", range(len(houses)))
    (folder / "in.csv").mkdir()
    for n in range(N_FILES):
        part = houses.iloc[n * ROWS_PER_FILE : (n + 1) * ROWS_PER_FILE]
        text = part.to_csv(index=False) + ("too,few,cells\n" if n == 3 else "")
        (folder / "in.csv" / f"{n}.csv").write_text(text)
    houses.to_csv(folder / "all.csv", index=False)
    houses.head(10_000).to_parquet(folder / "in.parquet")
    lines = [json.dumps(record) for record in houses.head(100).to_dict("records")]
    (folder / "in.jsonl").write_text("\n".join(lines))
    return houses


@pytest.fixture(scope="module")
def alone(model, houses, folder):
    """The output of the command without a cluster."""
    done = run_training("score", folder / "all.csv", folder / "alone.parquet", check=False)
    assert done.returncode == 3, done.stderr
    return pd.read_parquet(folder / "alone.parquet")


@pytest.fixture(scope="module")
def cluster(model, houses, folder):
    """The JSON lines that the helper printed on the cluster."""
    pairs = [("in.csv", "out.parquet"), ("in.parquet", "second.csv"), ("in.jsonl", "third.jsonl")]
    paths = [folder / name for pair in pairs for name in pair]
    done = run(PYTHON, "-m", "tests.helpers.ray_cluster", *paths, timeout=900)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def test_each_row_is_scored_once_if_a_node_is_lost(cluster, alone, folder):
    """In order, with the predictions of a single machine; rejected rows are complete, too."""
    assert 0 < cluster[0]["killed_after"] < N_FILES
    assert cluster[1] == {"output": str(folder / "out.parquet"), "has_rejected": True}
    scored = pd.read_parquet(folder / "out.parquet")
    assert scored["id"].astype(int).tolist() == alone["id"].astype(int).tolist()
    assert scored["prediction"].tolist() == alone["prediction"].tolist()
    assert list(scored) == list(alone)
    parts = sorted((folder / "out.rejected.jsonl").glob("part-*"))
    rejected = [line for part in parts for line in read_json_lines(part)]
    assert len(rejected) == N_FILES * ROWS_PER_FILE // 1000 + 1
    message = {"RM": "RM should be greater than or equal to 0, got -1.0"}
    first = str(folder / "in.csv/0.csv")
    assert {"file": first, "line": 19, "message": message} in rejected
    assert {
        "file": str(folder / "in.csv/3.csv"),
        "line": ROWS_PER_FILE + 2,
        "message": "There are 3 cells for 14 columns",
    } in rejected
    names = {path.name for path in (folder / "out.parquet").iterdir()}
    assert "_SUCCESS" in names
    assert not [name for name in names if name.startswith(".")]


def test_other_formats_are_scored(cluster, alone, folder):
    """From Parquet to CSV, and from JSON Lines to JSON Lines."""
    parts = sorted((folder / "second.csv").glob("part-*.csv"))
    scored = pd.concat(map(pd.read_csv, parts))
    assert scored["prediction"].tolist() == alone["prediction"].tolist()[: len(scored)]
    assert len(scored) == 10_000 - 10
    (part,) = (folder / "third.jsonl").glob("part-*.jsonl")
    lines = read_json_lines(part)
    assert [line["id"] for line in lines] == [n for n in range(100) if n != 17]
    expected = alone["prediction"].tolist()[: len(lines)]
    assert [line["prediction"] for line in lines] == expected


def test_output_that_exists_is_not_replaced(cluster, folder):
    """The command stops with a message."""
    command = (PYTHON, "-m", "training", "score", folder / "in.parquet", folder / "second.csv")
    done = run(*command, "--ray", "local", check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("exists already: remove it, or name another")
