"""The report command: draw how well a model predicts, and write its model card."""

from base64 import b64encode
from io import BytesIO
from pathlib import Path
from typing import Any

import bentoml
import matplotlib as mpl
import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from matplotlib.figure import Figure
from matplotlib.ticker import AutoLocator
from sklearn.base import RegressorMixin
from sklearn.dummy import DummyRegressor
from sklearn.inspection import permutation_importance
from sklearn.metrics import PredictionErrorDisplay, mean_squared_error
from sklearn.model_selection import LearningCurveDisplay

from serving.features import feature_schemas
from serving.model import ModelReference, TrainingMetadata, training_metadata
from training.data import Split, read_training_csv
from training.fitting.evaluation import FOLDS, evaluate, limit_threads, predict, to_fitted_type
from training.formatting import format_number
from training.plotting import BLUE, STYLE, VERMILION
from training.project import ROOT, Project

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


def draw_predictions(estimator: RegressorMixin, data: Split, kind: str, unit: str) -> Figure:
    """Draw one kind of `PredictionErrorDisplay` for the training part and the test part."""
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    parts = zip(panels, ("Train", "Test"), data[:2], data[2:], (BLUE, VERMILION), strict=True)
    for axes, part, X, y, colour in parts:
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
            title=f"{part}, {len(y)} rows",
            xlabel=f"{axes.get_xlabel()}, {unit}",
            ylabel=f"{axes.get_ylabel()},\n{unit}",
            adjustable="box",  # panels with shared axes cannot change their limits
        )
        # scikit-learn places ticks at fractions of the range.
        axes.xaxis.set_major_locator(AutoLocator())
        axes.yaxis.set_major_locator(AutoLocator())
        axes.label_outer()
    return figure


def draw_importance(importance: np.ndarray, names: list[str], unit: str) -> Figure:
    """Draw the permutation importance of the features, the largest on top."""
    figure = Figure(figsize=(9, 0.8 + 0.32 * len(names)), layout="constrained")
    axes = figure.subplots()
    order = importance[:, 0].argsort()
    mean, std = importance[order].T
    axes.barh(np.array(names)[order], mean, xerr=std, color=VERMILION, error_kw={"capsize": 3})
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(f"Rise of the root mean squared error, {unit}")
    return figure


def draw_learning_curve(estimator: RegressorMixin, data: Split, unit: str) -> Figure:
    """Draw the error by boosting stage or, for an estimator without stages, by sample size."""
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    if hasattr(estimator, "staged_predict"):
        for part, X, y in zip(("Train", "Test"), data[:2], data[2:], strict=True):
            stages = estimator.staged_predict(to_fitted_type(estimator, X))
            errors = [mean_squared_error(y, y_pred) for y_pred in stages]
            axes.plot(range(1, len(errors) + 1), errors, label=part)
        axes.set_xlabel("Boosting stages")
        axes.legend()
    else:
        X, y = to_fitted_type(estimator, pd.concat(data[:2])), pd.concat(data[2:])
        LearningCurveDisplay.from_estimator(
            estimator, X, y, cv=FOLDS, scoring="neg_mean_squared_error", negate_score=True, ax=axes
        )
        axes.set_xlabel("Rows to fit")
    axes.set_ylabel(f"Mean squared error,\n({unit})²")
    axes.set_ylim(bottom=0)
    return figure


def embed(figure: Figure) -> str:
    """Return a figure as the data URI of an SVG."""
    svg = BytesIO()
    figure.savefig(svg, format="svg")
    return "data:image/svg+xml;base64," + b64encode(svg.getvalue()).decode()


@mpl.rc_context(STYLE)
def draw(
    estimator: RegressorMixin, data: Split, importance: np.ndarray, training: TrainingMetadata
) -> dict[str, str]:
    """Return the pictures of the report by their names, as data URIs."""
    unit = training.target["unit"]
    figures = {
        "actual": draw_predictions(estimator, data, "actual_vs_predicted", unit),
        "residuals": draw_predictions(estimator, data, "residual_vs_predicted", unit),
        "importance": draw_importance(importance, training.feature_names, unit),
        "learning": draw_learning_curve(estimator, data, unit),
    }
    return {name: embed(figure) for name, figure in figures.items()}


def template_context(project: Project, model: bentoml.Model, data_path: Path) -> dict[str, Any]:
    """Return the variables of the templates; raise InvalidDataError on other data."""
    training = training_metadata(model)
    data = read_training_csv(data_path, project.labelled_type, training)
    estimator = bentoml.sklearn.load_model(model)
    with limit_threads(data):
        importance = measure_importance(estimator, data)
        pictures = draw(estimator, data, importance, training)
    return {
        "tag": model.tag,
        "training": training,
        "estimator": estimator,
        "data": data,
        "dummy": evaluate(DummyRegressor().fit(data.X_train, data.y_train), data),
        "features": feature_schemas(project.record_type),
        "importance": dict(zip(training.feature_names, importance.tolist(), strict=True)),
        "repeats": REPEATS,
        "staged": hasattr(estimator, "staged_predict"),
        "pictures": pictures,
    }


def format_range(training: TrainingMetadata, name: str) -> str:
    """Return the training range of a number, or the training values of another feature."""
    if name in training.training_range:
        return " to ".join(format_number(bound, 6) for bound in training.training_range[name])
    return ", ".join(map(str, training.training_values.get(name, ["text"])))


def render(template: str, context: dict[str, Any]) -> str:
    """Render a template of this bundle."""
    environment = Environment(
        loader=FileSystemLoader(ROOT),
        autoescape=select_autoescape(["html.jinja"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"number": format_number, "training_range": format_range}
    return environment.get_template(template).render(context)


def write_report(project: Project, name: str, data_path: Path, folder: Path, card: Path) -> None:
    """Write the report and the model card of the newest model of a name.

    Raise InvalidDataError, BentoMLException or OSError.
    """
    model = ModelReference(f"{name}:latest", project.record_type).resolve()
    context = template_context(project, model, data_path)
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / "index.html"
    template = "training/templates/report.html.jinja"
    page.write_text(render(template, context), encoding="utf-8")
    card.write_text(render("data/model_card.md.jinja", context), encoding="utf-8")
    print(f"Wrote {page} and {card}")
