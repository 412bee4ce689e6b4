"""Predict with a stored model, in ONNX Runtime or scikit-learn, whichever training has chosen."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import bentoml
from bentoml.exceptions import BentoMLException

from serving.model import Inference, read_golden, read_verified, training_metadata
from serving.records import Row

if TYPE_CHECKING:
    import numpy as np

# Relative to max(|prediction|, standard deviation of the target). The last digits may differ with
# the runtime, the version of a library or the processor.
GOLDEN_TOLERANCE = 1e-9


class LoadedModel(Protocol):
    """A model that is loaded into a runtime: `OnnxModel` or `SklearnModel`."""

    def predict(self, rows: "Sequence[Row] | np.ndarray") -> "np.ndarray":
        """Predict the targets (n_samples,) or (n_samples, 1) of rows (n_samples, n_features)."""


class Regressor:
    """A loaded model, whose predictions have been compared with its golden predictions."""

    def __init__(self, model: bentoml.Model) -> None:
        training = training_metadata(model)
        # Load the verified bytes: the file may change after its verification.
        content = read_verified(model, training, training.inference_file)
        self.loaded_model = load_model(content, training.inference, training.column_dtypes)
        check_golden_predictions(self.predict, read_golden(model), training.target_std, model.tag)

    def predict(self, rows: "Sequence[Row] | np.ndarray") -> list[float]:
        """Predict the targets (n_samples,) of rows (n_samples, n_features)."""
        return to_predictions(self.loaded_model.predict(rows), len(rows))


def load_model(
    content: bytes, inference: Inference, column_dtypes: Mapping[str, str]
) -> LoadedModel:
    """Load the content of a model file into the runtime that training has chosen."""
    # Import only the runtime that is needed: the supervisor, which imports this module, needs none.
    if inference.runtime == "onnxruntime":
        from serving.onnx_model import OnnxModel

        return OnnxModel(content)
    from serving.sklearn_model import InputFormat, SklearnModel

    return SklearnModel(content, InputFormat(column_dtypes, as_frame=inference.input == "frame"))


def to_predictions(y_pred: "np.ndarray", n_samples: int) -> list[float]:
    """Return predictions (n_samples,) or (n_samples, 1) as a list.

    Raise BentoMLException if they have another shape.
    """
    if y_pred.shape not in ((n_samples,), (n_samples, 1)):
        raise BentoMLException(
            f"The model predicts an array of shape {y_pred.shape} for {n_samples} rows instead of "
            f"({n_samples},): fit it to one target"
        )
    return y_pred.ravel().tolist()


def check_golden_predictions(
    predict: Callable[[list[Row]], list[float]],
    golden: dict[str, Any],
    target_std: float,
    tag: bentoml.Tag,
) -> None:
    """Raise BentoMLException unless the model predicts what scikit-learn did during training."""
    rows = [tuple(row) for row in golden["rows"]]
    predictions = predict(rows)
    for row, expected, predicted in zip(rows, golden["predictions"], predictions, strict=True):
        limit = GOLDEN_TOLERANCE * max(abs(expected), target_std)
        if not abs(predicted - expected) <= limit:
            raise BentoMLException(
                f"Model {tag} predicts {predicted} for {row}, but predicted {expected} during "
                f"training: install the package versions that `bentoml models get {tag}` shows, or "
                "run `make train`"
            )
