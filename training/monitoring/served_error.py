"""The error of served models, beside that of their training."""

from pathlib import Path
from typing import Any, NamedTuple

import bentoml
import numpy as np
import pandas as pd
from bentoml.exceptions import NotFound
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error
from sklearn.model_selection import cross_val_predict

from serving.features import feature_schemas
from serving.model import training_metadata
from serving.regressor import GOLDEN_TOLERANCE, to_predictions
from training.data import read_training_csv
from training.fitting.evaluation import FOLDS, to_fitted_type
from training.monitoring.bootstrap import ratio_intervals, resample
from training.monitoring.join import Joined
from training.monitoring.segments import Segment, feature_segments, periods
from training.project import Project

WORSE = 1.1  # times the mean absolute error of training; less is seldom worth a retraining
# Of 60 logs drawn from the errors of the houses, 98 % of those with 50 outcomes and twice the error
# were found to be worse; of those without a change none with 300 outcomes, 5 % with 5,000.
MIN_OUTCOMES = 50
# A segment with fewer rows in the training has no error to expect. In a few more there may be no
# large error by chance: it counts as if as many rows of average error were added, if that is more.
# What the training lacks altogether is expected to have the average error.
PRIOR_ROWS = 30
SCORES = ["RMSE", "MAE", "bias", "R2"]
INTERVAL = ["low", "high"]


class Errors(NamedTuple):
    """Features, targets (n_samples,) and predictions (n_samples,) of some records."""

    X: pd.DataFrame
    actual: np.ndarray
    predicted: np.ndarray

    def scores(self, mask: np.ndarray | slice = slice(None)) -> list[float]:
        """Return the SCORES of the rows of a mask."""
        actual, predicted = self.actual[mask], self.predicted[mask]
        if len(actual) < 2:  # R2 needs two
            return [np.nan] * len(SCORES)
        return [
            root_mean_squared_error(actual, predicted),
            mean_absolute_error(actual, predicted),
            float(np.mean(predicted - actual)),
            r2_score(actual, predicted),
        ]

    def sizes(self, target_std: float) -> np.ndarray:
        """Return the size of each error. None is 0, so that any two have a ratio."""
        return np.hypot(self.predicted - self.actual, GOLDEN_TOLERANCE * target_std)


def served_errors(joined: Joined) -> Errors:
    """Return the errors of the predictions that have an outcome."""
    known = joined.with_outcome()
    predicted = known.predictions.common["prediction"]
    return Errors(known.predictions.features, known.actual.to_numpy(), predicted.to_numpy())


def training_errors(project: Project, model: bentoml.Model, data_path: Path) -> Errors:
    """Return the errors on the training data, each row predicted by a fit without it.

    Raise InvalidDataError.
    """
    training = training_metadata(model)
    data = read_training_csv(data_path, project.labelled_type, training)
    X, y = pd.concat(data[:2]), pd.concat(data[2:])
    estimator = bentoml.sklearn.load_model(model)
    y_pred = cross_val_predict(estimator, to_fitted_type(estimator, X), y, cv=FOLDS)
    return Errors(X, y.to_numpy(), np.array(to_predictions(y_pred, len(X))))


def by_model(joined: Joined, tag: str, trained: Errors | None) -> pd.DataFrame:
    """Return the scores of each model in a log, each followed by those of its training.

    These are cross-validated for one model, otherwise those of the test part.
    """
    tags = joined.predictions.common["model_tag"]
    table = score_parts(joined, {name: tags == name for name in tags.unique()})
    parts = []
    for name in table.index:
        if name == tag and trained:
            scores = dict(zip(SCORES, trained.scores(), strict=True))
            row, label = {"outcomes": len(trained.actual)} | scores, "cross-validated"
        else:
            metrics = stored_metrics(name)
            row = {score: metrics.get(f"test_{score.lower()}") for score in SCORES}
            label = "test part"
        training = pd.DataFrame(row, [f"{name}, {label}"]).dropna(how="all")
        parts += [table.loc[[name]], training]
    return pd.concat([part for part in parts if len(part)])


