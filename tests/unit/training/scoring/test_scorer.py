"""The scorer, with each kind of feature, and with a model that can't predict every row."""

import json
from typing import Self

import bentoml
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationInfo, field_validator, model_validator
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OrdinalEncoder

from house import EXAMPLE, FEATURES, House
from serving.errors import UNPREDICTABLE
from serving.model import ModelReference
from serving.regressor import Regressor
from tests.helpers.json_lines import read_json_lines
from tests.helpers.mpg import PATH, CarType, LabelledCarType, read_table
from tests.helpers.tutorial import TUTORIAL_PREDICTION
from train import PROJECT
from training.data import to_rows
from training.fitting.train import train
from training.project import Project
from training.request_body import make_body_type
from training.scoring.batches import BatchScorer, PortableModel
from training.scoring.command import score_file
from training.scoring.scorer import Scorer, column_validator

NUMBERS = ["cylinders", "displacement", "horsepower", "weight", "0-60 mph", "year", "wagon"]


def fit_mpg(X, y):
    """Fit a model of numbers, a boolean and a category, each with missing values."""
    encoder = OrdinalEncoder(
        handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-1
    )
    columns = make_column_transformer((encoder, ["origin"]), ("passthrough", NUMBERS))
    return make_pipeline(columns, HistGradientBoostingRegressor(max_iter=20)).fit(X, y)


def fit_logarithm(X, y):
    """Fit a model that fails on a house without rooms."""
    columns = make_column_transformer((FunctionTransformer(np.log), ["RM"]))
    return make_pipeline(columns, LinearRegression()).fit(X, y)


MPG = Project("mpg", CarType, LabelledCarType, PATH, fit_mpg)
LOGARITHM = PROJECT._replace(name="logarithm", fit=fit_logarithm)


@pytest.fixture(scope="module")
def mpg_predictions():
    """The predictions of the stored model for the table with missing values."""
    train(MPG, PATH, "mpg")
    rows = to_rows(read_table().iloc[:, :-1], CarType)
    return Regressor(bentoml.models.get("mpg:latest")).predict(rows)


@pytest.mark.parametrize("output", ["out.csv", "out.jsonl", "out.parquet"])
def test_missing_values_integers_and_texts_are_scored(mpg_predictions, tmp_path, output):
    """In CSV, the integers of a column with missing values are 130.0; the target is kept."""
    assert not score_file(MPG, "mpg:latest", PATH, tmp_path / output)
    if output.endswith(".parquet"):
        scored = pq.read_table(tmp_path / output)
        types = [str(field.type) for field in scored.schema][: len(CarType.model_fields)]
        assert types[1:5] == ["string", "int64", "double", "int64"]
        assert types[8] == "bool"
        assert scored["horsepower"].null_count == read_table()["horsepower"].isna().sum()
        # The output can be scored again.
        again = tmp_path / "again.parquet"
        pq.write_table(scored.drop_columns(["prediction", "model_tag"]), again)
        assert not score_file(MPG, "mpg:latest", again, tmp_path / "twice.jsonl")
        output = "twice.jsonl"
    if output.endswith(".csv"):
        predictions = pd.read_csv(tmp_path / output)["prediction"].tolist()
    else:
        predictions = [line["prediction"] for line in read_json_lines(tmp_path / output)]
    assert predictions == mpg_predictions


def test_invalid_cells_of_each_kind_are_rejected(mpg_predictions, tmp_path):
    """In the messages of a CSV file, null is "an empty cell"."""
    frame = pd.read_csv(PATH, dtype=str, keep_default_na=False).head(6)
    cells = {"name": "x" * 41, "origin": "Mars", "cylinders": "8.5", "wagon": "maybe", "year": ""}
    for n, (name, cell) in enumerate(cells.items()):
        frame.loc[n, name] = cell
    frame.to_csv(tmp_path / "in.csv", index=False)
    assert score_file(MPG, "mpg:latest", tmp_path / "in.csv", tmp_path / "out.csv")
    messages = [line["message"] for line in read_json_lines(tmp_path / "out.rejected.jsonl")]
    assert [list(message) for message in messages] == [[name] for name in cells]
    assert messages[1]["origin"].endswith('or an empty cell, got "Mars"')
    assert pd.read_csv(tmp_path / "out.csv")["prediction"].tolist() == mpg_predictions[5:6]


def test_rows_that_the_model_cannot_predict_are_rejected(tmp_path):
    """A third of them; the model predicts the others."""
    train(LOGARITHM, PROJECT.data, "logarithm")
    frame = pd.DataFrame([EXAMPLE] * 200)
    frame.loc[::3, "RM"] = 0.0
    frame.to_csv(tmp_path / "in.csv", index=False)
    assert score_file(LOGARITHM, "logarithm:latest", tmp_path / "in.csv", tmp_path / "out.csv")
    assert (pd.read_csv(tmp_path / "out.csv")["RM"] == EXAMPLE["RM"]).all()
    assert read_json_lines(tmp_path / "out.rejected.jsonl") == [
        {"line": n, "message": UNPREDICTABLE} for n in range(2, 202, 3)
    ]


class Detached(House):
    """A house with a rule about two features."""

    @model_validator(mode="after")
    def check_age(self) -> Self:
        """Refuse an old house near the river."""
        if self.CHAS and self.AGE > 90:
            raise ValueError("near the river are new houses only")
        return self


def test_rule_about_several_features_is_checked(model):
    """Such a record type has no validator of columns: each row becomes a record."""
    assert column_validator(House)
    assert column_validator(Detached) is None
    table = pa.table({name: [str(value)] * 3 for name, value in EXAMPLE.items()})
    column = FEATURES.index("CHAS")
    table = table.set_column(column, "CHAS", pa.array(["0", "1", "0"]))
    scored = Scorer(model, make_body_type(Detached), ".csv", ".csv").score(table)
    assert scored.table["prediction"].to_pylist() == [TUTORIAL_PREDICTION] * 2
    assert scored.errors == {1: "Value error, near the river are new houses only"}


class Ordered(House):
    """A house with a validator of one feature that reads another."""

    @field_validator("ZN")
    @classmethod
    def check_zone(cls, value: float, info: ValidationInfo) -> float:
        """Reject zones without crime."""
        if not info.data["CRIM"]:
            raise ValueError("zones need a crime rate")
        return value


def test_validator_that_reads_other_features_is_not_applied_by_column():
    """Such a validator needs the whole record."""
    assert column_validator(Ordered) is None


def test_batch_keeps_rows_that_have_an_error(model):
    """In Arrow and in pandas, with a model that is sent with its files."""
    portable = PortableModel.from_store(ModelReference(model.tag, House))
    scorer = BatchScorer(portable, House)
    batch = pd.DataFrame([EXAMPLE | {"id": n} for n in range(4)])
    batch.loc[2, "RM"] = -1.0
    for scored in (scorer(batch), scorer(pa.Table.from_pandas(batch)).to_pandas()):
        assert scored["id"].tolist() == [0, 1, 2, 3]
        assert scored["RM"].tolist() == batch["RM"].tolist()
        assert scored["prediction"].dropna().tolist() == [TUTORIAL_PREDICTION] * 3
        assert scored["prediction_error"].dropna().map(json.loads).tolist() == [
            {"RM": "RM should be greater than or equal to 0, got -1.0"}
        ]
        assert set(scored["model_tag"].dropna()) == {str(model.tag)}
