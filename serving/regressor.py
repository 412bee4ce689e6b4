"""Predict with a stored model: by ONNX Runtime, or by scikit-learn if it could not be exported."""

import json
from collections.abc import Sequence
from typing import Any, Protocol

import bentoml
from bentoml.exceptions import BentoMLException

from serving.model import GOLDEN_FILE, TrainingMetadata, read_verified
from serving.records import Row

# Of the larger of the prediction and the target's standard deviation. Other versions of a library
# or another processor may change the last digits.
GOLDEN_TOLERANCE = 1e-9


class Predictor(Protocol):
    """A model that predicts the targets (n_samples,) of rows (n_samples, n_features)."""

    def predict(self, rows: Sequence[Row]) -> list[float]:
        """Predict."""


class Regressor:
    """A stored model, loaded and compared with the golden predictions of its training."""

    def __init__(self, model: bentoml.Model) -> None:
        training = TrainingMetadata.model_validate(model.info.metadata)
        # Load the bytes that were verified, not a file that may have changed since.
        content = read_verified(model, training, training.inference_file)
        self.predictor = load_predictor(content, training)
        golden = json.loads(read_verified(model, training, GOLDEN_FILE))
        check_golden_predictions(self.predictor, golden, training.target_std, model.tag)

    def predict(self, rows: Sequence[Row]) -> list[float]:
        """Predict the targets (n_samples,) of rows (n_samples, n_features)."""
        return self.predictor.predict(rows)


def load_predictor(content: bytes, training: TrainingMetadata) -> Predictor:
    """Return what predicts, from the content of the model's file."""
    # Each runtime is imported only if it is needed; the supervisor, which imports this module, too,
    # needs none.
    if training.inference.runtime == "onnxruntime":
        from serving.onnx_model import OnnxModel

        return OnnxModel(content)
    from serving.sklearn_model import SklearnModel

    return SklearnModel(content, training.feature_names, bool(training.training_values))


def check_golden_predictions(
    predictor: Predictor, golden: dict[str, Any], target_std: float, tag: bentoml.Tag
) -> None:
    """Raise BentoMLException unless the model predicts here what it predicted at training."""
    rows = [tuple(row) for row in golden["rows"]]
    predictions = predictor.predict(rows)
    for row, expected, predicted in zip(rows, golden["predictions"], predictions, strict=True):
        limit = GOLDEN_TOLERANCE * max(abs(expected), target_std)
        if not abs(predicted - expected) <= limit:
            raise BentoMLException(
                f"Model {tag} predicts {predicted} here where it predicted {expected} at training, "
                f"for {row}: install the versions of the training (GET /model), or run `make train`"
            )
