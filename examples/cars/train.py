"""The estimator and the names of this bundle; `python train.py` trains and saves a model."""

import sys

import pandas as pd
from car import FEATURES, NAME, Car, LabelledCar
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder

from training import ROOT, Project, main

STRINGS = [FEATURES.index(name) for name in ("brand", "fuel", "body", "trim")]


def fit(X_train: pd.DataFrame, y_train: pd.Series) -> Pipeline:
    """Fit gradient boosting on the numbers, the boolean, and a 0 or 1 for each string."""
    # A string that the data lack is 0 in every column. The imputer fills the gaps in the numbers.
    encoder = OneHotEncoder(handle_unknown="ignore")
    columns = ColumnTransformer([("strings", encoder, STRINGS)], remainder=SimpleImputer())
    trees = GradientBoostingRegressor(random_state=0)
    estimator = Pipeline([("columns", columns), ("trees", trees)])
    return estimator.fit(X_train.to_numpy(), y_train)


PROJECT = Project(
    name=NAME,
    record_type=Car,
    labelled_type=LabelledCar,
    data=ROOT / "data" / "used_cars.csv",
    fit=fit,
)

if __name__ == "__main__":
    main(PROJECT, ["train", *sys.argv[1:]])
