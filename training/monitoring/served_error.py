"""The error of served models, by model, period and segment, compared with that of training."""

from collections.abc import Mapping
from itertools import compress
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
from serving.regressor import to_predictions
from training.data import load_data_of_model
from training.fitting.evaluation import FOLDS, to_fitted_type
from training.monitoring.bootstrap import ratio_intervals, resample
from training.monitoring.join import JoinedPredictions
from training.monitoring.segments import Segment, divide_by_time, feature_segments
from training.project import Project
from training.stored_model import load_estimator

# The mean absolute error (MAE) divided by that of training; less is seldom worth a retraining.
MAX_ERROR_RATIO = 1.1
# Simulated with the errors of the house model, 60 logs each: a doubled error was detected in 98 %
# of the logs with 50 outcomes. Without a change, no log with 300 outcomes gave a false alarm; 5 %
# of the logs with 5,000 did.
MIN_OUTCOMES = 50  # of a model or a segment
# A segment with fewer training rows is not compared, unless it has none: its expected error is then
# the MAE of all training rows.
MIN_TRAINING_ROWS = 30
# In a segment with few training rows, the errors may be small by chance. A low MAE is pulled up
# toward that of all training rows, as if the segment had this many more rows with that MAE.
PRIOR_ROWS = 30
# Any tiny number would do: it keeps the mean of errors that are all zero above zero.
MIN_ERROR = 1e-9  # of the target's standard deviation
SCORES = ["RMSE", "MAE", "bias", "R2"]
INTERVAL = ["low", "high"]


class EvaluatedRecords(NamedTuple):
    """Features, true values (n_samples,) and predictions (n_samples,) of some records."""

    X: pd.DataFrame
    y_true: np.ndarray
    y_pred: np.ndarray

    def scores(self, mask: np.ndarray | slice = slice(None)) -> dict[str, float]:
        """Return the SCORES of the rows that a mask selects."""
        y_true, y_pred = self.y_true[mask], self.y_pred[mask]
        if len(y_true) < 2:  # R2 needs two
            return dict.fromkeys(SCORES, np.nan)
        return {
            "RMSE": root_mean_squared_error(y_true, y_pred),
            "MAE": mean_absolute_error(y_true, y_pred),
            "bias": float(np.mean(y_pred - y_true)),
            "R2": r2_score(y_true, y_pred),
        }

    def absolute_errors(self, target_std: float) -> np.ndarray:
        """Return absolute errors (n_samples,), slightly above zero, so that means have a ratio."""
        return np.hypot(self.y_pred - self.y_true, MIN_ERROR * target_std)


def served_predictions(joined: JoinedPredictions) -> EvaluatedRecords:
    """Return the logged predictions that have an outcome."""
    predictions, outcome, _ = joined.with_outcome()
    y_pred = predictions.common["prediction"].to_numpy()
    return EvaluatedRecords(predictions.features, outcome.to_numpy(), y_pred)


def cross_validated_predictions(
    project: Project, model: bentoml.Model, data_path: Path
) -> EvaluatedRecords:
    """Return cross-validated predictions of all rows that a model was trained and tested on.

    Raise InvalidDataError.
    """
    training = training_metadata(model)
    data = load_data_of_model(data_path, project.labelled_type, training)
    X, y = data.X, data.y
    estimator = load_estimator(model)
    y_pred = cross_val_predict(estimator, to_fitted_type(estimator, X), y, cv=FOLDS)
    return EvaluatedRecords(X, y.to_numpy(), np.array(to_predictions(y_pred, len(X))))


def by_model(
    joined: JoinedPredictions, tag: str, cross_validated: EvaluatedRecords | None
) -> pd.DataFrame:
    """Return the scores of each model in a log, each followed by its scores in training.

    For the model `tag` the latter are computed from `cross_validated`, its cross-validated
    predictions. For the others, and for all if this is None, the model store has them: those of the
    test part.
    """
    tags = joined.predictions.common["model_tag"]
    served = score_groups(joined, {name: tags == name for name in tags.unique()})
    tables = []
    for name in served.index:
        tables.append(served.loc[[name]])
        if name == tag and cross_validated:
            row = {"outcomes": len(cross_validated.y_true)} | cross_validated.scores()
            tables.append(pd.DataFrame(row, [f"{name}, cross-validated"]))
        elif scores := stored_scores(name):
            tables.append(pd.DataFrame(scores, [f"{name}, test part"]))
    return pd.concat(tables)


def stored_scores(tag: str) -> dict[str, float]:
    """Return the scores of a model on the test part, or nothing if the model store lacks it."""
    try:
        metadata: Any = bentoml.models.get(tag).info.metadata
    except NotFound:
        return {}
    metrics = metadata.get("metrics", {})
    named = {score: metrics.get(f"test_{score.lower()}") for score in SCORES}
    return {score: value for score, value in named.items() if value is not None}


