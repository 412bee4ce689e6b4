"""Train the regressor: load the data, fit, evaluate, save to the BentoML model store."""

from pathlib import Path

import pandas as pd
from sklearn.ensemble import GradientBoostingRegressor
from tqdm import tqdm

from house import NAME, LabelledHouse
from training.cli import main

DATA = Path(__file__).parent / "data" / "boston_housing.csv"


def fit(X_train: pd.DataFrame, y_train: pd.Series) -> GradientBoostingRegressor:
    """Fit the tutorial's estimator, with the seed that it left open and a progress bar by tree."""
    model = GradientBoostingRegressor(
        n_estimators=500,
        max_depth=4,
        learning_rate=0.01,
        min_samples_split=2,
        loss="squared_error",
        random_state=0,
    )
    with tqdm(total=model.n_estimators, desc="Fitting", unit="tree") as bar:
        # `monitor` would end the fitting by returning something true. What is fitted on an array is
        # served with arrays, and on a DataFrame with DataFrames, which are slower and need pandas.
        return model.fit(X_train.to_numpy(), y_train, monitor=lambda *_: bar.update() and False)


if __name__ == "__main__":
    main(__doc__, fit, LabelledHouse, NAME, DATA)
