"""Training: the data before it, the model after it, and how good the model has to be."""

import csv
import hashlib
from pathlib import Path

import bentoml
import numpy as np
import pytest
from sklearn.dummy import DummyRegressor
from sklearn.metrics import root_mean_squared_error

from house import EXAMPLE, FEATURES, LabelledHouse
from tests.helpers.commands import TUTORIAL_PREDICTION, run
from train import PROJECT, fit
from training.data import parse_csv, split
from training.errors import InvalidDataError
from training.store import QUANTILES, cumulative_distribution


def load(text):
    """Return the rows of a CSV text."""
    return parse_csv(text, LabelledHouse)


@pytest.fixture(scope="module")
def data():
    """The training data, split."""
    return split(load(PROJECT.data.read_text()))


@pytest.fixture(scope="module")
def fitted(data):
    """A regressor fitted on it."""
    return fit(data.X_train, data.y_train)


@pytest.fixture
def rewritten(tmp_path):
    """A function that writes the CSV with its rows changed by another, and returns the path."""

    def rewrite(change):
        with PROJECT.data.open(newline="") as file:
            rows = change(list(csv.reader(file)))
        path = tmp_path / "rewritten.csv"
        with path.open("w", newline="") as file:
            csv.writer(file).writerows(rows)
        return path

    return rewrite


def cell(line, column, value):
    """Return a change of one cell, by the number of its line in the file."""

    def change(rows):
        rows[line - 1][rows[0].index(column)] = value
        return rows

    return change


BAD_DATA = {
    "text": (cell(8, "RM", "six"), r'line 8: RM should be a valid number, .* got "six"'),
    "too large": (
        cell(2, "LSTAT", "101"),
        r'line 2: LSTAT .* less than or equal to 100, got "101"',
    ),
    "empty target": (cell(507, "MEDV", ""), r'line 507: MEDV should be a valid number, .* got ""'),
    "not a number": (cell(3, "CRIM", "nan"), r'line 3: CRIM should be a finite number, got "nan"'),
    "short row": (lambda rows: [*rows, ["1"]], r'line 508: ZN should be .*, got ""'),
    "long row": (
        lambda rows: [*rows, [*rows[1], "1"]],
        r"line 508: there are cells beyond .*'1'",
    ),
    "surplus column": (lambda rows: [[*row, "1"] for row in rows], r"line 1: the columns must be"),
    "missing column": (lambda rows: [row[1:] for row in rows], r"line 1: the columns must be"),
    "too few rows": (lambda rows: rows[:10], r"9 rows are too few"),
    "empty file": (lambda rows: [], r"line 1: the columns must be"),
}


@pytest.mark.parametrize(("change", "message"), BAD_DATA.values(), ids=BAD_DATA)
def test_bad_data_is_named(rewritten, change, message):
    """By its line, its column, its value and what is allowed."""
    with pytest.raises(InvalidDataError, match=message):
        load(rewritten(change).read_text())


def test_every_bad_row_is_named_at_once(rewritten):
    """So that one run is enough to mend the file."""
    with pytest.raises(InvalidDataError, match=r"line 4: RM .*\nline 9: NOX "):
        load(rewritten(lambda rows: cell(9, "NOX", "-1")(cell(4, "RM", "")(rows))).read_text())


def test_columns_may_come_in_any_order(rewritten):
    """They are told apart by their names."""
    frame = load(rewritten(lambda rows: [row[::-1] for row in rows]).read_text())
    assert frame.equals(load(PROJECT.data.read_text()))


def test_nothing_is_saved_of_bad_data(model, rewritten):
    """The command fails in words, and the model store stays as it was."""
    path = rewritten(cell(8, "RM", "six"))
    before = [stored.tag for stored in bentoml.models.list()]
    failed = run("python", "train.py", "--data", path, check=False)
    assert failed.returncode == 1
    assert failed.stderr.startswith(f"{path}: nothing is saved.\nline 8: RM should be")
    assert [stored.tag for stored in bentoml.models.list()] == before


def test_bytes_that_are_no_text_fail_in_words(tmp_path):
    """As whatever else comes under the name of a CSV file."""
    (tmp_path / "data.csv").write_bytes(b"\xff\xfe")
    failed = run("python", "train.py", "--data", tmp_path / "data.csv", check=False)
    assert failed.returncode == 1
    assert "Traceback" not in failed.stderr


def test_byte_order_mark_is_no_column(tmp_path, model):
    """Spreadsheets write one."""
    (tmp_path / "data.csv").write_bytes(b"\xef\xbb\xbf" + PROJECT.data.read_bytes())
    run("python", "train.py", "--data", tmp_path / "data.csv", "--name", "marked")
    assert bentoml.models.get("marked").info.metadata["feature_names"] == list(FEATURES)


def test_training_only_if_there_is_no_model(model):
    """What `make serve` asks for."""
    before = len(bentoml.models.list())
    run("python", "train.py", "--if-missing")
    assert len(bentoml.models.list()) == before