def by_period(joined: JoinedPredictions) -> pd.DataFrame:
    """Return the scores of one model over time."""
    return score_groups(joined, divide_by_time(joined.predictions.common["timestamp"]))


def score_groups(joined: JoinedPredictions, masks: Mapping[str, pd.Series]) -> pd.DataFrame:
    """Return the counts, the scores and the interval of the RMSE of the rows of each mask."""
    served = served_predictions(joined)
    has_outcome = joined.outcome.notna()
    outcome_masks = [mask[has_outcome].to_numpy() for mask in masks.values()]
    table = pd.DataFrame([served.scores(mask) for mask in outcome_masks], list(masks))
    low, high = rmse_intervals(served, outcome_masks)
    table.insert(1, "low", low)
    table.insert(2, "high", high)
    table.insert(0, "predictions", [mask.sum() for mask in masks.values()])
    table.insert(1, "outcomes", [mask.sum() for mask in outcome_masks])
    return table


def rmse_intervals(served: EvaluatedRecords, masks: list[np.ndarray]) -> np.ndarray:
    """Return the ends (2, n_masks) of the interval of each RMSE; NaN without MIN_OUTCOMES."""
    ends = np.full((2, len(masks)), np.nan)
    is_enough = [mask.sum() >= MIN_OUTCOMES for mask in masks]
    if any(is_enough):
        squares = (served.y_pred - served.y_true) ** 2
        ends[:, is_enough] = resample(squares, list(compress(masks, is_enough))).intervals() ** 0.5
    return ends


def list_segments(
    joined: JoinedPredictions, project: Project, cross_validated: EvaluatedRecords
) -> list[Segment]:
    """Return the segments that can be compared; the first has all records."""
    predictions = joined.with_outcome().predictions
    is_valid = predictions.is_valid.to_numpy()
    all_training = np.ones(len(cross_validated.X), dtype=bool)
    schemas = feature_schemas(project.record_type)
    segments = [
        segment._replace(in_log=segment.in_log & is_valid)
        for segment in feature_segments(predictions.features, cross_validated.X, schemas)
    ]
    segments += [
        Segment(name, mask.to_numpy(), all_training)
        for name, mask in divide_by_time(predictions.common["timestamp"]).items()
    ]
    all_records = Segment("all records", np.ones(len(is_valid), dtype=bool), all_training)
    return [all_records, *filter(is_comparable, segments)]


def is_comparable(segment: Segment) -> bool:
    """Return whether a segment is a part of the log, with enough rows in log and training data."""
    n_training = segment.in_training.sum()
    return bool(
        segment.in_log.sum() >= MIN_OUTCOMES
        and not segment.in_log.all()
        and (n_training == 0 or n_training >= MIN_TRAINING_ROWS)
    )


def compare_segments(
    served: EvaluatedRecords,
    cross_validated: EvaluatedRecords,
    segments: list[Segment],
    target_std: float,
) -> pd.DataFrame:
    """Return the ratio of each segment's MAE to that of training, and its interval.

    The MAE, since a few large errors dominate an RMSE, and the training data may lack them by
    chance. The rows are sorted by the lower end of the interval; a large ratio alone is often that
    of a small segment. A segment is worse if its whole interval is above MAX_ERROR_RATIO.
    """
    served_mae = resample(
        served.absolute_errors(target_std), [segment.in_log for segment in segments]
    )
    expected_mae = resample(
        cross_validated.absolute_errors(target_std),
        [segment.in_training for segment in segments],
        PRIOR_ROWS,
        seed=1,  # not that of the log: the two are resampled independently
    )
    ratio, low, high = ratio_intervals(served_mae, expected_mae)
    table = pd.DataFrame({"ratio": ratio, "low": low, "high": high, "segment": segments})
    table["is_worse"] = table["low"] > MAX_ERROR_RATIO
    table.index = pd.Index([segment.name for segment in segments])
    return table.sort_values("low", ascending=False, kind="stable")


def add_scores(
    comparison: pd.DataFrame, served: EvaluatedRecords, cross_validated: EvaluatedRecords
) -> pd.DataFrame:
    """Return a comparison of segments with the scores of each, in the log and in training."""
    rows = {}
    for name, segment in comparison["segment"].items():
        row: dict[str, Any] = {"outcomes": segment.in_log.sum()}
        of_log = served.scores(segment.in_log)
        of_training = cross_validated.scores(segment.in_training)
        for score in SCORES:
            row |= {score: of_log[score], f"{score} train": of_training[score]}
        rows[name] = row
    return pd.DataFrame.from_dict(rows, orient="index").join(comparison[["ratio", *INTERVAL]])
