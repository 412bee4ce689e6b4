"""Save a fitted regressor and the metadata of its training to the BentoML model store."""

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
from training.export.reference import SklearnReference
from training.fitting.evaluation import predict
from training.fitting.inference import choose_inference, golden_predictions
from training.fitting.probes import check_probes

# Quantiles of the predictions for the training data. They become the buckets of the histogram of
# predictions in /metrics.
QUANTILES = (0, 0.01, 0.05, *(tenth / 10 for tenth in range(1, 10)), 0.95, 0.99, 1)
DECILES = [tenth / 10 for tenth in range(11)]  # of each number
PACKAGES = ("bentoml", "scikit-learn", "numpy", "pandas", "onnxruntime", "skl2onnx")
TRAIN_MODULES = ("__main__", "train")  # the names of train.py, which is not in a Bento


def save(
    name: str,
    estimator: RegressorMixin,
    data: Split,
    record_type: type[BaseModel],
    metrics: dict[str, float],
    target: dict[str, str],
    data_sha256: str,
) -> bentoml.Model:
    """Save a fitted estimator with its export, its golden predictions and its metadata.

    `target` has the keys name, description and unit. Raise ModelNotServableError if the service
    could not load the estimator, or if it fails on a record that it must predict.
    """
    X_train = data.X_train
    pickled, modules = to_pickle(estimator)
    files = {PICKLE_FILE: pickled}
    inference, onnx_content = choose_inference(estimator, modules, data, record_type)
    if onnx_content:
        files[ONNX_FILE] = onnx_content
    if texts := training_texts(X_train, record_type):
        files[TEXTS_FILE] = json.dumps(texts).encode()
    reference = SklearnReference(estimator, X_train)
    dtypes = dict(reference.input_format.dtypes)
    served_model = load_model(onnx_content or pickled, inference, dtypes)
    probe_rows = check_probes(served_model, reference, record_type, X_train)
    golden = golden_predictions(estimator, X_train, record_type, probe_rows)
    files[GOLDEN_FILE] = json.dumps(golden).encode()
    training = TrainingMetadata(
        trained_at=datetime.now(UTC),
        target=target,
        target_std=float(np.std(data.y)),
        feature_names=list(X_train),
        **training_statistics(X_train, record_type),
        column_dtypes=dtypes,
        prediction_distribution=cumulative_distribution(predict(estimator, X_train)),
        metrics=metrics,
        inference=inference,
        data_sha256=data_sha256,
        file_sha256={name: sha256(content).hexdigest() for name, content in files.items()},
        versions={"python": python_version(), **{name: version(name) for name in PACKAGES}},
    )
    return store_files(name, files, training)


def store_files(name: str, files: dict[str, bytes], training: TrainingMetadata) -> bentoml.Model:
    """Write the files of a model to the model store."""
    # Not with `bentoml.sklearn.save_model`: it takes the metadata before it writes the files, and
    # the metadata contain their hashes.
    with bentoml.models.create(
        name,
        module="bentoml.sklearn",
        labels={"task": "regression", "framework": "scikit-learn"},
        metadata=training.model_dump(mode="json", exclude_none=True),  # BentoML rejects None
    ) as stored:
        for file_name, content in files.items():
            Path(stored.path_of(file_name)).write_bytes(content)
    return bentoml.models.get(stored.tag)


def training_statistics(X: pd.DataFrame, record_type: type[BaseModel]) -> dict[str, Any]:
    """Return the fields of TrainingMetadata that describe the features of the training part.

    They are the range and the deciles of each number, the values of each category and boolean with
    their shares, and the share of missing values of each feature that may be null.
    """
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
        "training_gaps": {  # the name, which `GET /model` shows, means missing values
            name: float(X[name].isna().mean()) for name in X if is_nullable(schemas[name])
        },
    }


def deciles(column: pd.Series) -> list[float]:
    """Return the eleven values that divide a column, without missing values, into tenths."""
    return np.quantile(column.dropna().to_numpy(float), DECILES).tolist()


def training_texts(X: pd.DataFrame, record_type: type[BaseModel]) -> dict[str, list[str]]:
    """Return the values of each text. They have a file: there may be too many for the metadata."""
    schemas = feature_schemas(record_type)
    texts = [name for name in X if kind_of(schemas[name]) == "text"]
    return {name: distinct(X[name], schemas[name]) for name in texts}


def distinct(column: pd.Series, schema: Schema) -> list[Any]:
    """Return the sorted distinct values of a column, without missing values."""
    return sorted({value for value in to_values(column, schema) if value is not None})


def cumulative_distribution(y_pred: np.ndarray) -> dict[float, float]:
    """Return the predictions at the QUANTILES, each with the share that is at most as large."""
    # The values become the names of histogram buckets: four digits are enough.
    bounds = sorted({float(f"{value:.4g}") for value in np.quantile(y_pred, QUANTILES)})
    return {bound: float(np.mean(y_pred <= bound)) for bound in bounds}


def to_pickle(estimator: RegressorMixin) -> tuple[bytes, set[str]]:
    """Return the pickle of an estimator, and the modules that the pickle names.

    Raise ModelNotServableError if the service could not unpickle it.
    """
    try:
        pickled = pickle.dumps(estimator)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        hint = "it may contain only functions with a name, in a module next to train.py"
        raise ModelNotServableError(f"The model can't be pickled; {hint}. {error}") from error
    unpickler = CheckedUnpickler(io.BytesIO(pickled))
    unpickler.load()
    return pickled, unpickler.modules


class CheckedUnpickler(pickle.Unpickler):
    """Unpickles, and rejects what train.py defines: the service does not have that module."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.modules: set[str] = set()  # those that the pickle names

    def find_class(self, module: str, name: str) -> Any:
        """Return the class or function that the pickle names; raise ModelNotServableError."""
        if module in TRAIN_MODULES:
            raise ModelNotServableError(
                f"The model needs {name} of train.py, which the service does not have: define it "
                "in another module, and add that module to bentofile.yaml"
            )
        self.modules.add(module)
        return super().find_class(module, name)