def test_missing_file_fails_in_words(tmp_path):
    """It needs no traceback to say that there is no such file."""
    failed = run("python", "train.py", "--data", tmp_path / "none.csv", check=False)
    assert failed.returncode == 1
    assert "No such file" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_no_row_is_in_both_parts(data):
    """Nothing leaks from the test part into the training part, and nothing is lost."""
    train, test = ({tuple(row) for row in X.to_numpy()} for X in (data.X_train, data.X_test))
    assert not train & test
    assert (len(train), len(test)) == (455, 51)


def test_the_tutorials_answer_comes_out(fitted):
    """Its record gives its prediction."""
    assert fitted.predict([list(EXAMPLE.values())])[0] == TUTORIAL_PREDICTION


def test_training_twice_gives_the_same_model(data, fitted):
    """Bit for bit, on every row there is."""
    again = fit(data.X_train, data.y_train)
    for X in (data.X_train.to_numpy(), data.X_test.to_numpy()):
        assert np.array_equal(again.predict(X), fitted.predict(X))


def test_model_beats_the_mean_by_far(data, fitted):
    """Its error on the test part is at most half of what the training mean gets.

    Measured: 2.57 against 7.56, a third.
    """
    dummy = DummyRegressor().fit(data.X_train, data.y_train)
    error, error_of_dummy = (
        root_mean_squared_error(data.y_test, model.predict(data.X_test.to_numpy()))
        for model in (fitted, dummy)
    )
    assert error < error_of_dummy / 2


def test_more_rooms_do_not_make_the_example_cheaper(fitted):
    """From 4 to 8 rooms, no step of 0.1 takes 800 dollars off the price.

    Measured: the largest step down is 542 dollars.
    """
    houses = [list((EXAMPLE | {"RM": 4 + step / 10}).values()) for step in range(41)]
    assert np.diff(fitted.predict(houses)).min() > -0.8


def test_model_store_tells_all_of_the_training(model):
    """Its metadata hold what the service needs, and what one wants to know a year later."""
    metadata = model.info.metadata
    assert metadata["feature_names"] == list(FEATURES)
    assert metadata["training_range"]["CHAS"] == [0, 1]
    assert metadata["prediction_distribution"].keys() > {"6.41", "20.93", "49.84"}
    assert metadata["target"]["name"] == "MEDV"
    assert metadata["data_sha256"] == hashlib.sha256(PROJECT.data.read_bytes()).hexdigest()
    pickled = Path(model.path_of("saved_model.pkl")).read_bytes()
    assert metadata["model_sha256"] == hashlib.sha256(pickled).hexdigest()
    assert metadata["metrics"]["train_mse"] == pytest.approx(1.77, abs=0.01)
    assert 6.2 < metadata["metrics"]["test_mse"] < 6.6
    assert metadata["metrics"]["cv_rmse"] < metadata["metrics"]["test_rmse"] * 1.5
    assert metadata["versions"].keys() >= {"python", "scikit-learn", "bentoml"}
    assert model.info.labels == {"task": "regression", "framework": "scikit-learn"}


def test_distribution_is_that_of_the_predictions(data, fitted):
    """The bounds are their quantiles, but for rounding."""
    y_pred = fitted.predict(data.X_train.to_numpy())
    found = cumulative_distribution(y_pred)
    assert list(found) == pytest.approx(np.quantile(y_pred, QUANTILES), rel=1e-3)
    assert list(found.values()) == pytest.approx(QUANTILES, abs=0.01)


@pytest.mark.parametrize(
    ("y_pred", "expected"), [([7] * 9, {7: 1}), ([1] * 60 + [2] * 40, {1: 0.6, 1.4: 0.6, 2: 1})]
)
def test_distribution_of_few_values_has_few_bounds(y_pred, expected):
    """Each once."""
    assert cumulative_distribution(np.array(y_pred)) == expected


def test_bentoml_loads_the_model_too(model):
    """In a notebook, say; as what was saved."""
    assert (
        bentoml.sklearn.load_model(model).predict([list(EXAMPLE.values())])[0]
        == TUTORIAL_PREDICTION
    )


def test_training_prints_its_figures(training):
    """The two errors of the tutorial come first, beside those of the dummy."""
    lines = [line.split() for line in training.stdout.splitlines()]
    assert lines[0] == ["model", "always", "the", "mean"]
    assert [line[0] for line in lines[1:3]] == ["train_mse", "test_mse"]
    assert [float(line[1]) for line in lines[1:3]] == pytest.approx([1.77, 6.58], abs=0.01)
    scores = {f"{part}_{name}" for part in ("train", "test") for name in ("rmse", "mae", "r2")}
    assert scores | {"cv_rmse", "cv_rmse_std"} <= {line[0] for line in lines}


def test_progress_is_shown_by_tree(training):
    """The bar ends at the number of trees, which is to say that none was left out."""
    assert "500/500" in training.stderr
