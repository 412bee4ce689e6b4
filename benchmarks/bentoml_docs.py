"""The same model on BentoML as its documentation shows it: a batchable API over an array."""

import bentoml
import numpy as np
from bentoml.models import BentoModel

from house import NAME


@bentoml.service
class Documented:
    """Predicts house prices."""

    model_ref = BentoModel(f"{NAME}:latest")

    def __init__(self) -> None:
        self.model = bentoml.sklearn.load_model(self.model_ref)

    @bentoml.api(batchable=True)
    def predict(self, input_series: np.ndarray) -> np.ndarray:
        """Predict the prices of houses (n_samples, n_features)."""
        return self.model.predict(input_series)
