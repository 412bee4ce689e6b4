"""The train command: load the data, fit, check, evaluate and save."""

from pathlib import Path

import bentoml
import pandas as pd
from bentoml.exceptions import NotFound
from sklearn.base import RegressorMixin
from sklearn.dummy import DummyRegressor

from serving.features import check_record_type
from serving.model import OutdatedModelError, check_outdated
from training.data import Split, read_csv
from training.errors import ModelNotServableError
from training.fitting.evaluation import evaluate, limit_threads
from training.fitting.probes import CATEGORY_HINT, GAP_HINT, describe
from training.fitting.store import save
from training.project import Project


def is_trained(name: str) -> bool:
    """Tell whether the model store has a model of this name that this bundle can serve.

    Print a line if there is one that an earlier version of the bundle has saved.
    """
    try:
        check_outdated(bentoml.models.get(name))
    except NotFound:
        return False
    except OutdatedModelError as error:
        print(str(error).replace("run `make train`", "it is trained anew"))
        return False
    return True


def fit(project: Project, data: Split) -> RegressorMixin:
    """Return the fitted estimator; raise ModelNotServableError if gaps may be why it can't fit."""
    try:
        return project.fit(data.X_train, data.y_train)
    except ValueError as error:
        with_gaps = data.X_train.columns[data.X_train.isna().any()]
        if with_gaps.empty:
            raise
        raise ModelNotServableError(
            f"The estimator can't be fitted; the data have gaps in {', '.join(with_gaps)}. "
            f"{GAP_HINT}\n{describe(error)}"
        ) from error


def score(estimator: RegressorMixin, data: Split) -> dict[str, float]:
    """Return the scores; raise ModelNotServableError if rows can't be predicted that are new."""
    try:
        return evaluate(estimator, data)
    except ValueError as error:
        raise ModelNotServableError(
            f"The estimator can't predict rows of the data that it was not fitted to. "
            f"{CATEGORY_HINT}\n{describe(error)}"
        ) from error


def train(project: Project, data_path: Path, name: str) -> None:
    """Train a model and save it under a name.

    Raise TrainingError, BentoMLException or OSError if the data are invalid, or if the service
    could not serve the model.
    """
    check_record_type(project.labelled_type, project.target)
    data, data_sha256 = read_csv(data_path, project.labelled_type)
    with limit_threads(data):
        model = fit_and_save(project, data, data_sha256, name)
    print(f"Saved {model.tag}")


def fit_and_save(project: Project, data: Split, data_sha256: str, name: str) -> bentoml.Model:
    """Fit and evaluate an estimator, print its scores, and save it with them."""
    target = project.target
    estimator = fit(project, data)
    metrics = score(estimator, data)
    dummy = evaluate(DummyRegressor().fit(data.X_train, data.y_train), data)
    table = pd.DataFrame({"model": metrics, "always the mean": dummy})
    print(table.to_string(float_format="{:.4f}".format))
    if metrics["cv_rmse"] >= dummy["cv_rmse"]:
        print(
            "Warning: the model is no better than the mean of the target: its error in the "
            f"cross-validation (cv_rmse) is {metrics['cv_rmse']:.4g}, that of the mean "
            f"{dummy['cv_rmse']:.4g}. Try another estimator, other features or more rows."
        )
    schema = project.labelled_type.model_json_schema()["properties"][target]
    described = {"name": target, "description": schema["description"], "unit": schema["unit"]}
    return save(name, estimator, data, project.record_type, metrics, described, data_sha256)
