"""The report command: plot how well a model predicts, and write its model card."""

from base64 import b64encode
from io import BytesIO
from pathlib import Path
from typing import Any

import bentoml
import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import AutoLocator
from sklearn.base import RegressorMixin
from sklearn.inspection import permutation_importance
from sklearn.metrics import PredictionErrorDisplay, mean_squared_error
from sklearn.model_selection import LearningCurveDisplay

from serving.features import feature_schemas
from serving.model import ModelReference, TrainingMetadata, training_metadata
from training.data import Split, load_data_of_model
from training.fitting.evaluation import (
    FOLDS,
    evaluate_baseline,
    limit_threads,
    predict,
    to_fitted_type,
)
from training.formatting import format_number
from training.plotting import BLUE, STYLE, VERMILION
from training.project import ROOT, Project
from training.stored_model import load_estimator
from training.templating import make_environment

# Paths from ROOT: data/model_card.md.jinja extends training/templates/model_card.md.jinja.
PAGE_TEMPLATE = "training/templates/report.html.jinja"
CARD_TEMPLATE = "data/model_card.md.jinja"
PART_NAMES, PART_COLOURS = ("Train", "Test"), (BLUE, VERMILION)
REPEATS = 30  # shuffles of each feature


def measure_importance(estimator: RegressorMixin, data: Split) -> np.ndarray:
    """Return the permutation importance of each feature: mean and deviation, (n_features, 2)."""
    importance = permutation_importance(
        estimator,
        to_fitted_type(estimator, data.X_test),
        data.y_test,
        scoring="neg_root_mean_squared_error",
        n_repeats=REPEATS,
        random_state=0,
    )
    return np.column_stack([importance.importances_mean, importance.importances_std])


def parts(data: Split) -> list[tuple[pd.DataFrame, pd.Series]]:
    """Return the features and the targets of the training part and of the test part."""
    return [(data.X_train, data.y_train), (data.X_test, data.y_test)]


def plot_predictions(estimator: RegressorMixin, data: Split, kind: str, unit: str) -> Figure:
    """Plot the training part and the test part with `PredictionErrorDisplay`.

    `kind` is "actual_vs_predicted" or "residual_vs_predicted".
    """
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    for axes, name, (X, y), colour in zip(
        panels, PART_NAMES, parts(data), PART_COLOURS, strict=True
    ):
        points = {"color": colour, "alpha": 0.6, "s": 22, "linewidths": 0}
        PredictionErrorDisplay.from_predictions(
            y,
            predict(estimator, X),
            kind=kind,
            subsample=None,
            ax=axes,
            scatter_kwargs=points,
        )
        axes.set(
            title=f"{name}, {len(y)} rows",
            xlabel=f"{axes.get_xlabel()}, {unit}",
            ylabel=f"{axes.get_ylabel()},\n{unit}",
            adjustable="box",  # shared axes do not allow the display's own choice, "datalim"
        )
        # scikit-learn places ticks at fractions of the range, not at round numbers.
        axes.xaxis.set_major_locator(AutoLocator())
        axes.yaxis.set_major_locator(AutoLocator())
        axes.label_outer()
    return figure


def plot_importance(importance: np.ndarray, names: list[str], unit: str) -> Figure:
    """Plot the permutation importance (n_features, 2) of the features, the largest on top."""
    figure = Figure(figsize=(9, 0.8 + 0.32 * len(names)), layout="constrained")
    axes = figure.subplots()
    order = importance[:, 0].argsort()
    mean, std = importance[order].T
    axes.barh(np.array(names)[order], mean, xerr=std, color=VERMILION, error_kw={"capsize": 3})
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(f"Rise of the root mean squared error, {unit}")
    return figure


def plot_learning_curve(estimator: RegressorMixin, data: Split, unit: str) -> Figure:
    """Plot the error by boosting stage or, for an estimator without stages, by sample size."""
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    if hasattr(estimator, "staged_predict"):
        for name, (X, y) in zip(PART_NAMES, parts(data), strict=True):
            stages = estimator.staged_predict(to_fitted_type(estimator, X))
            errors = [mean_squared_error(y, y_pred) for y_pred in stages]
            axes.plot(range(1, len(errors) + 1), errors, label=name)
        axes.set_xlabel("Boosting stages")
        axes.legend()
    else:
        LearningCurveDisplay.from_estimator(
            estimator,
            to_fitted_type(estimator, data.X),
            data.y,
            cv=FOLDS,
            scoring="neg_mean_squared_error",
            negate_score=True,
            ax=axes,
        )
        axes.set_xlabel("Rows to fit")
    axes.set_ylabel(f"Mean squared error,\n({unit})²")
    axes.set_ylim(bottom=0)
    return figure


def to_data_uri(figure: Figure) -> str:
    """Return a figure as the data URI of an SVG image."""
    svg = BytesIO()
    figure.savefig(svg, format="svg")
    return "data:image/svg+xml;base64," + b64encode(svg.getvalue()).decode()


@mpl.rc_context(STYLE)
def make_plots(
    estimator: RegressorMixin, data: Split, importance: np.ndarray, training: TrainingMetadata
) -> dict[str, str]:
    """Return the plots of the report by name, as data URIs."""
    unit = training.target["unit"]
    figures = {
        "actual": plot_predictions(estimator, data, "actual_vs_predicted", unit),
        "residuals": plot_predictions(estimator, data, "residual_vs_predicted", unit),
        "importance": plot_importance(importance, training.feature_names, unit),
        "learning": plot_learning_curve(estimator, data, unit),
    }
    return {name: to_data_uri(figure) for name, figure in figures.items()}


def template_context(project: Project, model: bentoml.Model, data_path: Path) -> dict[str, Any]:
    """Return the variables of the templates.

    Raise InvalidDataError if the file is not the one that the model was trained on.
    """
    training = training_metadata(model)
    data = load_data_of_model(data_path, project.labelled_type, training)
    estimator = load_estimator(model)
    with limit_threads(data):
        importance = measure_importance(estimator, data)
        plots = make_plots(estimator, data, importance, training)
    return {
        "tag": model.tag,
        "training": training,
        "estimator": estimator,
        "data": data,
        "baseline": evaluate_baseline(data),
        "features": feature_schemas(project.record_type),
        "importance": dict(zip(training.feature_names, importance.tolist(), strict=True)),
        "repeats": REPEATS,
        "has_stages": hasattr(estimator, "staged_predict"),
        "plots": plots,
    }


def format_range(training: TrainingMetadata, name: str) -> str:
    """Return the training range of a number, the training values of a category, or "text"."""
    if name in training.training_range:
        return " to ".join(format_number(bound, 6) for bound in training.training_range[name])
    if name in training.training_values:
        return ", ".join(map(str, training.training_values[name]))
    return "text"


def write_report(project: Project, name: str, data_path: Path, folder: Path, card: Path) -> None:
    """Write the report, folder/index.html, and the model card of the newest model of a name.

    Raise InvalidDataError, BentoMLException or OSError.
    """
    model = ModelReference(f"{name}:latest", project.record_type).resolve()
    context = template_context(project, model, data_path)
    environment = make_environment(ROOT, {"number": format_number, "training_range": format_range})
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / "index.html"
    for template, file in ((PAGE_TEMPLATE, page), (CARD_TEMPLATE, card)):
        text = environment.get_template(template).render(context)
        file.write_text(text, encoding="utf-8")
    print(f"Wrote {page} and {card}")
