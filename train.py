"""Train the regressor: load the data, fit, evaluate, save to the BentoML model store."""

import argparse
import csv
import hashlib
import io
import pickle
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import NamedTuple

import bentoml
import numpy as np
import pandas as pd
from bentoml.exceptions import NotFound
from pydantic import ValidationError
from sklearn.base import RegressorMixin
from sklearn.dummy import DummyRegressor
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.metrics import (
    mean_absolute_error,
    mean_squared_error,
    r2_score,
    root_mean_squared_error,
)
from sklearn.model_selection import KFold, cross_val_score
from sklearn.utils import shuffle
from tqdm import tqdm

from house import FEATURES, NAME, TARGET, LabelledHouse
from serving.model import MODEL_FILE, Training
from serving.records import faults

DATA = Path(__file__).parent / "data" / "boston_housing.csv"
MIN_ROWS = 20  # two for the test part, four for a fold
FOLDS = KFold(5, shuffle=True, random_state=0)
SCORES = {
    "mse": mean_squared_error,
    "rmse": root_mean_squared_error,
    "mae": mean_absolute_error,
    "r2": r2_score,
}


class InvalidData(Exception):
    """The training data cannot be used; the message says where and why."""


class Split(NamedTuple):
    """Features (n_samples, n_features) and targets (n_samples,), to fit and to evaluate on."""

    X_train: np.ndarray
    X_test: np.ndarray
    y_train: np.ndarray
    y_test: np.ndarray


def load(text: str) -> pd.DataFrame:
    """Return the rows of a CSV text, each a valid `LabelledHouse`; raise `InvalidData` if not."""
    reader = csv.DictReader(io.StringIO(text, newline=""), restval="")
    wanted, columns = [*FEATURES, TARGET], list(reader.fieldnames or [])
    if sorted(columns) != sorted(wanted):
        raise InvalidData(f"line 1: the columns must be {wanted}, not {columns}")
    houses, bad = [], []
    for cells in reader:
        surplus = cells.pop(None, [])
        try:
            if surplus:
                bad.append(f"line {reader.line_num}: there are cells beyond the columns: {surplus}")
            houses.append(vars(LabelledHouse.model_validate_strings(cells)))
        except ValidationError as error:
            bad += [f"line {reader.line_num}: {reason}" for _, reason in faults(error)]
    if bad:
        raise InvalidData("\n".join(bad))
    if len(houses) < MIN_ROWS:
        raise InvalidData(f"{len(houses)} rows are too few: give {MIN_ROWS} or more")
    return pd.DataFrame(houses)


def split(frame: pd.DataFrame) -> Split:
    """Shuffle as the tutorial does, and take the first 90 % to fit."""
    X, y = frame[list(FEATURES)].to_numpy(), frame[TARGET].to_numpy()
    X, y = shuffle(X, y, random_state=13)
    n_train = int(len(X) * 0.9)
    return Split(X[:n_train], X[n_train:], y[:n_train], y[n_train:])


def fit(X_train: np.ndarray, y_train: np.ndarray) -> GradientBoostingRegressor:
    """Fit the tutorial's estimator, with the seed that it left open and a progress bar by tree."""
    model = GradientBoostingRegressor(
        n_estimators=500,
        max_depth=4,
        learning_rate=0.01,
        min_samples_split=2,
        loss="squared_error",
        random_state=0,
    )
    with tqdm(total=model.n_estimators, desc="Fitting", unit="tree") as bar:
        # `monitor` would end the fitting by returning something true.
        return model.fit(X_train, y_train, monitor=lambda *_: bar.update() and False)


def evaluate(model: RegressorMixin, data: Split) -> dict[str, float]:
    """Return the scores of a fitted model and, in five folds over all the data, of its like."""
    X, y = np.concatenate(data[:2]), np.concatenate(data[2:])
    cv_rmse = -cross_val_score(model, X, y, cv=FOLDS, scoring="neg_root_mean_squared_error")
    predicted = {
        "train": (data.y_train, model.predict(data.X_train)),
        "test": (data.y_test, model.predict(data.X_test)),
    }
    metrics = {
        f"{part}_{name}": score(*predicted[part])
        for name, score in SCORES.items()
        for part in predicted
    }
    metrics |= {"cv_rmse": cv_rmse.mean(), "cv_rmse_std": cv_rmse.std()}
    return {name: float(value) for name, value in metrics.items()}


def save(
    name: str, model: RegressorMixin, data: Split, metrics: dict[str, float], source: bytes
) -> bentoml.Model:
    """Save a fitted model, with all that is to be known of its training, to the model store."""
    pickled = pickle.dumps(model)
    target = LabelledHouse.model_json_schema()["properties"][TARGET]
    ranges = zip(data.X_train.min(axis=0), data.X_train.max(axis=0), strict=True)
    packages = ("bentoml", "scikit-learn", "numpy", "pandas")
    training = Training(
        trained_at=datetime.now(UTC),
        target={"name": TARGET, "description": target["description"], "unit": target["unit"]},
        feature_names=list(FEATURES),
        training_range=dict(zip(FEATURES, ranges, strict=True)),
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


def is_trained(name: str) -> bool:
    """Tell whether the model store has a model of this name."""
    try:
        return bool(bentoml.models.get(name))
    except NotFound:
        return False


def model_name(text: str) -> str:
    """Return a name that the model store accepts; raise ArgumentTypeError."""
    try:
        return bentoml.Tag(text).name
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def main() -> None:
    """Train from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA, help="CSV file (default: %(default)s)")
    parser.add_argument("--name", type=model_name, default=NAME, help="default: %(default)s")
    parser.add_argument("--if-missing", action="store_true", help="only if there is no model yet")
    options = parser.parse_args()
    if options.if_missing and is_trained(options.name):
        return
    try:
        source = options.data.read_bytes()
        data = split(load(source.decode("utf-8-sig")))
    except (InvalidData, OSError, UnicodeDecodeError, csv.Error) as error:
        raise SystemExit(f"{options.data}: nothing is saved.\n{error}") from None
    model = fit(data.X_train, data.y_train)
    metrics = evaluate(model, data)
    dummy = evaluate(DummyRegressor().fit(data.X_train, data.y_train), data)
    table = pd.DataFrame({"model": metrics, "always the mean": dummy})
    print(table.to_string(float_format="{:.4f}".format))
    print(f"Saved {save(options.name, model, data, metrics, source).tag}")


if __name__ == "__main__":
    main()
