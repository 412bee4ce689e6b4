"""Predict with scikit-learn: the predictions that an export has to equal."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import sklearn

from serving.records import Row
from serving.sklearn_model import InputFormat
from training.data import is_missing
from training.fitting.evaluation import takes_frame


class SklearnReference:
    """Predicts with a fitted estimator; with scikit-learn's input check if a value is missing.

    Without the check, an estimator that does not support missing values predicts any number for
    them. `serving.sklearn_model.SklearnModel`, which serves models without an export, has no check.
    """

    def __init__(self, estimator: Any, X: pd.DataFrame) -> None:
        self.estimator = estimator
        dtypes = {name: str(dtype) for name, dtype in X.dtypes.items()}
        self.input_format = InputFormat(dtypes, as_frame=takes_frame(estimator, X))

    def predict(self, rows: Sequence[Row] | np.ndarray) -> np.ndarray:
        """Predict the targets (n_samples,); raise ValueError if scikit-learn rejects a row."""
        return predict_quietly(self.estimator, self.input_format.to_input(rows), has_missing(rows))


def predict_quietly(estimator: Any, X: Any, check_finite: bool) -> np.ndarray:
    """Predict the targets (n_samples,) without warnings.

    `check_finite` switches on scikit-learn's input check. It rejects features beyond float32, which
    trees accept without the check. It also rejects missing values if the estimator does not support
    them.
    """
    finite = sklearn.config_context(assume_finite=not check_finite)
    with finite, np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(estimator.predict(X)).ravel()


def has_missing(rows: Sequence[Row] | np.ndarray) -> bool:
    """Return whether a value is missing."""
    return any(is_missing(value) for row in rows for value in row)
