"""The fitted model: how good it is, and what is saved of it in the BentoML model store."""

import hashlib
import io
import pickle
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import Any

import bentoml
import numpy as np
import pandas as pd
from pydantic import BaseModel
from sklearn.base import RegressorMixin
from sklearn.metrics import (
    mean_absolute_error,
    mean_squared_error,
    r2_score,
    root_mean_squared_error,
)
from sklearn.model_selection import KFold, cross_val_score

from serving.model import MODEL_FILE, Training, specimens
from training.data import Split

LEVELS = (0, 0.01, 0.05, *(tenth / 10 for tenth in range(1, 10)), 0.95, 0.99, 1)  # of quantiles
FOLDS = KFold(5, shuffle=True, random_state=0)
SCORES = {
    "mse": mean_squared_error,
    "rmse": root_mean_squared_error,
    "mae": mean_absolute_error,
    "r2": r2_score,
}


class Unservable(Exception):
    """The service could not serve the model; the message says why."""


def as_fitted(model: RegressorMixin, X: pd.DataFrame) -> pd.DataFrame | np.ndarray:
    """Return features as what the model was fitted on: a DataFrame, or else an array."""
    return X if hasattr(model, "feature_names_in_") else X.to_numpy()


def evaluate(model: RegressorMixin, data: Split) -> dict[str, float]:
    """Return the scores of a fitted model and, in five folds over all the data, of its like."""
    X, y = as_fitted(model, pd.concat(data[:2])), pd.concat(data[2:])
    cv_rmse = -cross_val_score(model, X, y, cv=FOLDS, scoring="neg_root_mean_squared_error")
    predicted = {
        "train": (data.y_train, model.predict(as_fitted(model, data.X_train))),
        "test": (data.y_test, model.predict(as_fitted(model, data.X_test))),
    }
    metrics = {
        f"{part}_{name}": score(*predicted[part])
        for name, score in SCORES.items()
        for part in predicted
    }
    metrics |= {"cv_rmse": cv_rmse.mean(), "cv_rmse_std": cv_rmse.std()}
    return {name: float(value) for name, value in metrics.items()}


def predict_legal(model: RegressorMixin, X: pd.DataFrame, labelled: type[BaseModel]) -> None:
    """Predict a record with each legal category in turn; raise `Unservable` if the model can't.

    In the service it would fail all the requests that happen to be in one batch.
    """
    rows = specimens(labelled, X.iloc[0].to_dict())
    try:
        model.predict(as_fitted(model, pd.DataFrame(rows, columns=X.columns)))
    except ValueError as error:
        raise Unservable(
            "The model fails on a legal record. If that is for a category that the data lack, its "
            f'encoder needs handle_unknown="ignore", or the like.\n{error}'
        ) from error


def seen(X: pd.DataFrame) -> dict[str, Any]:
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


def distribution(y_pred: np.ndarray) -> dict[float, float]:
    """Return the share of the predictions that are not over each of their quantiles."""
    # The quantiles name buckets in the metrics, for which four digits are enough.
    bounds = sorted({float(f"{value:.4g}") for value in np.quantile(y_pred, LEVELS)})
    return {bound: float(np.mean(y_pred <= bound)) for bound in bounds}


class Portable(pickle.Unpickler):
    """Unpickles what the service can unpickle, too."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what a pickle names; raise `Unservable` if the service has no such thing."""
        if module == "__main__":
            raise Unservable(
                f"The model needs {name}, which the service does not find in train.py: define it "
                "in a module of its own, and name that in bentofile.yaml, too"
            )
        return super().find_class(module, name)


def to_pickle(model: RegressorMixin) -> bytes:
    """Pickle a model; raise `Unservable` if that can't be, or the service could not unpickle it."""
    try:
        pickled = pickle.dumps(model)
    except (pickle.PicklingError, AttributeError, TypeError) as error:  # of a lambda, a lock, ...
        words = "a function has to have a name, and a module of its own"
        raise Unservable(f"{error}: {words}") from error
    Portable(io.BytesIO(pickled)).load()
    return pickled


def save(
    name: str,
    model: RegressorMixin,
    X_train: pd.DataFrame,
    metrics: dict[str, float],
    target: dict[str, str],
    source: bytes,
) -> bentoml.Model:
    """Save a fitted model, with all that is to be known of its training, to the model store.

    Raise `Unservable` as `to_pickle` does.
    """
    pickled = to_pickle(model)
    packages = ("bentoml", "scikit-learn", "numpy", "pandas")
    training = Training(
        trained_at=datetime.now(UTC),
        target=target,
        feature_names=list(X_train),
        **seen(X_train),
        prediction_distribution=distribution(model.predict(as_fitted(model, X_train))),
        metrics=metrics,
        data_sha256=hashlib.sha256(source).hexdigest(),
        model_sha256=hashlib.sha256(pickled).hexdigest(),
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
