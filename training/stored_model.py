"""Predict many rows with a model of the model store, as the service would."""

from contextlib import suppress
from math import inf, isfinite

import bentoml
import numpy as np

from serving.isolation import Batch, ModelFailedError
from serving.model import read_golden
from serving.records import Row
from serving.regressor import Regressor
from training.errors import TrainingError

Rows = list[Row] | np.ndarray  # (n_samples, n_features)


class StoredModel:
    """A model of the model store, loaded."""

    def __init__(self, model: bentoml.Model) -> None:
        """Load the model; raise BentoMLException if the service could not load it."""
        self.tag = str(model.tag)
        self.regressor = Regressor(model)
        self.golden_row = tuple(read_golden(model)["rows"][0])

    def predict(self, rows: Rows) -> list[float]:
        """Predict rows; the prediction is `Unpredicted` where the service would answer with 422.

        Raise TrainingError if the model fails on its golden row, too.
        """
        if not len(rows):
            return []
        # All rows at once. If a row fails, `Batch` finds it.
        with suppress(Exception):  # a model may raise any exception
            predictions = self.regressor.predict(rows)
            if all(map(isfinite, predictions)):
                return predictions
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
