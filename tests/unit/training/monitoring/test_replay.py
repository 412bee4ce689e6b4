"""The replay command: compare a candidate with the model that made the logged predictions."""

import json
from types import SimpleNamespace
from typing import Annotated, Literal

import bentoml
import pytest
from pydantic import Field
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.pipeline import make_pipeline
from sklearn.tree import DecisionTreeRegressor

from serving.regressor import Regressor
from tests.helpers.json_lines import read_json_lines
from tests.helpers.logs import write_log
from tests.helpers.mpg import ORDINAL, PATH, CarType, LabelledCarType, read_table
from tests.helpers.training_cli import check_error, run_training
from training.data import to_rows
from training.errors import TrainingError
from training.fitting.train import train
from training.monitoring.replay import replay_entries
from training.monitoring.replay_results import ReplayResults
from training.project import Project
from training.stored_model import StoredModel


def fit_with(regressor):
    """Return a function that fits a regressor to the table of cars."""

    def fit(X_train, y_train):
        encode = make_column_transformer((ORDINAL, ["name", "origin"]), remainder="passthrough")
        return make_pipeline(encode, regressor).fit(X_train, y_train)

    return fit


def project_of(record_type=CarType, regressor=None):
    """Return a project of cars."""
    fit = fit_with(regressor or HistGradientBoostingRegressor(max_iter=20, random_state=0))
    return Project("mpg", record_type, LabelledCarType, PATH, fit)


@pytest.fixture(scope="module")
def served():
    """A stored model of the consumption of cars."""
    train(project_of(), PATH, "mpg")
    return bentoml.models.get("mpg:latest")


@pytest.fixture(scope="module")
def worse(served):
    """A stored model with a single split."""
    train(project_of(regressor=DecisionTreeRegressor(max_depth=1)), PATH, "mpg_worse")
    return bentoml.models.get("mpg_worse:latest")


@pytest.fixture
def log(served, tmp_path):
    """A folder with a log of the served model: single records, and an array of the last five."""
    rows = to_rows(read_table().iloc[:, :-1], CarType)
    predictions = Regressor(served).predict(rows)
    pairs = list(zip(rows, predictions, strict=True))
    requests = [([row], [prediction]) for row, prediction in pairs[:-5]]
    requests.append((rows[-5:], predictions[-5:]))
    write_log(tmp_path, list(read_table())[:-1], requests, tag=str(served.tag))
    return tmp_path


def run_replay(log, model, *options, record_type=CarType):
    """Run `python -m training replay` on a log."""
    tag = getattr(model, "tag", model)
    project = project_of(record_type)
    return run_training("replay", log, "--model", tag, *options, check=False, project=project)


def edit_log(log, edit, first=0, last=None):
    """Change the entries of some lines of a log."""
    path = log / "predictions-1.jsonl"
    entries = read_json_lines(path)
    for entry in entries[first:last]:
        edit(entry)
    path.write_text("".join(f"{json.dumps(entry)}\n" for entry in entries))


def test_predictions_of_the_same_model_do_not_change(served, log):
    """Except in their last digits; the status is 0."""
    done = run_replay(log, served)
    assert done.returncode == 0, done.stderr
    assert "204 records of 200 requests" in done.stdout
    assert "No request would be rejected" in done.stdout
    assert "Candidate passes" in done.stdout
    (row,) = [line for line in done.stdout.splitlines() if line.startswith(f"{served.tag} ")][:1]
    assert float(row.split()[6]) < 1e-9
    assert row.split()[-1] == "0.00%"


def test_worse_model_fails(worse, served, log):
    """The largest changes are listed, and both models are timed."""
    done = run_replay(log, worse)
    assert done.returncode == 3, done.stderr
    assert "of the predictions change by more than" in done.stdout.splitlines()[-1]
    assert "Largest changes" in done.stdout
    latency = done.stdout.partition("Milliseconds")[2]
    assert str(worse.tag) in latency
    assert str(served.tag) in latency
    assert run_replay(log, worse, "--bound", 100).returncode == 0
    assert run_replay(log, worse, "--max-share", 1).returncode == 0


class NarrowCarType(CarType):
    """A type of car, without the category Japan."""

    origin: Literal["USA", "Europe"] | None


