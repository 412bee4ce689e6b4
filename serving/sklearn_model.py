"""Predict with a pickled scikit-learn estimator."""

import pickle
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import sklearn

from serving.records import Row


class Columns(NamedTuple):
    """The features as an estimator takes them."""

    names: Sequence[str]
    mixed_types: bool  # there are categories or booleans
    as_frame: bool  # the estimator takes a DataFrame, not an array

    def to_input(self, rows: Sequence[Row]) -> Any:
        """Return rows (n_samples, n_features) as an array or a DataFrame."""
        # A float array would not hold categories and booleans.
        X = np.array(rows, dtype=object if self.mixed_types else float)
        if not self.as_frame:
            return X
        from pandas import DataFrame  # 84 MB, which other models do not need

        return DataFrame(X, columns=list(self.names)).infer_objects()


class SklearnModel:
    """An estimator, with rows of feature values as input; threads may share it."""

    def __init__(self, pickled: bytes, columns: Columns) -> None:
        """Unpickle an estimator, which takes these columns."""
        self.columns = columns
        self.estimator = pickle.loads(pickled)  # noqa: S301 - the caller has verified its SHA-256

    def predict(self, rows: Sequence[Row]) -> np.ndarray:
        """Predict the targets of rows (n_samples, n_features), as the estimator shapes them."""
        X = self.columns.to_input(rows)
        # Records hold finite numbers only. A number that is too large for the trees' float32
        # becomes infinite there, and is compared like any other large number.
        with sklearn.config_context(assume_finite=True), np.errstate(over="ignore"):
            return np.asarray(self.estimator.predict(X))
