"""A table with missing values, integers, texts and an unusual name, from CSV file to prediction."""

import json
import pickle
from collections import Counter
from typing import Annotated, Literal

import numpy as np
import pandas as pd
import pytest
from pydantic import Field, create_model
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.ensemble import GradientBoostingRegressor, HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from serving.errors import APIError
from serving.features import feature_schemas
from serving.records import RequestBody
from serving.regressor import load_model
from tests.helpers.logs import write_log
from tests.helpers.mpg import ORDINAL, PATH, CarType, LabelledCarType, read_table
from training.data import parse_csv, split_train_test, to_rows
from training.errors import InvalidDataError, ModelNotServableError
from training.export.reference import SklearnReference
from training.fitting.inference import choose_inference
from training.fitting.probes import check_probes
from training.fitting.store import training_statistics, training_texts
from training.fitting.train import fit
from training.monitoring.drift import compare, convert_types, read_log
from training.project import Project

TEXTS = ["name", "origin"]
TORINO = {
    "name": "ford torino",
    "origin": "USA",
    "cylinders": 8,
    "displacement": 302.0,
    "horsepower": 140,
    "weight": 3449,
    "0-60 mph": 10.5,
    "year": 1970,
    "wagon": False,
}


class Body(RequestBody):
    """One type of car."""

    record_type = CarType


class Bodies(RequestBody):
    """Types of cars."""

    record_type = CarType
    max_records = 1000


@pytest.fixture(scope="module")
def data():
    """The table, split."""
    return split_train_test(read_table())


def message_for(changes, body_type=Body):
    """Return the message about the example with some changes; `...` leaves a feature out."""
    record = {name: value for name, value in (TORINO | changes).items() if value is not ...}
    with pytest.raises(APIError) as caught:
        body_type.parse(json.dumps([record] if body_type.max_records else record).encode())
    return caught.value.message


VALID = {
    "null for a category": {"origin": None},
    "null for an integer": {"horsepower": None},
    "null for a boolean": {"wagon": None},
    "text that is new": {"name": "x" * 40},
    "bounds": {"cylinders": 16, "horsepower": 0, "year": 2100},
}


@pytest.mark.parametrize("changes", VALID.values(), ids=VALID)
def test_valid_value_becomes_part_of_the_row(changes):
    """A missing value is None."""
    assert Body.parse(json.dumps(TORINO | changes).encode()) == [tuple((TORINO | changes).values())]


INVALID = {
    "no name": ({"name": ...}, "No name provided"),
    "null for a text": ({"name": None}, "name should be a valid string, got null"),
    "long text": ({"name": "x" * 41}, "name should have at most 40 characters, got"),
    "number for a text": ({"name": 504}, "name should be a valid string, got 504"),
    "nullable left out": ({"origin": ...}, "No origin provided"),
    "other category": ({"origin": "Asia"}, "'USA', 'Europe' or 'Japan' or null, got \"Asia\""),
    "null for a number": (
        {"displacement": None},
        "displacement should be a valid number, got null",
    ),
    "text for an integer": ({"horsepower": "9"}, 'should be a valid integer or null, got "9"'),
    "fraction": ({"horsepower": 110.5}, "should be a valid integer or null, got 110.5"),
    "boolean for an integer": ({"cylinders": True}, "should be a valid integer, got true"),
    "below": ({"cylinders": 0}, "greater than or equal to 1, got 0"),
    "above, as a float": ({"horsepower": 1001.0}, "less than or equal to 1000, got 1001"),
    "number for a boolean": ({"wagon": 1}, "wagon should be a valid boolean or null, got 1"),
    "field's name": ({"acceleration": 1.0}, "There is no feature acceleration"),
    "alias left out": ({"0-60 mph": ...}, "No 0-60 mph provided"),
    "alias out of bounds": ({"0-60 mph": -1}, "0-60 mph should be greater than or equal to 0"),
}


