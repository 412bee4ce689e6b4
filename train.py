"""The estimator and the names of this bundle; `python train.py` trains and saves a model."""

import sys

import pandas as pd
from tqdm import tqdm

from house import NAME, House, LabelledHouse
from training import ROOT, Estimator, Project, main


def fit(X_train: pd.DataFrame, y_train: pd.Series) -> Estimator:
    """Fit the tutorial's estimator, with a fixed seed and a progress bar over the trees."""
    # Imported here, because it takes 2 s, and only training needs it.
    from sklearn.ensemble import GradientBoostingRegressor

    estimator = GradientBoostingRegressor(
        n_estimators=500,
        max_depth=4,
        learning_rate=0.01,
        min_samples_split=2,
        loss="squared_error",
        random_state=0,
    )
    with tqdm(total=estimator.n_estimators, desc="Fitting", unit="tree") as bar:
        # The fitting stops if `monitor` returns something true. Fit on X_train itself, instead of
        # an array, to select columns by name.
        return estimator.fit(X_train.to_numpy(), y_train, monitor=lambda *_: bar.update() and False)


PROJECT = Project(
    name=NAME,
    record_type=House,
    labelled_type=LabelledHouse,
    data=ROOT / "data" / "boston_housing.csv",
    fit=fit,
)

if __name__ == "__main__":
    main(PROJECT, ["train", *sys.argv[1:]])
