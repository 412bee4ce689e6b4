"""The regressor: how the model predicts."""

import pickle
from collections.abc import Sequence

import bentoml
import numpy as np
import sklearn
from prometheus_client import Counter

from serving.model import Training, read_pickle
from serving.observability.metrics import describe_model
from serving.records import Row

OUTSIDE = Counter(
    "feature_outside_training_range",
    "Legal values outside the training range, or not among the training values",
    ["feature"],
)


class Regressor:
    """A scikit-learn regressor from the model store."""

    def __init__(self, model: bentoml.Model) -> None:
        training = Training.model_validate(model.info.metadata)
        self.feature_names = training.feature_names
        seen = training.training_values
        self.seen = {self.feature_names.index(name): set(seen[name]) for name in seen}
        self.numeric = [n for n in range(len(self.feature_names)) if n not in self.seen]
        ranges = [training.training_range[self.feature_names[n]] for n in self.numeric]
        self.lowest, self.highest = np.array(ranges).reshape(-1, 2).T
        self.values = describe_model(str(model.tag), training)
        # The bytes that were checked, not a file that may have changed in between.
        self.estimator = pickle.loads(read_pickle(model, training))  # noqa: S301
        self.takes_frame = hasattr(self.estimator, "feature_names_in_")

    def predict(self, rows: Sequence[Row]) -> list[float]:
        """Predict the targets (n_samples,) of rows (n_samples, n_features)."""
        X = self.array(rows)
        self.count_outside(X)
        predictions = self.estimate(X).tolist()
        self.values.observe_all(predictions)
        return predictions

    def check(self, rows: Sequence[Row]) -> None:
        """See that the estimator predicts rows, without counting them."""
        self.estimate(self.array(rows))

    def array(self, rows: Sequence[Row]) -> np.ndarray:
        """Return rows as floats, or as objects if there are categories or booleans among them."""
        return np.array(rows, dtype=object if self.seen else float)

    def count_outside(self, X: np.ndarray) -> None:
        """Count the numbers outside the training range, and other values that training lacked."""
        numbers = X[:, self.numeric].astype(float) if self.seen else X
        outside = ((self.lowest > numbers) | (self.highest < numbers)).sum(axis=0)
        counts = {self.numeric[n]: outside[n] for n in outside.nonzero()[0]}
        for index, seen in self.seen.items():
            counts[index] = sum(value not in seen for value in X[:, index])
        for index, count in counts.items():
            if count:
                OUTSIDE.labels(self.feature_names[index]).inc(count)

    def estimate(self, X: np.ndarray) -> np.ndarray:
        """Return what the estimator predicts for features (n_samples, n_features)."""
        if self.takes_frame:
            from pandas import DataFrame  # 84 MB, which other models do without

            X = DataFrame(X, columns=self.feature_names).infer_objects()
        # A record holds finite numbers only. One that is too large for the trees' float32 becomes
        # infinite there, and goes the way of all large numbers.
        with sklearn.config_context(assume_finite=True), np.errstate(over="ignore"):
            return self.estimator.predict(X)
