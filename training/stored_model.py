"""Load a model of the model store, and predict many rows with it as the service would."""

import pickle
from contextlib import suppress
from math import inf, isfinite
from typing import Any

import bentoml
import numpy as np

from serving.isolation import Batch, ModelFailedError
from serving.model import PICKLE_FILE, read_golden, read_verified, training_metadata
from serving.records import Row
from serving.regressor import Regressor
from training.errors import TrainingError

Rows = list[Row] | np.ndarray  # (n_samples, n_features)


def load_estimator(model: bentoml.Model) -> Any:
    """Return the scikit-learn estimator of a model, also if ONNX Runtime serves the model.

    Raise BentoMLException if the SHA-256 of its pickle is not as saved.
    """
    pickled = read_verified(model, training_metadata(model), PICKLE_FILE)
    return pickle.loads(pickled)  # noqa: S301 - verified in the line above


class StoredModel:
    """A model of the model store, loaded."""

    def __init__(self, model: bentoml.Model) -> None:
        """Load the model; raise BentoMLException if the service could not load it."""
        self.tag = str(model.tag)
        self.regressor = Regressor(model)
        # A training row that the model could predict when it was saved.
        self.golden_row = tuple(read_golden(model)["rows"][0])

    def predict(self, rows: Rows) -> list[float]:
        """Predict rows; where the service would answer with 422, the prediction is NaN.

        Raise TrainingError if the model fails on the golden row, too.
        """
        if not len(rows):
            return []
        # Usually one call predicts all rows. If not, `Batch` starts again, and finds the rows that
        # the model can't predict.
        with suppress(Exception):  # a model may raise any exception
            predictions = self.regressor.predict(rows)
            if all(map(isfinite, predictions)):
                return predictions
        # Each row is a request of its own, since `Batch` gives up on a request after
        # MAX_UNPREDICTED failed rows. No row counts as unusual (outside the training range): to try
        # such rows apart makes the service faster, but changes no prediction.
        batch = Batch(
            [[row] for row in rows],
            self.regressor.predict,
            is_unusual=lambda _: False,
            golden_row=self.golden_row,
            seconds=inf,
            split_unusual=False,
        )
        try:
            return [prediction for (prediction,) in batch.run()]
        except ModelFailedError as error:
            raise TrainingError(
                f"{self.tag} predicts nothing any more, not even its golden row: "
                f"{error.__cause__!r}"
            ) from error
