"""Predict with a stored model: by ONNX Runtime, or by scikit-learn if it could not be exported."""

import json
from collections.abc import Sequence
from typing import Any, Protocol

import bentoml
from bentoml.exceptions import BentoMLException

from serving.model import GOLDEN_FILE, TrainingMetadata, read_verified
from serving.records import Row

# Relative to max(|prediction|, standard deviation of the target). Another version of a library or
# another processor may change the last digits.
GOLDEN_TOLERANCE = 1e-9


class LoadedModel(Protocol):
    """A model in the memory of a runtime: `OnnxModel` or `SklearnModel`."""

    def predict(self, rows: Sequence[Row]) -> list[float]:
        """Predict the targets (n_samples,) of rows (n_samples, n_features)."""


class Regressor:
    """A stored model, loaded and compared with the golden predictions of its training."""

    def __init__(self, model: bentoml.Model) -> None:
        training = TrainingMetadata.model_validate(model.info.metadata)
        # Load the bytes that were verified, not a file that may have changed since.
        content = read_verified(model, training, training.inference_file)
        self.loaded_model = load_model(content, training)
        golden = json.loads(read_verified(model, training, GOLDEN_FILE))
        check_golden_predictions(self.loaded_model, golden, training.target_std, model.tag)

    def predict(self, rows: Sequence[Row]) -> list[float]:
        """Predict the targets (n_samples,) of rows (n_samples, n_features)."""
        return self.loaded_model.predict(rows)


def load_model(content: bytes, training: TrainingMetadata) -> LoadedModel:
    """Load the content of the model's file into its runtime."""
    # Each runtime is imported only if it is needed; the supervisor, which imports this module, too,
    # needs none.
    if training.inference.runtime == "onnxruntime":
        from serving.onnx_model import OnnxModel

        return OnnxModel(content)
    from serving.sklearn_model import SklearnModel

    mixed_types = bool(training.training_values)  # there are categories or booleans
    return SklearnModel(content, training.feature_names, mixed_types)


def check_golden_predictions(
    loaded_model: LoadedModel, golden: dict[str, Any], target_std: float, tag: bentoml.Tag
) -> None:
    """Raise BentoMLException unless the model predicts here what it predicted at training."""
    rows = [tuple(row) for row in golden["rows"]]
    predictions = loaded_model.predict(rows)
    for row, expected, predicted in zip(rows, golden["predictions"], predictions, strict=True):
        limit = GOLDEN_TOLERANCE * max(abs(expected), target_std)
        if not abs(predicted - expected) <= limit:
            raise BentoMLException(
                f"Model {tag} predicts {predicted} here where it predicted {expected} at training, "
                f"for {row}: install the versions of the training (GET /model), or run `make train`"
            )
