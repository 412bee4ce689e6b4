"""Report on a trained model: draw how well it predicts, and write its model card."""

import hashlib
from base64 import b64encode
from io import BytesIO
from pathlib import Path
from typing import Any

import bentoml
import matplotlib as mpl
import numpy as np
import pandas as pd
from bentoml.exceptions import BentoMLException
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from matplotlib.figure import Figure
from matplotlib.ticker import AutoLocator
from sklearn.base import RegressorMixin
from sklearn.dummy import DummyRegressor
from sklearn.inspection import permutation_importance
from sklearn.metrics import PredictionErrorDisplay, mean_squared_error
from sklearn.model_selection import LearningCurveDisplay

from house import NAME, House, LabelledHouse
from serving.model import RecordModel, Training
from train import DATA
from training.cli import arguments
from training.data import InvalidData, Split, load, split
from training.model import FOLDS, as_fitted, evaluate

ROOT = Path(__file__).parent.parent
REPEATS = 30  # shuffles of each feature
# Blue and vermilion of Okabe and Ito, which the colour-blind can tell apart, in print too.
TRAIN, TEST = "#0072B2", "#D55E00"
STYLE = {
    "axes.prop_cycle": mpl.cycler(color=[TRAIN, TEST]),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "font.size": 11,
    "legend.frameon": False,
}


def load_as_trained(path: Path, training: Training) -> Split:
    """Return the data that a model was trained on, split as then; raise `InvalidData` if not."""
    source = path.read_bytes()
    sha256 = hashlib.sha256(source).hexdigest()
    if sha256 != training.data_sha256:
        raise InvalidData(
            "The model was trained on other data: give that with --data, or run `make train`.\n"
            f"SHA-256 of this file: {sha256}\nof the training data: {training.data_sha256}"
        )
    return split(load(source.decode("utf-8-sig"), LabelledHouse))


def measure_importance(estimator: RegressorMixin, data: Split) -> np.ndarray:
    """Return what shuffling each feature adds to the error: mean and deviation (n_features, 2)."""
    importance = permutation_importance(
        estimator,
        as_fitted(estimator, data.X_test),
        data.y_test,
        scoring="neg_root_mean_squared_error",
        n_repeats=REPEATS,
        random_state=0,
    )
    return np.column_stack([importance.importances_mean, importance.importances_std])


def draw_predictions(estimator: RegressorMixin, data: Split, kind: str, unit: str) -> Figure:
    """Draw a kind of `PredictionErrorDisplay` for the training part, and for the test part."""
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    parts = zip(panels, ("Train", "Test"), data[:2], data[2:], (TRAIN, TEST), strict=True)
    for axes, part, X, y, colour in parts:
        points = {"color": colour, "alpha": 0.6, "s": 22, "linewidths": 0}
        PredictionErrorDisplay.from_estimator(
            estimator,
            as_fitted(estimator, X),
            y,
            kind=kind,
            subsample=None,
            ax=axes,
            scatter_kwargs=points,
        )
        axes.set(
            title=f"{part}, {len(y)} rows",
            xlabel=f"{axes.get_xlabel()}, {unit}",
            ylabel=f"{axes.get_ylabel()},\n{unit}",
            adjustable="box",  # panels that share both axes cannot change their limits
        )
        # scikit-learn puts the ticks at fractions of the range.
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
    axes.barh(np.array(names)[order], mean, xerr=std, color=TEST, error_kw={"capsize": 3})
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(f"Rise of the root mean squared error, {unit}")
    return figure


def draw_learning(estimator: RegressorMixin, data: Split, unit: str) -> Figure:
    """Draw the error by boosting stage or, of an estimator without stages, by sample size."""
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    if hasattr(estimator, "staged_predict"):
        for part, X, y in zip(("Train", "Test"), data[:2], data[2:], strict=True):
            stages = estimator.staged_predict(as_fitted(estimator, X))
            errors = [mean_squared_error(y, y_pred) for y_pred in stages]
            axes.plot(range(1, len(errors) + 1), errors, label=part)
        axes.set_xlabel("Boosting stages")
        axes.legend()
    else:
        X, y = as_fitted(estimator, pd.concat(data[:2])), pd.concat(data[2:])
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
    estimator: RegressorMixin, data: Split, importance: np.ndarray, training: Training
) -> dict[str, str]:
    """Return the pictures of the report by their names, as data URIs."""
    unit = training.target["unit"]
    figures = {
        "actual": draw_predictions(estimator, data, "actual_vs_predicted", unit),
        "residuals": draw_predictions(estimator, data, "residual_vs_predicted", unit),
        "importance": draw_importance(importance, training.feature_names, unit),
        "learning": draw_learning(estimator, data, unit),
    }
    return {name: embed(figure) for name, figure in figures.items()}


def describe(model: bentoml.Model, path: Path) -> dict[str, Any]:
    """Return what the templates tell of a stored model; raise `InvalidData` on other data."""
    training = Training.model_validate(model.info.metadata)
    data = load_as_trained(path, training)
    estimator = bentoml.sklearn.load_model(model)
    importance = measure_importance(estimator, data)
    return {
        "tag": model.tag,
        "training": training,
        "estimator": estimator,
        "data": data,
        "dummy": evaluate(DummyRegressor().fit(data.X_train, data.y_train), data),
        "features": House.model_json_schema()["properties"],
        "importance": dict(zip(training.feature_names, importance.tolist(), strict=True)),
        "repeats": REPEATS,
        "staged": hasattr(estimator, "staged_predict"),
        "pictures": draw(estimator, data, importance, training),
    }


def significant(value: float, digits: int = 3) -> str:
    """Return a number in significant digits, without an exponent."""
    return np.format_float_positional(value, digits, unique=False, fractional=False, trim="-")


def seen(training: Training, name: str) -> str:
    """Return the training range of a number in words, or the training values of another feature."""
    if name in training.training_range:
        return " to ".join(significant(bound, 6) for bound in training.training_range[name])
    return ", ".join(map(str, training.training_values[name]))


def render(template: str, facts: dict[str, Any]) -> str:
    """Return a template of this repository, filled in."""
    environment = Environment(
        loader=FileSystemLoader(ROOT),
        autoescape=select_autoescape(["html.jinja"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"significant": significant, "seen": seen}
    return environment.get_template(template).render(facts)


def main() -> None:
    """Report from the command line."""
    parser = arguments(__doc__, NAME, DATA)
    parser.add_argument(
        "--output", type=Path, default=ROOT / "report", help="folder (default: %(default)s)"
    )
    parser.add_argument(
        "--card", type=Path, default=ROOT / "docs/MODEL_CARD.md", help="file (default: %(default)s)"
    )
    options = parser.parse_args()
    try:
        model = RecordModel(f"{options.name}:latest", House).resolve()
        facts = describe(model, options.data)
    except (BentoMLException, InvalidData, OSError) as error:
        raise SystemExit(f"Nothing is written.\n{error}") from None
    options.output.mkdir(parents=True, exist_ok=True)
    page = options.output / "index.html"
    page.write_text(render("training/templates/report.html.jinja", facts), encoding="utf-8")
    options.card.write_text(render("data/model_card.md.jinja", facts), encoding="utf-8")
    print(f"Wrote {page} and {options.card}")


if __name__ == "__main__":
    main()