def stored_metrics(tag: str) -> Any:
    """Return the metrics of a model's training, or nothing if the model store has it no longer."""
    try:
        return bentoml.models.get(tag).info.metadata.get("metrics", {})
    except NotFound:
        return {}


def by_period(joined: Joined) -> pd.DataFrame:
    """Return the scores of one model over time."""
    return score_parts(joined, dict(periods(joined.predictions.common["timestamp"])))


def score_parts(joined: Joined, masks: dict[str, pd.Series]) -> pd.DataFrame:
    """Return the number of predictions and outcomes, the scores and the interval of the RMSE."""
    errors = served_errors(joined)
    has_outcome = joined.actual.notna()
    parts = [mask[has_outcome].to_numpy() for mask in masks.values()]
    columns = {
        "predictions": [mask.sum() for mask in masks.values()],
        "outcomes": [part.sum() for part in parts],
    }
    scores = np.array([errors.scores(part) for part in parts]).T
    columns |= {SCORES[0]: scores[0]} | dict(zip(INTERVAL, intervals(errors, parts), strict=True))
    columns |= dict(zip(SCORES[1:], scores[1:], strict=True))
    return pd.DataFrame(columns, list(masks))


def intervals(errors: Errors, parts: list[np.ndarray]) -> np.ndarray:
    """Return the ends of the interval of each part's RMSE, or NaN if it has too few rows."""
    ends = np.full((2, len(parts)), np.nan)
    enough = [n for n, part in enumerate(parts) if part.sum() >= MIN_OUTCOMES]
    if enough:
        squares = (errors.predicted - errors.actual) ** 2
        ends[:, enough] = resample(squares, [parts[n] for n in enough]).interval() ** 0.5
    return ends


def list_segments(joined: Joined, project: Project, trained: Errors) -> list[Segment]:
    """Return the segments that can be compared; all records are the first."""
    common, features, fits = joined.with_outcome().predictions
    schemas = feature_schemas(project.record_type)
    whole = np.ones(len(trained.X), dtype=bool)
    parts = [
        Segment(part.name, part.of_log & fits.to_numpy(), part.of_training)
        for part in feature_segments(features, trained.X, schemas)
    ]
    parts += [Segment(name, mask.to_numpy(), whole) for name, mask in periods(common["timestamp"])]
    return [
        Segment("all records", np.ones(len(common), dtype=bool), whole),
        *(
            part
            for part in parts
            if part.of_log.sum() >= MIN_OUTCOMES
            and not part.of_log.all()
            and not 0 < part.of_training.sum() < PRIOR_ROWS
        ),
    ]


def compare(
    served: Errors, trained: Errors, segments: list[Segment], target_std: float
) -> pd.DataFrame:
    """Return the ratio of each segment's MAE to that expected from training, the worst first.

    A few large errors decide an RMSE, and the training may lack them by chance. The worst segment
    is not that with the largest ratio, which is often one of few rows, but that whose interval
    begins highest.
    """
    of_log = resample(served.sizes(target_std), [part.of_log for part in segments])
    of_training = resample(
        trained.sizes(target_std), [part.of_training for part in segments], PRIOR_ROWS, seed=1
    )
    ratio, low, high = ratio_intervals(of_log, of_training)
    table = pd.DataFrame({"ratio": ratio, "low": low, "high": high, "segment": segments})
    table.index = pd.Index([part.name for part in segments])
    return table.sort_values("low", ascending=False, kind="stable")


def describe(table: pd.DataFrame, served: Errors, trained: Errors) -> pd.DataFrame:
    """Return a comparison with the scores of each segment beside those of training."""
    rows = {}
    for name, part in table["segment"].items():
        pairs = zip(served.scores(part.of_log), trained.scores(part.of_training), strict=True)
        named = zip(SCORES, pairs, strict=True)
        rows[name] = {"outcomes": part.of_log.sum()} | {
            f"{score}{suffix}": value
            for score, pair in named
            for suffix, value in zip(("", ", was"), pair, strict=True)
        }
    return pd.DataFrame.from_dict(rows, orient="index").join(table[["ratio", *INTERVAL]])
