"""The evaluate command: compare the error of a served model with that of training."""

from pathlib import Path

import bentoml
import pandas as pd

from serving.features import feature_schemas
from serving.model import ModelReference, training_metadata
from training.errors import InvalidLogError, InvalidOutcomesError
from training.formatting import print_table
from training.monitoring.error_plot import plot_errors
from training.monitoring.join import JoinedPredictions, join
from training.monitoring.outcomes import OUTCOME, read_outcomes
from training.monitoring.prediction_log import LoggedPredictions, read_predictions
from training.monitoring.retraining_data import write_csv
from training.monitoring.served_error import (
    MAX_ERROR_RATIO,
    MIN_OUTCOMES,
    EvaluatedRecords,
    add_scores,
    by_model,
    by_period,
    compare_segments,
    cross_validated_predictions,
    list_segments,
    served_predictions,
)
from training.project import Project

SHOWN_SEGMENTS = 10


def evaluate_log(
    project: Project,
    data_path: Path,
    log_folder: Path,
    outcomes_path: Path,
    tag: str | None,
    plot_path: Path,
    training_csv: Path | None,
) -> bool:
    """Print the errors of the models in a log; return whether the judged one has become worse.

    The judged model is that with the tag or, without one, that of the last prediction. Write a plot
    of it and, with `training_csv`, the joined rows as training data. Raise TrainingError,
    BentoMLException or OSError.
    """
    predictions = read_predictions(log_folder, feature_schemas(project.record_type))
    reference = ModelReference(tag or last_tag(predictions), project.record_type)
    model = reference.resolve()
    model_tag = str(model.tag)
    joined = join_file(predictions, outcomes_path, project.target)
    judged = joined.select(joined.predictions.common["model_tag"] == model_tag)
    if judged.outcome.empty:
        raise InvalidLogError(f"The log in {log_folder} has no predictions of {model_tag}")
    print_counts(joined)
    if training_csv:
        write_csv(joined, project, data_path, training_csv)
    n_outcomes = int(judged.outcome.notna().sum())
    if n_outcomes < MIN_OUTCOMES:
        print_table("Each model", by_model(joined, model_tag, None))
        print(f"\nToo few: {n_outcomes} outcomes of {model_tag}; {MIN_OUTCOMES} are needed")
        return False
    cross_validated = cross_validated_predictions(project, model, data_path)
    print_table("Each model", by_model(joined, model_tag, cross_validated))
    return compare_with_training(project, model, judged, cross_validated, plot_path)


def last_tag(predictions: LoggedPredictions) -> str:
    """Return the tag of the model that made the last prediction."""
    common = predictions.common
    return common["model_tag"][common["timestamp"].idxmax()]


def join_file(predictions: LoggedPredictions, path: Path, target: str) -> JoinedPredictions:
    """Join predictions with a file of outcomes; raise InvalidOutcomesError or OSError."""
    outcomes = read_outcomes(path, target)
    joined = join(predictions, outcomes)
    if outcomes[OUTCOME].notna().any() and joined.outcome.isna().all():
        remarks = "; ".join(joined.remarks)
        raise InvalidOutcomesError(
            f"{path}: no outcome matches a logged prediction ({remarks}). Is request_id the "
            "X-Request-ID of the response?"
        )
    return joined


def print_counts(joined: JoinedPredictions) -> None:
    """Print how many predictions have an outcome, and what was excluded."""
    times = joined.predictions.common["timestamp"]
    first, last = (f"{time:%Y-%m-%d %H:%M}" for time in (times.min(), times.max()))
    n_rows, n_outcomes = len(times), int(joined.outcome.notna().sum())
    print(
        f"{n_rows:,} predictions from {first} to {last} UTC; {n_outcomes:,} "
        f"({n_outcomes / n_rows:.1%}) have an outcome"
    )
    for remark in joined.remarks:
        print(f"- {remark}")


def compare_with_training(
    project: Project,
    model: bentoml.Model,
    judged: JoinedPredictions,
    cross_validated: EvaluatedRecords,
    plot_path: Path,
) -> bool:
    """Print and plot the errors of one model by segment; return whether it is worse in one."""
    training = training_metadata(model)
    served = served_predictions(judged)
    periods = by_period(judged)
    print_table(f"{model.tag} over time", periods)
    segments = list_segments(judged, project, cross_validated)
    comparison = compare_segments(served, cross_validated, segments, training.target_std)
    shown = comparison.head(SHOWN_SEGMENTS)
    title = (
        f"{model.tag} by segment, the worst {len(shown)} of {len(comparison)}; train: "
        "cross-validated; ratio: MAE to that of training"
    )
    print_table(title, add_scores(shown, served, cross_validated))
    verdict = describe_verdict(comparison)
    figure = plot_errors(
        f"{model.tag}: {verdict}",
        periods,
        shown,
        served,
        cross_validated,
        training.target["unit"],
    )
    figure.savefig(plot_path, format="png", dpi=100)
    print(f"\n{verdict}\nWrote {plot_path}")
    return bool(comparison["is_worse"].any())


def describe_verdict(comparison: pd.DataFrame) -> str:
    """Return the verdict on a comparison in one line; its first row is the worst segment."""
    n_worse = int(comparison["is_worse"].sum())
    if not n_worse:
        return (
            "OK: in no segment is the mean absolute error significantly above "
            f"{MAX_ERROR_RATIO} times that of training"
        )
    worst = comparison.iloc[0]
    others = f", and {n_worse - 1} more segments" if n_worse > 1 else ""
    return (
        f"worse in {worst.name}: mean absolute error {worst['ratio']:.2f} times that of "
        f"training ({worst['low']:.2f} to {worst['high']:.2f}){others}"
    )
