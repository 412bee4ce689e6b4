"""Predict with a pickled scikit-learn estimator."""

import pickle
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import sklearn

from serving.records import Row

# LightGBM makes names up if it was fitted on an array, and scikit-learn warns of each prediction.
warnings.filterwarnings("ignore", "X does not have valid feature names", UserWarning)


class Columns(NamedTuple):
    """The features as an estimator takes them."""

    dtypes: Mapping[str, str]  # float64, int64, bool or object, by name
    as_frame: bool  # the estimator takes a DataFrame, not an array

    def to_input(self, rows: Sequence[Row] | np.ndarray) -> Any:
        """Return rows (n_samples, n_features) as an array or a DataFrame.

        A gap is NaN, or None among strings.
        """
        dtypes = self.dtypes.values()
        if not self.as_frame and not {"object", "bool"} & set(dtypes):
            return np.array(rows, dtype=np.float64)
        columns = list(zip(self.dtypes, dtypes, zip(*rows, strict=True), strict=True))
        if not self.as_frame:
            arrays = [np.array(values, dtype=dtype) for _, dtype, values in columns]
            return np.column_stack([array.astype(object) for array in arrays])
        from pandas import DataFrame, Series  # 84 MB, which other models do not need

        # Without its type, a column of strings would become one of pandas' own type for them.
        return DataFrame({name: Series(values, dtype=dtype) for name, dtype, values in columns})


class SklearnModel:
    """An estimator, with rows of feature values as input; threads may share it."""

    def __init__(self, pickled: bytes, columns: Columns) -> None:
        """Unpickle an estimator, which takes these columns."""
        self.columns = columns
        self.estimator = pickle.loads(pickled)  # noqa: S301 - the caller has verified its SHA-256

    def predict(self, rows: Sequence[Row] | np.ndarray) -> np.ndarray:
        """Predict the targets of rows (n_samples, n_features), as the estimator shapes them."""
        X = self.columns.to_input(rows)
        # Records hold finite numbers only. A number that is too large for the trees' float32
        # becomes infinite there, and is compared like any other large number.
        with sklearn.config_context(assume_finite=True), np.errstate(over="ignore"):
            return np.asarray(self.estimator.predict(X))
