"""Save a fitted regressor, with a description of its training, to the BentoML model store."""

import io
import pickle
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import Any

import bentoml
import numpy as np
import pandas as pd
from sklearn.base import RegressorMixin

from serving.model import MODEL_FILE, TrainingMetadata
from training.errors import ModelNotServableError
from training.evaluation import to_fitted_type

# Of the predictions for the training data.
QUANTILES = (0, 0.01, 0.05, *(tenth / 10 for tenth in range(1, 10)), 0.95, 0.99, 1)
# Modules that are not in a Bento.
TRAINING_MODULES = ("__main__", "train")


def save(
    name: str,
    estimator: RegressorMixin,
    X_train: pd.DataFrame,
    metrics: dict[str, float],
    target: dict[str, str],
    data_sha256: str,
) -> bentoml.Model:
    """Save a fitted estimator; raise ModelNotServableError if the service could not load it."""
    pickled = to_pickle(estimator)
    packages = ("bentoml", "scikit-learn", "numpy", "pandas")
    y_pred = estimator.predict(to_fitted_type(estimator, X_train))
    training = TrainingMetadata(
        trained_at=datetime.now(UTC),
        target=target,
        feature_names=list(X_train),
        **training_ranges(X_train),
        prediction_distribution=cumulative_distribution(y_pred),
        metrics=metrics,
        data_sha256=data_sha256,
        model_sha256=sha256(pickled).hexdigest(),
        versions={"python": python_version(), **{name: version(name) for name in packages}},
    )
    # `bentoml.sklearn.save_model` wants the metadata before there is a file to hash.
    with bentoml.models.create(
        name,
        module="bentoml.sklearn",
        labels={"task": "regression", "framework": "scikit-learn"},
        metadata=training.model_dump(mode="json"),
    ) as stored:
        Path(stored.path_of(MODEL_FILE)).write_bytes(pickled)
    return bentoml.models.get(stored.tag)


def training_ranges(X: pd.DataFrame) -> dict[str, Any]:
    """Return the range of each number, and the values of each category and boolean."""
    numbers, others = X.select_dtypes("number"), X.select_dtypes(exclude="number")
    return {
        "training_range": {
            name: (float(column.min()), float(column.max())) for name, column in numbers.items()
        },
        "training_values": {
            name: sorted(column.unique().tolist()) for name, column in others.items()
        },
    }


def cumulative_distribution(y_pred: np.ndarray) -> dict[float, float]:
    """Return, for each of some quantiles, the share of the predictions that do not exceed it."""
    # The quantiles become the names of histogram buckets, for which four digits are enough.
    bounds = sorted({float(f"{value:.4g}") for value in np.quantile(y_pred, QUANTILES)})
    return {bound: float(np.mean(y_pred <= bound)) for bound in bounds}


def to_pickle(estimator: RegressorMixin) -> bytes:
    """Pickle an estimator; raise ModelNotServableError if the service could not unpickle it."""
    try:
        pickled = pickle.dumps(estimator)
    except (pickle.PicklingError, AttributeError, TypeError) as error:  # of a lambda, a lock, ...
        hint = "a function has to have a name, and a module of its own"
        raise ModelNotServableError(f"{error}: {hint}") from error
    CheckedUnpickler(io.BytesIO(pickled)).load()
    return pickled


class CheckedUnpickler(pickle.Unpickler):
    """Unpickles only what the service, which has no train.py, could unpickle, too."""

    def find_class(self, module: str, name: str) -> Any:
        """Return the class or function that a pickle names; raise ModelNotServableError."""
        if module in TRAINING_MODULES:
            raise ModelNotServableError(
                f"The model needs {name}, which the service does not find in train.py: define it "
                "in a module of its own, and name that in bentofile.yaml, too"
            )
        return super().find_class(module, name)
