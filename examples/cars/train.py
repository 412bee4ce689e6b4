"""Train the regressor: load the data, fit, evaluate, save to the BentoML model store."""

from pathlib import Path

import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder

from car import FEATURES, NAME, LabelledCar
from training.cli import main

DATA = Path(__file__).parent / "data" / "used_cars.csv"
CATEGORIES = [FEATURES.index(name) for name in ("brand", "fuel", "body")]


def fit(X_train: pd.DataFrame, y_train: pd.Series) -> Pipeline:
    """Fit gradient boosting on the numbers, the boolean, and a 0 or 1 for each category."""
    # A category that is legal, but not in the data, is 0 everywhere.
    encoder = OneHotEncoder(handle_unknown="ignore")
    columns = ColumnTransformer([("categories", encoder, CATEGORIES)], remainder="passthrough")
    model = Pipeline([("columns", columns), ("trees", GradientBoostingRegressor(random_state=0))])
    return model.fit(X_train.to_numpy(), y_train)


if __name__ == "__main__":
    main(__doc__, fit, LabelledCar, NAME, DATA)
