"""The replay command: check whether another model may replace the served one."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import bentoml
import numpy as np
import pandas as pd
from bentoml.exceptions import BentoMLException
from pydantic import BaseModel

from serving.features import feature_schemas
from serving.model import ModelReference, training_metadata
from serving.observability import LOG_COLUMNS
from serving.regressor import Regressor
from training.errors import TrainingError
from training.formatting import print_table
from training.monitoring.prediction_log import read_chunks
from training.monitoring.replay_results import Change, ReplayResults, measure_latency, to_record
from training.project import Project
from training.stored_model import StoredModel

MAX_LISTED = 10  # reasons, or requests


class Limits(NamedTuple):
    """How much the predictions may change."""

    max_change: float  # in the unit of the target
    max_share: float  # of the predictions that may change by more


def replay_log(
    project: Project, log_folder: Path, tag: str, max_change: float | None, max_share: float
) -> bool:
    """Replay a log with a candidate and print the changes; return whether it fails.

    `max_change` is by default the cross-validated RMSE of the model that made the last prediction.
    Raise TrainingError, BentoMLException or OSError.
    """
    model = ModelReference(tag, project.record_type).resolve()
    candidate = StoredModel(model)
    results, logged_features = replay_entries(log_folder, project.record_type, candidate)
    served_tag = results.last.model_tag
    served = load_served(served_tag, project.record_type)
    if max_change is None:
        max_change = cross_validated_rmse(served, served_tag)
    limits = Limits(max_change, max_share)
    print(
        f"{results.n_records:,} records of {results.n_requests:,} requests, the last predicted by "
        f"{served_tag}, replayed with {model.tag}"
    )
    print_feature_changes(logged_features, set(feature_schemas(project.record_type)))
    print_rejected(results)
    print_changes(results, limits, project.target)
    print_largest(results.largest[served_tag])
    models = {served_tag: Regressor(served) if served else None}
    print_latency(results, models | {str(model.tag): candidate.regressor})
    failures = list(find_failures(results, limits))
    print(f"\nCandidate fails: {'; '.join(failures)}" if failures else "\nCandidate passes")
    return bool(failures)


def replay_entries(
    log_folder: Path, record_type: type[BaseModel], candidate: StoredModel
) -> tuple[ReplayResults, set[str]]:
    """Replay a log; return the results and the names of all features in it."""
    results, names = ReplayResults(record_type, candidate), set[str]()
    for entries in read_chunks(log_folder):
        results.add(entries)
        names.update(*entries)
    return results, names.difference(LOG_COLUMNS)


def load_served(tag: str, record_type: type[BaseModel]) -> bentoml.Model | None:
    """Return a model, or None if the store lacks it or it has other features."""
    try:
        return ModelReference(tag, record_type).resolve()
    except BentoMLException:
        return None


def cross_validated_rmse(model: bentoml.Model | None, tag: str) -> float:
    """Return the cross-validated RMSE of a model; raise TrainingError if there is no model."""
    if not model:
        raise TrainingError(
            f"The model store has no {tag} for these features, whose cross-validated RMSE is the "
            "default of --bound: say with --bound how much a prediction may change"
        )
    return training_metadata(model).metrics["cv_rmse"]


def print_feature_changes(logged: set[str], declared: set[str]) -> None:
    """Print the features that only the log or only the record type has."""
    if lacking := sorted(declared - logged):
        print(f"Features that the log lacks: {', '.join(lacking)}")
    if removed := sorted(logged - declared):
        print(f"Features that the record type no longer has: {', '.join(removed)}")


def print_rejected(results: ReplayResults) -> None:
    """Print how many requests the service would reject now, and why."""
    requests = [request_id for _, request_id in results.rejected_requests]
    if not requests:
        print("No request would be rejected")
        return
    more = ", ..." * (len(requests) > MAX_LISTED)
    print(
        f"{len(requests):,} requests would be rejected: {', '.join(requests[:MAX_LISTED])}{more}\n"
        f"{results.n_rejected:,} of their records are invalid or can't be predicted:"
    )
    for reason, count in results.reasons.most_common(MAX_LISTED):
        print(f"- {reason}: {count:,} records")


def share_above(changes: list[float], limits: Limits) -> float:
    """Return the share of the predictions that change by more than `max_change`."""
    return float(np.mean(np.abs(changes) > limits.max_change))


def print_changes(results: ReplayResults, limits: Limits, target: str) -> None:
    """Print statistics of the changes from the predictions of each model in the log."""
    rows = {
        tag: {
            "records": len(changes),
            "mean": np.mean(changes),
            "RMS": np.sqrt(np.mean(np.square(changes))),
            "median abs.": np.median(np.abs(changes)),
            "95 % abs.": np.quantile(np.abs(changes), 0.95),
            "largest abs.": np.max(np.abs(changes)),
            f"above {limits.max_change:.3g}": f"{share_above(changes, limits):.2%}",
        }
        for tag, changes in results.changes.items()
    }
    if rows:
        print_table(f"Change of {target}, by model in the log", to_table(rows), "{:.4g}")


def print_largest(changes: list[Change]) -> None:
    """Print the records whose predictions change most."""
    if not changes or not changes[0].change:
        return
    rows = {
        number: {
            "record": f"{each.entry['request_id']} {each.entry.get('record_number', 0)}",
            "change": each.change,
            "logged": each.entry["prediction"],
            **to_record(each.entry),
        }
        for number, each in enumerate(changes, 1)
    }
    print_table("Largest changes, from the last model", to_table(rows), "{:.4g}")


def print_latency(results: ReplayResults, models: dict[str, Regressor | None]) -> None:
    """Print how long the prediction of one record takes."""
    loaded = {tag: model for tag, model in models.items() if model}
    times = measure_latency(loaded, results.timed_rows) if results.timed_rows else {}
    rows = {
        tag: {"median": np.median(each), "99 %": np.quantile(each, 0.99)}
        for tag, each in times.items()
    }
    if rows:
        print_table("Milliseconds to predict one record, without HTTP", to_table(rows), "{:.4g}")
    for tag in models.keys() - loaded.keys():
        print(f"The model store has no {tag} for these features: it was not timed")


def find_failures(results: ReplayResults, limits: Limits) -> Iterator[str]:
    """Yield the reasons for which a candidate fails."""
    if results.rejected_requests:
        yield f"{len(results.rejected_requests):,} requests would be rejected"
    changes = results.changes.get(results.last.model_tag)
    if not changes:
        yield f"no prediction of {results.last.model_tag} can be compared"
    elif (share := share_above(changes, limits)) > limits.max_share:
        yield (
            f"{share:.1%} of the predictions change by more than {limits.max_change:.3g}; at most "
            f"{limits.max_share:.1%} may"
        )


def to_table(rows: Mapping[Any, Mapping[str, Any]]) -> pd.DataFrame:
    """Return a table with a row for each item."""
    return pd.DataFrame.from_dict(rows, orient="index")
