"""Join the predictions of a log with what really happened."""

from typing import NamedTuple

import pandas as pd

from training.errors import InvalidOutcomesError
from training.monitoring.outcomes import KEY
from training.monitoring.prediction_log import Predictions

MAX_EXAMPLES = 3  # that a remark names
LATE_DAYS = 30  # an outcome that comes after more than these is counted as late


class Joined(NamedTuple):
    """The predictions of a log, and the outcome of each."""

    predictions: Predictions
    actual: pd.Series  # NaN without an outcome
    remarks: list[str]  # what was left out, and why

    def rows(self, mask: pd.Series) -> "Joined":
        """Return the rows of a mask."""
        return Joined(self.predictions.rows(mask), self.actual[mask], self.remarks)

    def with_outcome(self) -> "Joined":
        """Return the rows that have an outcome."""
        return self.rows(self.actual.notna())


def join(predictions: Predictions, outcomes: pd.DataFrame, target: str) -> Joined:
    """Join the predictions of a log with outcomes; raise InvalidOutcomesError.

    A prediction whose request ID and record number occur again in the log counts once for each
    model if the record is the same, as when a caller retries. If the record is another, nobody
    knows which of them the outcome is of: they are left out.
    """
    outcomes, without_value = known_outcomes(outcomes, target)
    if KEY[1] not in outcomes:
        outcomes = outcomes.assign(**{KEY[1]: check_no_arrays(predictions.common, outcomes)})
    logged, reported = number_keys(predictions.common, outcomes)
    outcomes, several = single_outcomes(outcomes.join(reported), target)
    is_kept, repeated = single_predictions(predictions, logged["key"])
    kept = predictions.rows(is_kept)
    found = outcomes.set_index("key").reindex(logged["key"][is_kept]).set_axis(kept.common.index)
    remarks = [*repeated, *without_value, *several, *unknown_outcomes(logged, outcomes)]
    if "timestamp" in outcomes and target != "timestamp":
        remarks += delays(found["timestamp"] - kept.common["timestamp"])
    return Joined(kept, found[target], [each for each in remarks if each])


def known_outcomes(outcomes: pd.DataFrame, target: str) -> tuple[pd.DataFrame, list[str]]:
    """Return the outcomes that have a value, and a remark on the others."""
    known = outcomes.dropna(subset=[name for name in (*KEY, target) if name in outcomes])
    return known, [remark(len(outcomes) - len(known), "outcomes without a value")]


def check_no_arrays(common: pd.DataFrame, outcomes: pd.DataFrame) -> int:
    """Return 0, the record number of each outcome; raise InvalidOutcomesError if it may be another.

    It may be if the request has several records.
    """
    of_arrays = common.loc[common[KEY[1]] > 0, KEY[0]]
    shared = of_arrays[of_arrays.isin(outcomes[KEY[0]])]
    if len(shared):
        raise InvalidOutcomesError(
            f"Request {shared.iloc[0]} has several records: say in a column {KEY[1]} of the "
            "outcomes which of them each is of, from 0"
        )
    return 0


def number_keys(logged: pd.DataFrame, reported: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return numbers for the request ID ("request") and the KEY ("key") of the rows of two tables.

    Texts take ten times as long to compare.
    """
    rows = pd.concat([logged[KEY], reported[KEY]], ignore_index=True)
    records = rows[KEY[1]].astype("int64")
    requests = pd.Series(pd.factorize(rows[KEY[0]])[0])
    numbers = pd.DataFrame({"request": requests, "key": requests * (records.max() + 1) + records})
    n_logged = len(logged)
    return (
        numbers[:n_logged].set_axis(logged.index),
        numbers[n_logged:].set_axis(reported.index),
    )


def single_outcomes(outcomes: pd.DataFrame, target: str) -> tuple[pd.DataFrame, list[str]]:
    """Return the outcomes of which there is one for each key, and remarks on the others."""
    distinct = outcomes.drop_duplicates(["key", target])
    contradicts = distinct.duplicated("key", keep=False)
    contradicted = distinct[contradicts].drop_duplicates("key")
    return distinct[~contradicts], [
        remark(len(outcomes) - len(distinct), "outcomes that come again with the same value"),
        remark(len(contradicted), "records with contradictory outcomes, left out", contradicted),
    ]


def single_predictions(predictions: Predictions, keys: pd.Series) -> tuple[pd.Series, list[str]]:
    """Tell which predictions to join: one of each key and model. Return remarks on the others."""
    is_repeated = keys.duplicated(keep=False)
    features = predictions.features[is_repeated].add_prefix("feature ")
    records = features.assign(key=keys[is_repeated]).drop_duplicates()
    is_ambiguous = keys.isin(records.loc[records["key"].duplicated(), "key"])
    common = predictions.common
    of_model = pd.DataFrame({"key": keys, "model_tag": common["model_tag"]})
    is_retry = ~is_ambiguous & of_model.duplicated()
    ambiguous = common[is_ambiguous]
    return ~is_ambiguous & ~is_retry, [
        remark(
            int(is_retry.sum()), "predictions that repeat a request ID and its record, left out"
        ),
        remark(
            len(ambiguous), "predictions that share an ID with another record, left out", ambiguous
        ),
    ]


def unknown_outcomes(logged: pd.DataFrame, outcomes: pd.DataFrame) -> list[str]:
    """Return remarks on the outcomes that no prediction of the log has."""
    unknown = outcomes[~outcomes["key"].isin(logged["key"])]
    has_request = unknown["request"].isin(logged["request"])
    strange, misnumbered = unknown[~has_request], unknown[has_request]
    lost = "outcomes of requests that the log does not have, or no longer"
    return [
        remark(len(strange), lost, strange),
        remark(
            len(misnumbered), "outcomes of records that their request does not have", misnumbered
        ),
    ]


def delays(delay: pd.Series) -> list[str]:
    """Return remarks on how long after the predictions the outcomes were known."""
    days = delay.dropna() / pd.Timedelta(days=1)
    if days.empty:
        return []
    half, most = days.quantile([0.5, 0.95])
    early = "outcomes older than their prediction (was the target known before?)"
    return [
        f"half of the outcomes came within {half:.3g} days, 95 % within {most:.3g}",
        remark(
            int((days > LATE_DAYS).sum()),
            f"outcomes that came late, after more than {LATE_DAYS} days",
        ),
        remark(int((days < 0).sum()), early),
    ]


def remark(count: int, text: str, rows: pd.DataFrame | None = None) -> str:
    """Return a remark with its count and the KEY of some rows, or nothing for none."""
    if not count:
        return ""
    if rows is None:
        return f"{text}: {count:,}"
    keys = rows[KEY].drop_duplicates()
    examples = keys.head(MAX_EXAMPLES).itertuples(index=False)
    named = [f"{request_id} record {int(number)}" for request_id, number in examples]
    return f"{text}: {count:,} ({', '.join(named)}{', ...' * (len(keys) > MAX_EXAMPLES)})"