@pytest.mark.parametrize(("changes", "message"), INVALID.values(), ids=INVALID)
@pytest.mark.parametrize("body_type", [Body, Bodies])
def test_invalid_value_is_rejected(body_type, changes, message):
    """The message has the name in JSON, and says whether null is valid."""
    (name,) = changes
    (loc, text), *others = message_for(changes, body_type).items()
    assert not others
    assert loc == (f"0.{name}" if body_type.max_records else name)
    assert message in text


def test_whole_floats_are_integers():
    """Pandas sends them if another row lacks the feature; only the missing value is an error."""
    floats = TORINO | {"cylinders": 8.0, "horsepower": 1.4e2, "weight": 3449.0}
    rows = Bodies.parse(json.dumps([floats, TORINO]).encode())
    assert rows == [tuple(TORINO.values())] * 2
    assert all(type(row[2]) is int for row in rows)
    records = [TORINO | {"cylinders": float(n % 9 or 1)} for n in range(400)]
    records[7]["cylinders"] = None
    with pytest.raises(APIError) as caught:
        Bodies.parse(json.dumps(records).encode())
    assert caught.value.message == {"7.cylinders": "cylinders should be a valid integer, got null"}


def rewrite(line, column, cell):
    """Return the CSV text with another cell; the header is line 1."""
    lines = [row.split(",") for row in PATH.read_text().splitlines()]
    lines[line - 1][lines[0].index(column)] = cell
    return "\n".join(map(",".join, lines))


CELLS = {
    "missing integer": ("horsepower", "", None),
    "whole float": ("horsepower", "105.0", 105),
    "boolean of pandas": ("wagon", "True", True),
    "missing category": ("origin", "", None),
}


@pytest.mark.parametrize(("column", "cell", "value"), CELLS.values(), ids=CELLS)
def test_cell_is_read_as_a_request_is(column, cell, value):
    """An empty cell is a missing value."""
    frame = parse_csv(rewrite(4, column, cell), LabelledCarType)
    assert dict(zip(frame, to_rows(frame, LabelledCarType)[2], strict=True))[column] == value


@pytest.mark.parametrize(
    ("column", "cell", "message"),
    [
        ("cylinders", "", 'line 4: cylinders should be a valid integer, got ""'),
        ("cylinders", "True", 'line 4: cylinders should be a valid integer, got "True"'),
        (
            "horsepower",
            "9.5",
            "line 4: horsepower should be a valid integer or an empty cell, got 9.5",
        ),
        ("wagon", "1", 'line 4: wagon should be a valid boolean or an empty cell, got "1"'),
        ("horsepower", "NA", 'line 4: horsepower .* integer or an empty cell, got "NA"'),
        ("weight", "3_504", 'line 4: weight should be a valid integer, got "3_504"'),
        ("origin", "Asia", "line 4: origin should be .* or an empty cell"),
        ("mpg", "", 'line 4: mpg should be a valid number, got ""'),
    ],
)
def test_invalid_cell_is_reported(column, cell, message):
    """By the rules and with the messages of a request."""
    with pytest.raises(InvalidDataError, match=message):
        parse_csv(rewrite(4, column, cell), LabelledCarType)


def test_column_without_any_value_is_rejected():
    """A model could not learn from it."""
    frame = pd.read_csv(PATH).assign(horsepower=None)
    with pytest.raises(InvalidDataError, match="horsepower has no value in any row"):
        parse_csv(frame.to_csv(index=False), LabelledCarType)


def test_types_of_the_columns_follow_from_the_record_type(data):
    """With missing values, integers and booleans become floats. A missing string is None."""
    types = {name: str(dtype) for name, dtype in data.X_train.dtypes.items()}
    assert types == {
        "name": "object",
        "origin": "object",
        "cylinders": "int64",
        "displacement": "float64",
        "horsepower": "float64",
        "weight": "int64",
        "0-60 mph": "float64",
        "year": "int64",
        "wagon": "float64",
    }
    assert set(data.X_train["origin"]) == {"USA", "Europe", "Japan", None}


