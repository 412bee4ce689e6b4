"""The evaluate command: tell whether a model errs more than at its training."""

from pathlib import Path

import bentoml
import pandas as pd

from serving.features import feature_schemas
from serving.model import ModelReference, training_metadata
from training.errors import InvalidLogError, InvalidOutcomesError
from training.formatting import print_table
from training.monitoring.error_plot import draw
from training.monitoring.join import Joined, join
from training.monitoring.outcomes import read_outcomes
from training.monitoring.prediction_log import Predictions, read_predictions
from training.monitoring.retraining_data import write_csv
from training.monitoring.served_error import (
    MIN_OUTCOMES,
    WORSE,
    Errors,
    by_model,
    by_period,
    compare,
    describe,
    list_segments,
    served_errors,
    training_errors,
)
from training.project import Project

EXIT_WORSE = 3  # as that of drift
SHOWN = 10  # segments


def evaluate_log(
    project: Project,
    data_path: Path,
    log_folder: Path,
    outcomes_path: Path,
    tag: str | None,
    picture: Path,
    labelled: Path | None,
) -> bool:
    """Print the error of the models in a log, and tell whether one errs more than at its training.

    That one is the model of the last prediction, if no tag is given. Raise TrainingError,
    BentoMLException or OSError.
    """
    predictions = read_predictions(log_folder, feature_schemas(project.record_type))
    reference = ModelReference(tag or last_tag(predictions), project.record_type)
    model = reference.resolve()
    joined = join_file(predictions, outcomes_path, project.target)
    own = joined.rows(joined.predictions.common["model_tag"] == str(model.tag))
    if own.actual.empty:
        raise InvalidLogError(f"The log in {log_folder} has no predictions of {model.tag}")
    print_counts(joined)
    if labelled:
        write_csv(joined, project, labelled)
    n_outcomes = int(own.actual.notna().sum())
    is_enough = n_outcomes >= MIN_OUTCOMES
    trained = training_errors(project, model, data_path) if is_enough else None
    print_table("Each model", by_model(joined, str(model.tag), trained))
    if not trained:
        print(f"\nToo few: {n_outcomes} outcomes of {model.tag}; {MIN_OUTCOMES} are needed")
        return False
    return judge(project, model, own, trained, picture)


def last_tag(predictions: Predictions) -> str:
    """Return the tag of the model that made the last prediction; raise InvalidLogError."""
    common = predictions.common
    return common["model_tag"][common["timestamp"].idxmax()]


def join_file(predictions: Predictions, path: Path, target: str) -> Joined:
    """Join predictions with a file of outcomes; raise InvalidOutcomesError or OSError."""
    outcomes = read_outcomes(path, target)
    joined = join(predictions, outcomes, target)
    if outcomes[target].notna().any() and joined.actual.isna().all():
        remarks = "; ".join(joined.remarks)
        raise InvalidOutcomesError(
            f"{path}: no outcome is that of a prediction in the log ({remarks}). Is request_id "
            "what the response had in X-Request-ID?"
        )
    return joined


def print_counts(joined: Joined) -> None:
    """Print how many predictions have an outcome, and what was left out."""
    times = joined.predictions.common["timestamp"]
    first, last = (f"{time:%Y-%m-%d %H:%M}" for time in (times.min(), times.max()))
    n_rows, n_known = len(times), int(joined.actual.notna().sum())
    print(
        f"{n_rows:,} predictions from {first} to {last} UTC; {n_known:,} ({n_known / n_rows:.1%}) "
        "have an outcome"
    )
    for remark in joined.remarks:
        print(f"- {remark}")


def judge(
    project: Project, model: bentoml.Model, own: Joined, trained: Errors, picture: Path
) -> bool:
    """Compare the segments of one model, print and draw them, and tell whether one is worse."""
    training = training_metadata(model)
    served = served_errors(own)
    over_time = by_period(own)
    print_table(f"{model.tag} over time", over_time)
    table = compare(served, trained, list_segments(own, project, trained), training.target_std)
    shown = table.head(SHOWN)
    title = (
        f"{model.tag} by segment, the worst {len(shown)} of {len(table)}; was: at training; ratio: "
        "of the MAE"
    )
    print_table(title, describe(shown, served, trained))
    verdict = to_verdict(table)
    figure = draw(
        f"{model.tag}: {verdict}", over_time, shown, (served, trained), training.target["unit"]
    )
    figure.savefig(picture, format="png", dpi=100)
    print(f"\n{verdict}\nWrote {picture}")
    return bool((table["low"] > WORSE).any())


def to_verdict(table: pd.DataFrame) -> str:
    """Return what a comparison says, in one line; the first row is the worst segment."""
    n_worse = int((table["low"] > WORSE).sum())
    if not n_worse:
        return f"as expected, no mean absolute error is surely above {WORSE} times that of training"
    worst = table.iloc[0]
    others = f", and {n_worse - 1} more segments" if n_worse > 1 else ""
    return (
        f"worse in {worst.name}: mean absolute error {worst['ratio']:.2f} times that of "
        f"training ({worst['low']:.2f} to {worst['high']:.2f}){others}"
    )
