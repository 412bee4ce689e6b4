"""Predict with a pickled scikit-learn estimator."""

import pickle
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import sklearn

from serving.records import Row

# For the whole process: LightGBM invents feature names when it is fitted on an array, and
# scikit-learn then warns at each prediction.
warnings.filterwarnings("ignore", "X does not have valid feature names", UserWarning)


class InputFormat(NamedTuple):
    """How to turn rows of feature values into the input of an estimator."""

    dtypes: Mapping[str, str]  # column type (float64, int64, bool or object) by feature
    as_frame: bool  # the estimator takes a DataFrame, not an array

    def to_input(self, rows: Sequence[Row] | np.ndarray) -> Any:
        """Return rows (n_samples, n_features) as an array or a DataFrame.

        A missing value is None in a column of strings, otherwise NaN.
        """
        dtypes = self.dtypes.values()
        if not self.as_frame and not {"object", "bool"} & set(dtypes):
            return np.array(rows, dtype=np.float64)
        columns = list(zip(self.dtypes, dtypes, zip(*rows, strict=True), strict=True))
        if not self.as_frame:
            # An array of objects keeps numbers, booleans and strings apart.
            arrays = [np.array(values, dtype=dtype) for _, dtype, values in columns]
            return np.column_stack([array.astype(object) for array in arrays])
        # pandas takes 84 MB of memory: import it only for a model that needs it.
        from pandas import DataFrame, Series

        # Without a dtype, a column of strings would get pandas' string dtype.
        return DataFrame({name: Series(values, dtype=dtype) for name, dtype, values in columns})


class SklearnModel:
    """A scikit-learn estimator that predicts rows of feature values; threads may share it."""

    def __init__(self, pickled: bytes, input_format: InputFormat) -> None:
        """Unpickle the estimator, which executes code: verify the SHA-256 of the bytes first."""
        self.input_format = input_format
        self.estimator = pickle.loads(pickled)  # noqa: S301 - the caller has verified it

    def predict(self, rows: Sequence[Row] | np.ndarray) -> np.ndarray:
        """Predict the targets (n_samples,) or (n_samples, 1) of rows (n_samples, n_features)."""
        X = self.input_format.to_input(rows)
        # Skip scikit-learn's check of X: the numbers of a record are finite, and NaN, a missing
        # value, occurs only for a nullable feature, which training has tried with this model. A
        # number beyond float32 becomes infinite inside the trees, which compare it like any other
        # large number.
        with sklearn.config_context(assume_finite=True), np.errstate(over="ignore"):
            return np.asarray(self.estimator.predict(X))
