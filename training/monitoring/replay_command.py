"""The replay command: tell whether another model may replace the one that is served."""

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
from training.errors import InvalidLogError, TrainingError
from training.formatting import print_table
from training.monitoring.prediction_log import read_chunks
from training.monitoring.replay import Difference, Replay, measure_latency
from training.project import Project
from training.stored_model import StoredModel

EXIT_REFUSED = 3  # as that of drift
MAX_NAMED = 10  # reasons, or requests


class Bounds(NamedTuple):
    """How much a candidate may change."""

    difference: float  # in the unit of the target
    share: float  # of the predictions, which may move by more


def replay_log(
    project: Project, log_folder: Path, tag: str, bound: float | None, share: float
) -> bool:
    """Print what another model makes of the records in a log; tell whether to refuse it.

    Without a bound, it is the cross-validated error of the model that made the last prediction.
    Raise TrainingError, BentoMLException or OSError.
    """
    model = ModelReference(tag, project.record_type).resolve()
    candidate = StoredModel(model)
    replay, logged = run(log_folder, project.record_type, candidate)
    served_tag = replay.last[1]
    served = load_served(served_tag, project.record_type)
    bounds = Bounds(usual_error(served, served_tag) if bound is None else bound, share)
    print(
        f"{replay.n_records:,} records of {replay.n_requests:,} requests, the last predicted by "
        f"{served_tag}, replayed with {model.tag}"
    )
    print_contract(logged, {*feature_schemas(project.record_type)})
    print_refused(replay)
    print_differences(replay, bounds, project.target)
    print_worst(replay.worst.get(served_tag, []))
    models = {served_tag: Regressor(served) if served else None}
    print_latency(replay, models | {str(model.tag): candidate.regressor})
    reasons = list(exceeded(replay, bounds))
    print(f"\nRefused: {'; '.join(reasons)}" if reasons else "\nWithin the bounds")
    return bool(reasons)


def run(
    log_folder: Path, record_type: type[BaseModel], candidate: StoredModel
) -> tuple[Replay, set[str]]:
    """Replay a log; return the result and the names of all features in it."""
    replay, names = Replay(record_type, candidate), set[str]()
    for chunk in read_chunks(log_folder):
        replay.add(chunk)
        names.update(*chunk.entries)
    if not replay.n_records:
        raise InvalidLogError(f"The log in {log_folder} has no line yet")
    return replay, names.difference(LOG_COLUMNS)


def load_served(tag: str, record_type: type[BaseModel]) -> bentoml.Model | None:
    """Return a model, or None if it can't be loaded here."""
    try:
        return ModelReference(tag, record_type).resolve()
    except BentoMLException:
        return None


def usual_error(model: bentoml.Model | None, tag: str) -> float:
    """Return the cross-validated RMSE of a model; raise TrainingError if it is not there."""
    if not model:
        raise TrainingError(
            f"The model store has no {tag} for these features, whose cross-validated RMSE is the "
            "usual bound: say with --bound how far a prediction may move"
        )
    return training_metadata(model).metrics["cv_rmse"]


def print_contract(logged: set[str], present: set[str]) -> None:
    """Print the features that only the log or only the record type has."""
    if lacking := sorted(present - logged):
        print(f"Features that the log lacks: {', '.join(lacking)}")
    if removed := sorted(logged - present):
        print(f"Features that the record type no longer has: {', '.join(removed)}")


def print_refused(replay: Replay) -> None:
    """Print how many requests the service would refuse now, and why."""
    requests = [request_id for _, request_id in replay.refused_requests]
    if not requests:
        print("No request would be refused")
        return
    more = ", ..." * (len(requests) > MAX_NAMED)
    print(
        f"{len(requests):,} requests with {replay.n_refused:,} invalid records would be refused: "
        f"{', '.join(requests[:MAX_NAMED])}{more}"
    )
    for reason, count in replay.reasons.most_common(MAX_NAMED):
        print(f"- {reason}: {count:,} records")


def moved_share(differences: list[float], bounds: Bounds) -> float:
    """Return the share of the predictions that move by more than the bound."""
    return float(np.mean(np.abs(differences) > bounds.difference))


def print_differences(replay: Replay, bounds: Bounds, target: str) -> None:
    """Print the paired differences to each model in the log."""
    rows = {
        tag: {
            "records": len(differences),
            "mean": np.mean(differences),
            "RMS": np.sqrt(np.mean(np.square(differences))),
            "median": np.median(np.abs(differences)),
            "95 %": np.quantile(np.abs(differences), 0.95),
            "largest": np.max(np.abs(differences)),
            f"above {bounds.difference:.3g}": f"{moved_share(differences, bounds):.2%}",
        }
        for tag, differences in replay.differences.items()
    }
    if rows:
        print_table(f"By how much {target} moves, from each model", to_table(rows), "{:.4g}")


def print_worst(worst: list[Difference]) -> None:
    """Print the records whose predictions move most."""
    if not worst or not worst[0].value:
        return
    rows = {
        n: {
            "record": f"{each.entry['request_id']} {each.entry.get('record_number', 0)}",
            "moves": each.value,
            "logged": each.entry["prediction"],
            **each.record(),
        }
        for n, each in enumerate(worst, 1)
    }
    print_table("Largest differences, from the last model", to_table(rows), "{:.4g}")


def print_latency(replay: Replay, models: dict[str, Regressor | None]) -> None:
    """Print how long the prediction of one record takes."""
    loaded = {tag: model for tag, model in models.items() if model}
    times = measure_latency(loaded, replay.timed_rows) if replay.timed_rows else {}
    rows = {
        tag: {"median": np.median(each), "99 %": np.quantile(each, 0.99)}
        for tag, each in times.items()
    }
    if rows:
        print_table("Milliseconds to predict one record, without HTTP", to_table(rows), "{:.4g}")
    for tag in models.keys() - loaded.keys():
        print(f"The model store has no {tag} for these features: it was not timed")


def exceeded(replay: Replay, bounds: Bounds) -> Iterator[str]:
    """Yield what is out of bounds."""
    if replay.refused_requests:
        yield f"{len(replay.refused_requests):,} requests would get an error"
    differences = replay.differences.get(replay.last[1])
    if differences is None:
        yield f"no prediction of {replay.last[1]} can be compared"
    elif (share := moved_share(differences, bounds)) > bounds.share:
        yield (
            f"{share:.1%} of the predictions move by more than {bounds.difference:.3g}; "
            f"{bounds.share:.1%} may"
        )


def to_table(rows: Mapping[Any, Mapping[str, Any]]) -> pd.DataFrame:
    """Return a table with a row for each item."""
    return pd.DataFrame.from_dict(rows, orient="index")
