"""The train command: load the data, fit, check, evaluate and save."""

from pathlib import Path

import bentoml
import pandas as pd
from bentoml.exceptions import NotFound
from sklearn.base import RegressorMixin

from serving.features import check_record_type
from serving.model import OutdatedModelError, check_outdated
from training.data import Split, load_training_data
from training.errors import ModelNotServableError
from training.fitting.evaluation import evaluate, evaluate_baseline, limit_threads
from training.fitting.probes import MISSING_HINT, describe
from training.fitting.store import save
from training.project import Project


def needs_training(name: str) -> bool:
    """Return whether there is no model of this name, or the newest one is outdated.

    It is outdated if an earlier version of this bundle saved it; then print a line about it.
    """
    try:
        model = bentoml.models.get(name)
    except NotFound:
        return True
    try:
        check_outdated(model)
    except OutdatedModelError:
        print(f"Model {model.tag} was saved by an earlier version of this bundle: training again")
        return True
    return False


def fit(project: Project, data: Split) -> RegressorMixin:
    """Return the fitted estimator.

    Raise ModelNotServableError if the fitting fails and the data have missing values.
    """
    try:
        return project.fit(data.X_train, data.y_train)
    except ValueError as error:
        incomplete = data.X_train.columns[data.X_train.isna().any()]
        if incomplete.empty:
            raise
        raise ModelNotServableError(
            f"The estimator can't be fitted; values are missing in {', '.join(incomplete)}. "
            f"{MISSING_HINT}\n{describe(error)}"
        ) from error


def evaluate_fitted(estimator: RegressorMixin, data: Split) -> dict[str, float]:
    """Return the scores; raise ModelNotServableError if the estimator fails on unseen rows."""
    try:
        return evaluate(estimator, data)
    except ValueError as error:
        raise ModelNotServableError(
            "The estimator can't predict rows of the data that it was not fitted on. If a category "
            "occurs only in those rows, its encoder needs a setting such as "
            f'handle_unknown="ignore".\n{describe(error)}'
        ) from error


def train(project: Project, data_path: Path, name: str) -> None:
    """Train a model and save it under a name.

    Raise TrainingError, BentoMLException or OSError if the data are invalid, or if the service
    could not serve the model.
    """
    check_record_type(project.labelled_type, project.target)
    data, data_sha256 = load_training_data(data_path, project.labelled_type)
    with limit_threads(data):
        model = fit_and_save(project, data, data_sha256, name)
    print(f"Saved {model.tag}")


def fit_and_save(project: Project, data: Split, data_sha256: str, name: str) -> bentoml.Model:
    """Fit and evaluate an estimator, print its scores, and save it with them."""
    estimator = fit(project, data)
    metrics = evaluate_fitted(estimator, data)
    print_metrics(metrics, evaluate_baseline(data))
    schema = project.labelled_type.model_json_schema()["properties"][project.target]
    target = {
        "name": project.target,
        "description": schema["description"],
        "unit": schema["unit"],
    }
    return save(name, estimator, data, project.record_type, metrics, target, data_sha256)


def print_metrics(metrics: dict[str, float], baseline: dict[str, float]) -> None:
    """Print the scores of a model and of the baseline, and a warning if it is no better."""
    table = pd.DataFrame({"model": metrics, "baseline": baseline})
    print(table.to_string(float_format="{:.4f}".format))
    if metrics["cv_rmse"] >= baseline["cv_rmse"]:
        print(
            "Warning: the model is no better than the mean of the target: its cross-validated RMSE "
            f"(cv_rmse) is {metrics['cv_rmse']:.4g}, and {baseline['cv_rmse']:.4g} if the mean is "
            "always predicted. Try another estimator, other features or more rows."
        )
