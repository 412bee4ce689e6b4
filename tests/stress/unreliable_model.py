"""A regressor that fails on some valid records, or at random; `python -m` this trains it."""

import os
import random
from pathlib import Path
from typing import Self

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PowerTransformer

from house import FEATURES

CRIM, RM, TAX = map(FEATURES.index, ("CRIM", "RM", "TAX"))
HUGE = 1e300  # a TAX for which the prediction is infinite
RATE_FILE = "FAILURE_RATE_FILE"  # environment variable: a file with the share of failing calls


class UnreliableRegressor(RegressorMixin, BaseEstimator):
    """Gradient boosting behind the Box-Cox transformation, which fails on CRIM=0 and on RM=0."""

    def fit(self, X: np.ndarray, y: np.ndarray) -> Self:
        """Fit on X (n_samples, n_features) and y (n_samples,)."""
        skewed = ("skewed", PowerTransformer(method="box-cox"), [CRIM, RM])
        self.pipeline_ = make_pipeline(
            ColumnTransformer([skewed], remainder="passthrough"),
            GradientBoostingRegressor(random_state=0),
        ).fit(X, y)
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Predict, or raise RuntimeError at the rate that the file says."""
        path = os.environ.get(RATE_FILE)
        if path and random.random() < float(Path(path).read_text()):
            raise RuntimeError
        return np.where(X[:, TAX] > HUGE, np.inf, self.pipeline_.predict(X))


if __name__ == "__main__":
    from tests.stress.unreliable_model import UnreliableRegressor as Unreliable
    from train import PROJECT
    from training import main

    # Not the class of this module, which is __main__ now: the service could not unpickle it.
    main(PROJECT._replace(fit=lambda X, y: Unreliable().fit(X.to_numpy(), y)), ["train"])