ONE_HOT = OneHotEncoder(handle_unknown="ignore", min_frequency=2)
FILL = SimpleImputer(missing_values=None, strategy="most_frequent")
TREES = GradientBoostingRegressor(n_estimators=20, random_state=0)
ESTIMATORS = {
    "histogram boosting": (ORDINAL, "passthrough", HistGradientBoostingRegressor(max_iter=20)),
    "imputer": (ONE_HOT, SimpleImputer(), TREES),
    "imputer of strings": (make_pipeline(FILL, ORDINAL), SimpleImputer(add_indicator=True), TREES),
}


@pytest.mark.parametrize("as_frame", [True, False], ids=["frame", "array"])
@pytest.mark.parametrize("steps", ESTIMATORS.values(), ids=ESTIMATORS)
def test_missing_values_and_unseen_texts_are_served_as_scikit_learn_predicts(data, steps, as_frame):
    """Both by ONNX Runtime and by a pickle of the estimator."""
    encoder, numbers, regressor = map(clone_step, steps)
    columns = TEXTS if as_frame else [0, 1]
    encode = make_column_transformer((encoder, columns), remainder=numbers)
    estimator = make_pipeline(encode, regressor)
    estimator.fit(data.X_train if as_frame else data.X_train.to_numpy(), data.y_train)
    inference, content = choose_inference(estimator, [], data, CarType)
    assert (inference.runtime, inference.input) == (
        "onnxruntime",
        "frame" if as_frame else "array",
    )
    dtypes = {name: str(dtype) for name, dtype in data.X_train.dtypes.items()}
    exported = load_model(content, inference, dtypes)
    pickled = load_model(
        pickle.dumps(estimator), inference.model_copy(update={"runtime": "scikit-learn"}), dtypes
    )
    reference = SklearnReference(estimator, data.X_train)
    probed = check_probes(exported, reference, CarType, data.X_train)
    assert {None, "?" * 40} <= {value for row in probed for value in row}
    rows = to_rows(data.X_test, CarType) + probed
    expected = reference.predict(rows)
    assert pickled.predict(rows).ravel().tolist() == expected.tolist()
    assert exported.predict(rows).ravel() == pytest.approx(expected, rel=1e-12)


def clone_step(step):
    """Return an unfitted copy of a step, which may be "passthrough"."""
    return step if isinstance(step, str) else clone(step)


def test_estimator_that_cannot_be_fitted_with_missing_values_is_rejected(data):
    """The message names the features with missing values."""
    project = Project(
        "mpg", CarType, LabelledCarType, PATH, lambda X, y: TREES.fit(X[["horsepower"]], y)
    )
    with pytest.raises(
        ModelNotServableError, match=r"missing in origin, horsepower, wagon.*Imputer"
    ):
        fit(project, data)


def test_estimator_that_fails_on_a_missing_value_is_rejected_though_the_data_have_none(data):
    """The service skips scikit-learn's check for missing values: it might predict anything."""
    X = data.X_train[["weight"]].astype(float)
    linear = LinearRegression().fit(X.to_numpy(), data.y_train)

    class Weight(create_model("Weight", __config__=CarType.model_config)):
        weight: Annotated[int, Field(ge=0, le=9000)] | None

    reference = SklearnReference(linear, X)
    with pytest.raises(ModelNotServableError, match="can't predict weight=None, which Weight"):
        check_probes(reference, reference, Weight, X)


def test_estimator_that_fails_on_unseen_texts_is_rejected(data):
    """A caller may send any text."""
    encoder = make_column_transformer((OneHotEncoder(), ["name"]))
    estimator = make_pipeline(encoder, LinearRegression()).fit(data.X_train[["name"]], data.y_train)

    class Named(create_model("Named", __config__=CarType.model_config)):
        name: Annotated[str, Field(max_length=40)]

    reference = SklearnReference(estimator, data.X_train[["name"]])
    with pytest.raises(ModelNotServableError, match="handle_unknown"):
        check_probes(reference, reference, Named, data.X_train[["name"]])


