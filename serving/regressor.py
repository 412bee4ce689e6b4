"""Predict with the scikit-learn estimator of a stored model."""

import pickle
from collections.abc import Sequence

import bentoml
import numpy as np

from serving.model import TrainingMetadata, read_verified_pickle
from serving.records import Row


class Regressor:
    """The estimator of a stored model, with rows of feature values as input."""

    def __init__(self, model: bentoml.Model) -> None:
        training = TrainingMetadata.model_validate(model.info.metadata)
        self.feature_names = training.feature_names
        # A float array would not hold categories and booleans.
        self.dtype = object if training.training_values else float
        # Unpickle the bytes that were verified, not a file that may have changed since.
        self.estimator = pickle.loads(read_verified_pickle(model, training))  # noqa: S301
        self.fitted_on_frame = hasattr(self.estimator, "feature_names_in_")

    def predict(self, rows: Sequence[Row]) -> list[float]:
        """Predict the targets (n_samples,) of rows (n_samples, n_features)."""
        import sklearn  # the supervisor imports this module, too: it saves 0.8 s and 100 MB

        X = np.array(rows, dtype=self.dtype)
        if self.fitted_on_frame:
            from pandas import DataFrame  # 84 MB, which other models do not need

            X = DataFrame(X, columns=self.feature_names).infer_objects()
        # Records hold finite numbers only. A number that is too large for the trees' float32
        # becomes infinite there, and is compared like any other large number.
        with sklearn.config_context(assume_finite=True), np.errstate(over="ignore"):
            return self.estimator.predict(X).tolist()
