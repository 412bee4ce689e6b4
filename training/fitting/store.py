"""Save a fitted regressor, with a description of its training, to the BentoML model store."""

import io
import json
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
from pydantic import BaseModel
from sklearn.base import RegressorMixin

from serving.features import Schema, feature_schemas, is_nullable, kind_of
from serving.model import GOLDEN_FILE, ONNX_FILE, PICKLE_FILE, TEXTS_FILE, TrainingMetadata
from serving.regressor import load_model
from training.data import Split, to_values
from training.errors import ModelNotServableError
from training.export.check import Reference
from training.fitting.evaluation import predict
from training.fitting.inference import choose_inference, golden_predictions
from training.fitting.probes import check_probes

# Of the predictions for the training data.
QUANTILES = (0, 0.01, 0.05, *(tenth / 10 for tenth in range(1, 10)), 0.95, 0.99, 1)
DECILES = [tenth / 10 for tenth in range(11)]
PACKAGES = ("bentoml", "scikit-learn", "numpy", "pandas", "onnxruntime", "skl2onnx")
# Modules that are not in a Bento.
TRAINING_MODULES = ("__main__", "train")


def save(
    name: str,
    estimator: RegressorMixin,
    data: Split,
    record_type: type[BaseModel],
    metrics: dict[str, float],
    target: dict[str, str],
    data_sha256: str,
) -> bentoml.Model:
    """Save a fitted estimator with its export, golden predictions and a description.

    Raise ModelNotServableError if the service could not load it.
    """
    X = data.X_train
    pickled, modules = to_pickle(estimator)
    files = {PICKLE_FILE: pickled}
    inference, onnx_content = choose_inference(estimator, modules, data, record_type)
    if onnx_content:
        files[ONNX_FILE] = onnx_content
    ranges, texts = training_ranges(X, record_type), training_texts(X, record_type)
    if texts:
        files[TEXTS_FILE] = json.dumps(texts).encode()
    dtypes = {name: str(dtype) for name, dtype in X.dtypes.items()}
    served_model = load_model(onnx_content or pickled, inference, dtypes)
    declared_rows = check_probes(served_model, Reference(estimator, X), record_type, X)
    golden = golden_predictions(estimator, X, record_type, declared_rows)
    files[GOLDEN_FILE] = json.dumps(golden).encode()
    training = TrainingMetadata(
        trained_at=datetime.now(UTC),
        target=target,
        target_std=float(np.std(pd.concat(data[2:]))),
        feature_names=list(X),
        **ranges,
        column_dtypes=dtypes,
        prediction_distribution=cumulative_distribution(predict(estimator, X)),
        metrics=metrics,
        inference=inference,
        data_sha256=data_sha256,
        file_sha256={name: sha256(content).hexdigest() for name, content in files.items()},
        versions={"python": python_version(), **{name: version(name) for name in PACKAGES}},
    )
    return store_files(name, files, training)


def store_files(name: str, files: dict[str, bytes], training: TrainingMetadata) -> bentoml.Model:
    """Write the files of a model to the model store."""
    # `bentoml.sklearn.save_model` wants the metadata before there is a file to hash.
    with bentoml.models.create(
        name,
        module="bentoml.sklearn",
        labels={"task": "regression", "framework": "scikit-learn"},
        metadata=training.model_dump(mode="json", exclude_none=True),  # BentoML takes no None
    ) as stored:
        for file_name, content in files.items():
            Path(stored.path_of(file_name)).write_bytes(content)
    return bentoml.models.get(stored.tag)


def training_ranges(X: pd.DataFrame, record_type: type[BaseModel]) -> dict[str, Any]:
    """Return the range and deciles of each number, the values of the others, and the gaps."""
    schemas = feature_schemas(record_type)
    kinds = {name: kind_of(schemas[name]) for name in X}
    numbers = [name for name, kind in kinds.items() if kind in ("number", "integer")]
    values = {
        name: distinct(X[name], schemas[name])
        for name, kind in kinds.items()
        if kind in ("category", "boolean")
    }
    return {
        "training_range": {name: (float(X[name].min()), float(X[name].max())) for name in numbers},
        "training_deciles": {name: deciles(X[name]) for name in numbers},
        "training_values": values,
        "training_shares": {
            name: [float((X[name] == value).mean()) for value in known]
            for name, known in values.items()
        },
        "training_gaps": {
            name: float(X[name].isna().mean()) for name in X if is_nullable(schemas[name])
        },
    }


def deciles(column: pd.Series) -> list[float]:
    """Return the eleven values that divide a column, without gaps, into tenths."""
    return np.quantile(column.dropna().to_numpy(float), DECILES).tolist()


def training_texts(X: pd.DataFrame, record_type: type[BaseModel]) -> dict[str, list[str]]:
    """Return the values of each text; there may be too many for the metadata."""
    schemas = feature_schemas(record_type)
    texts = [name for name in X if kind_of(schemas[name]) == "text"]
    return {name: distinct(X[name], schemas[name]) for name in texts}


def distinct(column: pd.Series, schema: Schema) -> list[Any]:
    """Return the values of a column, without gaps, each once and in order."""
    return sorted({value for value in to_values(column, schema) if value is not None})


def cumulative_distribution(y_pred: np.ndarray) -> dict[float, float]:
    """Return, for each of some quantiles, the share of the predictions that do not exceed it."""
    # The quantiles become the names of histogram buckets, for which four digits are enough.
    bounds = sorted({float(f"{value:.4g}") for value in np.quantile(y_pred, QUANTILES)})
    return {bound: float(np.mean(y_pred <= bound)) for bound in bounds}


def to_pickle(estimator: RegressorMixin) -> tuple[bytes, set[str]]:
    """Return the pickle of an estimator, and the modules that it names.

    Raise ModelNotServableError if the service could not unpickle it.
    """
    try:
        pickled = pickle.dumps(estimator)
    except (pickle.PicklingError, AttributeError, TypeError) as error:  # of a lambda, a lock, ...
        hint = "a function has to have a name, and a module of its own"
        raise ModelNotServableError(f"{error}: {hint}") from error
    unpickler = CheckedUnpickler(io.BytesIO(pickled))
    unpickler.load()
    return pickled, unpickler.modules


class CheckedUnpickler(pickle.Unpickler):
    """Unpickles only what the service, which has no train.py, could unpickle, too."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.modules: set[str] = set()  # that the pickle names

    def find_class(self, module: str, name: str) -> Any:
        """Return the class or function that a pickle names; raise ModelNotServableError."""
        if module in TRAINING_MODULES:
            raise ModelNotServableError(
                f"The model needs {name}, which the service does not find in train.py: define it "
                "in a module of its own, and name that in bentofile.yaml, too"
            )
        self.modules.add(module)
        return super().find_class(module, name)