def test_metadata_have_ranges_values_and_shares_of_missing_values(data):
    """The values of texts are in a file: there may be many."""
    statistics = training_statistics(data.X_train, CarType)
    assert statistics["training_range"].keys() == {
        "cylinders",
        "displacement",
        "horsepower",
        "weight",
        "0-60 mph",
        "year",
    }
    assert statistics["training_values"] == {
        "origin": ["Europe", "Japan", "USA"],
        "wagon": [False, True],
    }
    assert statistics["training_gaps"].keys() == {"origin", "horsepower", "wagon"}
    assert 0 < statistics["training_gaps"]["horsepower"] < 0.05
    assert statistics["training_deciles"].keys() == statistics["training_range"].keys()
    for name, deciles in statistics["training_deciles"].items():
        assert len(deciles) == 11
        assert (deciles[0], deciles[-1]) == statistics["training_range"][name]
        assert deciles[5] == pytest.approx(data.X_train[name].median())
    for name, shares in statistics["training_shares"].items():
        counts = Counter(data.X_train[name].tolist())
        values = statistics["training_values"][name]
        assert [share * len(data.X_train) for share in shares] == pytest.approx(
            [counts[value] for value in values]
        )
        assert sum(shares) + statistics["training_gaps"][name] == pytest.approx(1)
    texts = training_texts(data.X_train, CarType)
    assert list(texts) == ["name"]
    assert len(texts["name"]) > 100


def test_schemas_have_the_names_of_json():
    """An Enum or a Literal with None is a category that may be null."""
    schemas = feature_schemas(CarType)
    assert list(schemas) == list(TORINO)
    assert schemas["origin"]["enum"] == ["USA", "Europe", "Japan"]
    optional = create_model("Optional", size=(Literal["S", "L", None], ...))
    assert feature_schemas(optional)["size"]["enum"] == ["S", "L"]
    nullable = {name for name, schema in schemas.items() if schema.get("nullable")}
    assert nullable == {"origin", "horsepower", "wagon"}


def test_text_whose_pattern_no_probe_matches_gives_a_warning(data, capsys):
    """The encoder may fail on a valid text."""
    encoder = make_column_transformer((OneHotEncoder(), ["name"]))
    estimator = make_pipeline(encoder, LinearRegression()).fit(data.X_train[["name"]], data.y_train)

    class Named(create_model("Named", __config__=CarType.model_config)):
        name: Annotated[str, Field(max_length=40, pattern="[a-z]")]

    reference = SklearnReference(estimator, data.X_train[["name"]])
    check_probes(reference, reference, Named, data.X_train[["name"]])
    assert "that Named.name allows. Make sure that the model predicts" in capsys.readouterr().out


def test_pandas_reads_a_log_with_missing_values(tmp_path, data):
    """One call of `read_json` is enough."""
    rows = to_rows(data.X_train, CarType)
    write_log(tmp_path, TORINO, [(rows, [20.0] * len(rows))])
    frame = pd.read_json(tmp_path / "predictions-1.jsonl", lines=True)
    for name in TORINO:
        assert frame[name].isna().tolist() == data.X_train[name].isna().tolist()


@pytest.mark.parametrize(("factor", "verdict"), [(1, "stable"), (2, "drifted")])
def test_drift_detects_a_doubled_share_of_missing_values(tmp_path, data, factor, verdict):
    """In training, 6 % of the values of `wagon` are missing. Nothing else changes."""
    training = pd.concat([data.X_train.assign(prediction=20.0)] * 5)
    rows = to_rows(data.X_train, CarType)
    has_gap = data.X_train["wagon"].isna().to_numpy()
    weights = np.where(has_gap, factor * has_gap.mean(), 1 - factor * has_gap.mean())
    weights /= np.where(has_gap, has_gap.sum(), (~has_gap).sum())
    chosen = [rows[i] for i in np.random.default_rng(0).choice(len(rows), 3000, p=weights)]
    write_log(tmp_path, TORINO, [(chosen, [20.0] * 3000)], tag="mpg:1")
    log, _ = read_log(tmp_path, "mpg:1", CarType)
    table = compare(training, convert_types(log, training))
    assert table.loc["wagon, missing", "verdict"] == verdict
    assert set(table["verdict"].drop("wagon, missing")) == {"stable"}
