"""Predict with a pickled scikit-learn estimator."""

import pickle
from collections.abc import Sequence

import numpy as np
import sklearn

from serving.records import Row


class SklearnModel:
    """An estimator, with rows of feature values as input; threads may share it."""

    def __init__(self, pickled: bytes, feature_names: Sequence[str], mixed_types: bool) -> None:
        """Unpickle an estimator. `mixed_types`: there are categories or booleans."""
        self.feature_names = feature_names
        # A float array would not hold categories and booleans.
        self.dtype = object if mixed_types else float
        self.estimator = pickle.loads(pickled)  # noqa: S301 - the caller has verified its SHA-256
        self.fitted_on_frame = hasattr(self.estimator, "feature_names_in_")

    def predict(self, rows: Sequence[Row]) -> np.ndarray:
        """Predict the targets of rows (n_samples, n_features), as the estimator shapes them."""
        X = np.array(rows, dtype=self.dtype)
        if self.fitted_on_frame:
            from pandas import DataFrame  # 84 MB, which other models do not need

            X = DataFrame(X, columns=self.feature_names).infer_objects()
        # Records hold finite numbers only. A number that is too large for the trees' float32
        # becomes infinite there, and is compared like any other large number.
        with sklearn.config_context(assume_finite=True), np.errstate(over="ignore"):
            return np.asarray(self.estimator.predict(X))