def test_requests_with_a_removed_category_are_counted_and_named(served, log):
    """The status is 3, though no prediction changes."""
    table = read_table()
    is_japanese = (table["origin"] == "Japan").to_numpy()
    in_array = is_japanese[-5:].any()
    n_requests = is_japanese[:-5].sum() + in_array
    done = run_replay(log, served, record_type=NarrowCarType)
    assert done.returncode == 3, done.stderr
    first = int(is_japanese.argmax())
    assert f"{n_requests} requests would be rejected: {served.tag}-1-{first}, " in done.stdout
    assert f"{is_japanese.sum()} of their records are invalid or can't be" in done.stdout
    assert 'got "Japan": ' in done.stdout
    assert done.stdout.splitlines()[-1].startswith(f"Candidate fails: {n_requests} requests")


def test_features_that_the_log_lacks_are_named(served, log):
    """So are those that only the log has."""
    edit_log(log, lambda entry: entry.pop("weight"))
    edit_log(log, lambda entry: entry.update(colour="red"), last=3)
    done = run_replay(log, served)
    assert done.returncode == 3
    assert "Features that the log lacks: weight\n" in done.stdout
    assert "Features that the record type no longer has: colour\n" in done.stdout
    assert "- No weight provided: 204 records" in done.stdout
    assert "- There is no feature colour: 3 records" in done.stdout
    assert "no prediction of" in done.stdout.splitlines()[-1]


def test_only_predictions_of_the_last_model_decide(served, log):
    """The changes from an earlier one are printed."""
    edit_log(log, lambda entry: entry.update(model_tag="mpg:old", prediction=99), last=100)
    done = run_replay(log, served)
    assert done.returncode == 0, done.stderr
    (old,) = [line for line in done.stdout.splitlines() if line.startswith("mpg:old ")]
    assert old.split()[1] == "100"


def test_log_of_a_model_that_the_store_lacks_is_replayed(served, log):
    """That model is not timed, and --bound is needed."""
    edit_log(log, lambda entry: entry.update(model_tag="mpg:gone"))
    done = run_replay(log, served)
    assert (done.returncode, done.stdout) == (1, "")
    assert "say with --bound how much a prediction may change" in done.stderr
    done = run_replay(log, served, "--bound", "0.1")
    assert done.returncode == 0, done.stderr
    assert "The model store has no mpg:gone" in done.stdout


class FailingModel:
    """A model that raises an exception for heavy cars, and predicts NaN for light ones."""

    def __init__(self, regressor):
        self.regressor = regressor

    def predict(self, rows):
        """Predict, or fail."""
        if any(row[5] > 4700 for row in rows):
            raise ValueError("too heavy")
        predictions = self.regressor.predict(rows)
        return [
            float("nan") if row[5] < 1800 else y for row, y in zip(rows, predictions, strict=True)
        ]


def test_record_that_the_candidate_cannot_predict_is_rejected(served):
    """The service would respond with 422."""
    candidate = StoredModel(served)
    candidate.regressor = FailingModel(candidate.regressor)
    table = read_table().iloc[:, :-1]
    records = [dict(zip(table, row, strict=True)) for row in to_rows(table, CarType)]
    common = {"timestamp": "2025-12-01T00:00:00.000Z", "model_tag": "mpg:1", "prediction": 20.0}
    entries = [common | {"request_id": f"id-{n}"} | record for n, record in enumerate(records)]
    results = ReplayResults(CarType, candidate)
    results.add(entries)
    heavy, light = (table["weight"] > 4700).sum(), (table["weight"] < 1800).sum()
    assert heavy > 0
    assert light > 0
    assert results.reasons == {
        "The model can't predict the record: ValueError": heavy,
        "The model can't predict the record: NonFinitePredictionError": light,
    }
    assert len(results.changes["mpg:1"]) == len(table) - heavy - light


class WideCarType(CarType):
    """A type of car with one more feature."""

    doors: Annotated[int, Field(ge=0, le=9)]


def test_wrong_command_is_reported(served, log):
    """On one line, without a table."""
    other_features = "trained on other features than those of WideCarType (doors)"
    for done, message in [
        (run_replay(log, "mpg:nowhere"), "The model store has no mpg:nowhere"),
        (run_replay(log / "nowhere", served), "There is no folder"),
        (run_replay(log, served, record_type=WideCarType), other_features),
    ]:
        check_error(done, message)
    assert run_replay(log, served, "--bound", "-1").returncode == 2
    assert run_replay(log, served, "--max-share", "5").returncode == 2


def test_candidate_that_fails_on_every_record_is_reported(served, log):
    """It fails on its golden row, too."""
    candidate = StoredModel(served)
    candidate.regressor = SimpleNamespace(predict=lambda rows: 1 / 0)
    with pytest.raises(TrainingError, match="not even its golden row: ZeroDivisionError"):
        replay_entries(log, CarType, candidate)
