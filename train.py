"""Define the estimator and the project; `python train.py` trains and saves a model."""

import sys

import pandas as pd
from tqdm import tqdm

from house import NAME, House, LabelledHouse
from training import ROOT, Estimator, Project, main


def fit(X_train: pd.DataFrame, y_train: pd.Series) -> Estimator:
    """Fit the estimator of the Flask tutorial (README.md), with a fixed seed and a progress bar.

    It is fitted on an array. Pass X_train itself if a step selects columns by name.
    """
    # The import takes 2 s, and commands such as `score` do without scikit-learn.
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

        def advance(*_: object) -> bool:
            bar.update()
            return False  # True would stop the fitting

        return estimator.fit(X_train.to_numpy(), y_train, monitor=advance)


PROJECT = Project(
    name=NAME,
    record_type=House,
    labelled_type=LabelledHouse,
    data=ROOT / "data" / "boston_housing.csv",
    fit=fit,
)

if __name__ == "__main__":
    main(PROJECT, ["train", *sys.argv[1:]])
