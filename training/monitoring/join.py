"""Join the predictions of a log with their outcomes."""

from typing import NamedTuple

import pandas as pd

from training.errors import InvalidOutcomesError
from training.monitoring.outcomes import KEY, OUTCOME, RECORD_NUMBER, REQUEST_ID
from training.monitoring.prediction_log import LoggedPredictions

MAX_EXAMPLES = 3  # keys listed in a remark
LATE_DAYS = 30  # an outcome that becomes known later than this is counted as late


class JoinedPredictions(NamedTuple):
    """Predictions of a log, and the outcome of each."""

    predictions: LoggedPredictions
    outcome: pd.Series  # NaN if it is not known
    remarks: list[str]  # what was excluded from the log and the outcomes, and why

    def select(self, mask: pd.Series) -> "JoinedPredictions":
        """Return the rows that a mask selects."""
        return JoinedPredictions(self.predictions.select(mask), self.outcome[mask], self.remarks)

    def with_outcome(self) -> "JoinedPredictions":
        """Return the rows that have an outcome."""
        return self.select(self.outcome.notna())


def join(predictions: LoggedPredictions, outcomes: pd.DataFrame) -> JoinedPredictions:
    """Join predictions with outcomes by the KEY, request ID and record number.

    Retries, with the same key and the same record, count once for each model. Predictions of
    different records with the same key are excluded, since the outcome may be of any of them. Raise
    InvalidOutcomesError.
    """
    outcomes, missing_remarks = drop_missing(outcomes)
    if RECORD_NUMBER not in outcomes:
        check_no_arrays(predictions.common, outcomes)
        outcomes = outcomes.assign(**{RECORD_NUMBER: 0})
    logged_codes, outcome_codes = encode_keys(predictions.common, outcomes)
    outcomes, outcome_remarks = unique_outcomes(pd.concat([outcomes, outcome_codes], axis=1))
    is_kept, prediction_remarks = unique_predictions(predictions, logged_codes["key_code"])
    kept = predictions.select(is_kept)
    matched = outcomes.set_index("key_code").reindex(logged_codes["key_code"][is_kept])
    matched = matched.set_axis(kept.common.index)
    remarks = [
        *prediction_remarks,
        *missing_remarks,
        *outcome_remarks,
        *unmatched_remarks(outcomes, logged_codes),
    ]
    if "timestamp" in outcomes:
        remarks += delay_remarks(matched["timestamp"] - kept.common["timestamp"])
    return JoinedPredictions(kept, matched[OUTCOME], remarks)


def drop_missing(outcomes: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Return the outcomes that have a KEY and a value, and a remark on the others."""
    complete = outcomes.dropna(subset=[name for name in (*KEY, OUTCOME) if name in outcomes])
    n_incomplete = len(outcomes) - len(complete)
    return complete, remark(n_incomplete, "outcomes without a value, ID or record number")


def check_no_arrays(common: pd.DataFrame, outcomes: pd.DataFrame) -> None:
    """Raise InvalidOutcomesError if an outcome is of a request with several records."""
    of_arrays = common.loc[common[RECORD_NUMBER] > 0, REQUEST_ID]
    shared = of_arrays[of_arrays.isin(outcomes[REQUEST_ID])]
    if len(shared):
        raise InvalidOutcomesError(
            f"Request {shared.iloc[0]} has several records: add a column {RECORD_NUMBER} to the "
            "outcomes, which numbers the records of a request from 0"
        )


def encode_keys(logged: pd.DataFrame, outcomes: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return an integer for each request ID (request_code) and KEY (key_code) of two tables.

    Equal ones get the same integer. Joining strings takes ten times as long.
    """
    rows = pd.concat([logged[KEY], outcomes[KEY]], ignore_index=True)
    records = rows[RECORD_NUMBER].astype("int64")
    requests = pd.Series(pd.factorize(rows[REQUEST_ID])[0])
    keys = requests * (records.max() + 1) + records
    codes = pd.DataFrame({"request_code": requests, "key_code": keys})
    n_logged = len(logged)
    return codes[:n_logged].set_axis(logged.index), codes[n_logged:].set_axis(outcomes.index)


def unique_outcomes(outcomes: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Return one outcome for each key, without contradictory ones, and remarks on the others."""
    distinct = outcomes.drop_duplicates(["key_code", OUTCOME])
    is_contradictory = distinct.duplicated("key_code", keep=False)
    contradictory = distinct[is_contradictory].drop_duplicates("key_code")
    return distinct[~is_contradictory], [
        *remark(len(outcomes) - len(distinct), "repeated outcomes with the same value"),
        *remark(len(contradictory), "records with contradictory outcomes, excluded", contradictory),
    ]


def unique_predictions(
    predictions: LoggedPredictions, key_codes: pd.Series
) -> tuple[pd.Series, list[str]]:
    """Return a mask of one prediction for each key and model, and remarks on the others."""
    is_repeated = key_codes.duplicated(keep=False)
    # With the prefix, no feature has the name key_code.
    features = predictions.features[is_repeated].add_prefix("feature ")
    records = features.assign(key_code=key_codes[is_repeated]).drop_duplicates()
    is_ambiguous = key_codes.isin(records.loc[records["key_code"].duplicated(), "key_code"])
    common = predictions.common
    by_model = pd.DataFrame({"key_code": key_codes, "model_tag": common["model_tag"]})
    is_retry = ~is_ambiguous & by_model.duplicated()
    ambiguous = common[is_ambiguous]
    return ~is_ambiguous & ~is_retry, [
        *remark(int(is_retry.sum()), "predictions of retried requests, excluded"),
        *remark(
            len(ambiguous), "predictions of different records with the same ID, excluded", ambiguous
        ),
    ]


def unmatched_remarks(outcomes: pd.DataFrame, logged_codes: pd.DataFrame) -> list[str]:
    """Return remarks on outcomes without a logged prediction."""
    unmatched = outcomes[~outcomes["key_code"].isin(logged_codes["key_code"])]
    has_request = unmatched["request_code"].isin(logged_codes["request_code"])
    of_no_request, of_no_record = unmatched[~has_request], unmatched[has_request]
    return [
        *remark(len(of_no_request), "outcomes of requests that are not in the log", of_no_request),
        *remark(len(of_no_record), "outcomes of records that their request lacks", of_no_record),
    ]


def delay_remarks(delay: pd.Series) -> list[str]:
    """Return remarks on the time from the predictions to their outcomes."""
    days = delay.dropna() / pd.Timedelta(days=1)
    if days.empty:
        return []
    median, high = days.quantile([0.5, 0.95])
    n_late, n_early = int((days > LATE_DAYS).sum()), int((days < 0).sum())
    return [
        f"half of the outcomes came within {median:.3g} days, 95 % within {high:.3g}",
        *remark(n_late, f"outcomes that came late, after more than {LATE_DAYS} days"),
        *remark(n_early, "outcomes older than their prediction (was the target known before?)"),
    ]


def remark(count: int, text: str, rows: pd.DataFrame | None = None) -> list[str]:
    """Return a remark with its count and the KEY of some rows, or nothing if the count is 0."""
    if not count:
        return []
    if rows is None:
        return [f"{text}: {count:,}"]
    keys = rows[KEY].drop_duplicates()
    examples = keys.head(MAX_EXAMPLES).itertuples(index=False)
    named = [f"{request_id} record {int(number)}" for request_id, number in examples]
    return [f"{text}: {count:,} ({', '.join(named)}{', ...' * (len(keys) > MAX_EXAMPLES)})"]
