"""Probes: records at the edges of a record type, predicted before a model is saved."""

from typing import Literal

import bentoml
import numpy as np
import pandas as pd
import pytest
from bentoml.exceptions import BentoMLException
from pydantic import BaseModel, ConfigDict, Field
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PowerTransformer, StandardScaler

from house import EXAMPLE, House
from serving import ModelReference, Regressor
from serving.features import REQUIRED_CONFIG
from train import PROJECT
from training.errors import ModelNotServableError
from training.fitting.probes import check_probes
from training.fitting.train import train


class Flat(BaseModel):
    """A record type with each kind of feature and of bound."""

    model_config = ConfigDict(**REQUIRED_CONFIG)

    area: float = Field(gt=0, le=500)
    floor: int = Field(gt=-3, lt=100)
    slope: float
    heating: Literal["gas", "oil"]
    lift: bool


X = pd.DataFrame(
    {
        "area": [50.0, 60.0],
        "floor": [1, 2],
        "slope": [-1.5, 2.5],
        "heating": ["gas", "gas"],
        "lift": [True, True],
    }
)


class FlatModel:
    """Records the rows that it predicts; fails on those that contain a value."""

    text = "clear"

    def __init__(self, fails_on=None):
        self.fails_on = fails_on
        self.rows = []

    def predict(self, rows):
        """Predict 1 for each row."""
        self.rows += rows
        if any(value == self.fails_on for row in rows for value in row):
            raise ValueError(self.text)
        return np.ones(len(rows))


def check_flat(fails_on):
    """Probe a model that fails on a value; the reference fails with another message."""
    model, reference = FlatModel(fails_on), FlatModel(fails_on)
    model.text = "obscure"
    return check_probes(model, reference, Flat, X)


def test_probes_are_bounds_zero_extremes_and_declared_values():
    """Each in a record of the data; invalid values are skipped."""
    model = FlatModel()
    declared = check_probes(model, model, Flat, X)
    base, *rows = model.rows
    assert base == (50.0, 1, -1.5, "gas", True)
    probed = [{row[n] for row in rows if row[n] != base[n]} for n in range(5)]
    assert probed == [
        {np.nextafter(0, 1), 60.0, 500.0},
        {-2, 0, 2, 99},
        {0.0, 2.5},
        {"oil"},
        {False},
    ]
    assert {(row[3], row[4]) for row in declared} == {("gas", True), ("oil", True), ("gas", False)}
    assert all(sum(a != b for a, b in zip(row, base, strict=True)) <= 1 for row in rows)


@pytest.mark.parametrize("value", ["oil", False], ids=str)
def test_model_that_fails_on_a_declared_value_is_rejected(value):
    """The message has the feature, the value, and the message of scikit-learn's exception."""
    with pytest.raises(ModelNotServableError, match=f"{value!r}, which Flat declares.*") as caught:
        check_flat(fails_on=value)
    assert "ValueError: clear" in str(caught.value)


def test_model_that_fails_on_a_number_gives_a_warning(capsys):
    """The author may narrow the bound, fix the pipeline, or accept the 422."""
    check_flat(fails_on=500.0)
    printed = capsys.readouterr().out
    assert "Warning: the model can't predict area=500.0, which Flat allows" in printed
    assert "ValueError: clear" in printed
    assert printed.count("Warning") == 1


def test_model_that_predicts_no_row_of_its_data_is_rejected():
    """Probes need a record that the model predicts."""
    with pytest.raises(ModelNotServableError, match="can't predict its training data"):
        check_flat(fails_on="gas")


def skewed(X, y):
    """Fit a pipeline that fails on CRIM=0 and on RM=0."""
    power = ColumnTransformer(
        [("skewed", PowerTransformer(method="box-cox"), [0, 5])], remainder="passthrough"
    )
    trees = GradientBoostingRegressor(n_estimators=5, random_state=0)
    return make_pipeline(power, trees).fit(X.to_numpy(), y)


def column_of_targets(X, y):
    """Fit on y of shape (n_samples, 1), so that predictions have this shape."""
    pipeline = make_pipeline(StandardScaler(), KNeighborsRegressor())
    return pipeline.fit(X.to_numpy(), y.to_numpy().reshape(-1, 1))


def two_targets(X, y):
    """Fit on two targets."""
    return KNeighborsRegressor().fit(X.to_numpy(), np.column_stack([y, y]))


def saved_models():
    """Return the models that `train_with` has saved."""
    return [model for model in bentoml.models.list() if model.tag.name == "probed"]


@pytest.fixture
def train_with():
    """A function that trains with `fit` and returns the stored model, which is deleted after."""

    def train_with(fit):
        train(PROJECT._replace(fit=fit), PROJECT.data, "probed")
        return bentoml.models.get("probed:latest")

    yield train_with
    for model in saved_models():
        bentoml.models.delete(model.tag)


def test_model_that_fails_on_valid_numbers_is_saved_with_warnings(train_with, capsys):
    """There is one warning for each number."""
    assert train_with(skewed).tag.name == "probed"
    printed = capsys.readouterr().out
    assert [name for name in House.model_fields if f"can't predict {name}=0.0" in printed] == [
        "CRIM",
        "RM",
    ]
    assert "strictly positive" in printed


def test_predictions_in_a_column_are_served(train_with):
    """The shape (n_samples, 1) is accepted like (n_samples,)."""
    train_with(column_of_targets)
    regressor = Regressor(ModelReference("probed:latest", House).resolve())
    (prediction,) = regressor.predict([tuple(EXAMPLE.values())])
    assert isinstance(prediction, float)


def test_predictions_of_two_targets_are_rejected(train_with):
    """Nothing is saved; the message names the shape."""
    with pytest.raises(BentoMLException, match=r"shape \(455, 2\) for 455 rows"):
        train_with(two_targets)
    assert not saved_models()
