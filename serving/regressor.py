"""The regressor: how the model predicts."""

import pickle
from collections.abc import Sequence

import bentoml
import numpy as np
import sklearn
from prometheus_client import Counter

from serving.model import Training, read_pickle
from serving.records import Row

OUTSIDE = Counter(
    "feature_outside_training_range", "Legal values outside the training range", ["feature"]
)


class Regressor:
    """A scikit-learn regressor from the model store."""

    def __init__(self, model: bentoml.Model) -> None:
        training = Training.model_validate(model.info.metadata)
        self.feature_names = training.feature_names
        ranges = [training.training_range[name] for name in self.feature_names]
        self.lowest, self.highest = np.array(ranges).T
        # The bytes that were checked, not a file that may have changed in between.
        self.estimator = pickle.loads(read_pickle(model, training))  # noqa: S301

    def predict(self, rows: Sequence[Row]) -> list[float]:
        """Predict the targets (n_samples,) of rows (n_samples, n_features)."""
        X = np.array(rows)
        outside = ((self.lowest > X) | (self.highest < X)).sum(axis=0)
        for index in outside.nonzero()[0]:
            OUTSIDE.labels(self.feature_names[index]).inc(outside[index])
        # A record holds finite numbers only. One that is too large for the trees' float32 becomes
        # infinite there, and goes the way of all large numbers.
        with sklearn.config_context(assume_finite=True), np.errstate(over="ignore"):
            return self.estimator.predict(X).tolist()
