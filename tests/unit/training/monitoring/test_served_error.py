"""The error of a served model: by segment, over time, and compared with that of training."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import root_mean_squared_error

from tests.helpers.mpg import SCHEMAS, CarType, read_table
from training.monitoring.bootstrap import resample
from training.monitoring.join import JoinedPredictions
from training.monitoring.prediction_log import LoggedPredictions
from training.monitoring.segments import MAX_PERIODS, divide_by_time, feature_segments
from training.monitoring.served_error import (
    MAX_ERROR_RATIO,
    MIN_OUTCOMES,
    PRIOR_ROWS,
    EvaluatedRecords,
    add_scores,
    by_model,
    by_period,
    compare_segments,
    list_segments,
    served_predictions,
)

TARGET_STD = 7.8
N_LOGGED = 4000
DAYS = 20


class Mpg:
    """A project with what `list_segments` needs."""

    record_type = CarType


@pytest.fixture(scope="module")
def trained():
    """Training predictions with errors of standard deviation 1; each row occurs three times."""
    table = pd.concat([read_table()] * 3, ignore_index=True)
    noise = np.random.default_rng(0).normal(size=len(table))
    y_true = table["mpg"].to_numpy()
    return EvaluatedRecords(table.iloc[:, :-1], y_true, y_true + noise)


def served(trained, is_worse=None, times=4, n_rows=N_LOGGED):
    """Return logged records with errors as in training or, in one segment, `times` larger ones.

    `is_worse` selects the segment from the features and the timestamps.
    """
    generator = np.random.default_rng(1)
    sampled = generator.integers(len(trained.y_true), size=n_rows)
    features = trained.X.iloc[sampled].reset_index(drop=True)
    wagon = [None if value != value else bool(value) for value in features["wagon"]]
    features["wagon"] = pd.Series(wagon, dtype=object)  # as the log is read
    start = pd.Timestamp("2026-01-01", tz="UTC")
    timestamps = start + pd.to_timedelta(np.arange(n_rows) * DAYS / n_rows, unit="D")
    noise = generator.normal(size=n_rows)
    if is_worse:
        noise *= np.where(is_worse(features, timestamps), times, 1)
    outcome = pd.Series(trained.y_true[sampled])
    common = pd.DataFrame(
        {"timestamp": timestamps, "model_tag": "mpg:1", "prediction": outcome + noise}
    )
    invalid_feature = pd.Series([""] * n_rows, dtype=object)
    return JoinedPredictions(LoggedPredictions(common, features, invalid_feature), outcome, [])


def compare_joined(joined, trained):
    """Return the comparison of a log with its training."""
    segments = list_segments(joined, Mpg, trained)
    return compare_segments(served_predictions(joined), trained, segments, TARGET_STD)


def test_intervals_of_an_unchanged_error_include_1(trained):
    """In each of about fifty segments."""
    table = compare_joined(served(trained), trained)
    assert len(table) > 40
    assert (table["low"] < 1).all()
    assert (table["high"] > 1).all()
    assert table["ratio"].between(table["low"], table["high"]).all()


SEGMENTS = {
    'origin is "Japan"': lambda X, _: X["origin"] == "Japan",
    "origin is null": lambda X, _: X["origin"].isna(),
    "wagon is true": lambda X, _: X["wagon"] == True,  # noqa: E712
    "cylinders is 6": lambda X, _: X["cylinders"] == 6,
    "0-60 mph above 17": lambda X, _: X["0-60 mph"] > 17,
    "2026-01-08": lambda _, timestamps: timestamps.day == 8,
    "all records": lambda X, _: X["weight"] > 0,
}


@pytest.mark.parametrize(("name", "is_worse"), SEGMENTS.items(), ids=SEGMENTS)
def test_segment_with_larger_errors_is_named_first(trained, name, is_worse):
    """A category, a missing value, a boolean, an integer, a quantile, a day, or everything."""
    table = compare_joined(served(trained, is_worse, times=3), trained)
    assert table["low"].iloc[0] > MAX_ERROR_RATIO
    assert name in (table.index[0], *table.index[table["ratio"] > 2.5])
    if name != "all records":
        assert table.index[0] == name


def test_values_outside_the_training_range_are_a_segment(trained):
    """The training data have no such rows: the segment is compared with all training rows."""
    joined = served(trained, lambda X, _: X.index < 300)
    joined.predictions.features.loc[:299, "weight"] = 9000.0
    table = compare_joined(joined, trained)
    assert (
        "weight outside the range of the training data"
        in table.index[table["low"] > MAX_ERROR_RATIO]
    )


def test_category_that_the_training_lacks_is_a_segment(trained):
    """A text may have any value."""
    joined = served(trained, lambda X, _: X.index < 300)
    joined.predictions.features.loc[:299, "name"] = "new model"
    table = compare_joined(joined, trained)
    assert table.index[0] == 'name is "new model"'


def test_segment_with_few_outcomes_is_excluded(trained):
    """MIN_OUTCOMES are enough."""
    for n_outcomes in (MIN_OUTCOMES - 1, MIN_OUTCOMES):
        joined = served(trained)
        joined.predictions.features["name"] = "other"
        joined.predictions.features.loc[: n_outcomes - 1, "name"] = "rare"
        table = compare_joined(joined, trained)
        assert ('name is "rare"' in table.index) == (n_outcomes == MIN_OUTCOMES)


def test_invalid_record_is_in_no_segment_of_a_feature(trained):
    """Its features are not known: they do not count as null."""
    joined = served(trained)
    joined.predictions.invalid_feature[:1000] = "weight"
    joined.predictions.features.loc[:999, :] = None
    segments = {segment.name: segment for segment in list_segments(joined, Mpg, trained)}
    assert "weight is null" not in segments
    assert segments["all records"].in_log.sum() == N_LOGGED
    assert not segments["origin is null"].in_log[:1000].any()


def test_segments_of_a_feature_divide_its_rows(trained):
    """Each row is in one: a quantile, a value or null."""
    X = trained.X[["weight", "origin", "wagon", "horsepower"]]
    for name in X:
        segments = list(feature_segments(X, X, {name: SCHEMAS[name]}))
        counts = sum(segment.in_log.astype(int) for segment in segments)
        assert counts.tolist() == [1] * len(X)
        for segment in segments:
            assert (segment.in_log == segment.in_training).all()


@pytest.mark.parametrize(
    ("span", "first"),
    [
        ("3h", "2026-01-01 00:00"),
        ("9D", "2026-01-01"),
        ("90D", "week of 2025-12-29"),
        ("800D", "2026-01"),
        ("4000D", "2026"),
    ],
)
def test_periods_are_few(span, first):
    """Hours, days, weeks, months or years; each row is in one."""
    times = pd.Series(pd.date_range("2026-01-01", periods=500, freq=pd.Timedelta(span) / 500))
    periods = divide_by_time(times.dt.tz_localize("UTC"))
    assert next(iter(periods)) == first
    assert len(periods) <= MAX_PERIODS
    assert sum(mask.astype(int) for mask in periods.values()).tolist() == [1] * 500


def test_scores_are_those_of_the_rows_with_an_outcome(trained):
    """Over time and for each model. The bias is positive if predictions are too large."""
    joined = served(trained)
    joined.outcome[::2] = np.nan
    joined.predictions.common["prediction"] += 5
    joined.predictions.common.loc[:999, "model_tag"] = "mpg:0"
    table = by_model(joined, "mpg:1", trained)
    assert list(table.index) == ["mpg:0", "mpg:1", "mpg:1, cross-validated"]
    assert table["predictions"].tolist()[:2] == [1000, 3000]
    assert table["outcomes"].tolist() == [500, 1500, len(trained.y_true)]
    with_outcome = joined.with_outcome()
    is_judged = with_outcome.predictions.common["model_tag"] == "mpg:1"
    expected = root_mean_squared_error(
        with_outcome.outcome[is_judged], with_outcome.predictions.common["prediction"][is_judged]
    )
    assert table.loc["mpg:1", "RMSE"] == pytest.approx(expected)
    assert table.loc["mpg:1", "bias"] == pytest.approx(5, abs=0.2)
    assert table.loc["mpg:1", "low"] < expected < table.loc["mpg:1", "high"]
    days = by_period(joined)
    assert days["predictions"].tolist() == [N_LOGGED / DAYS] * DAYS
    assert days["outcomes"].sum() == 2000


def test_scores_of_segments_include_those_of_training(trained):
    """Of the same segment of the training data."""
    joined = served(trained)
    rows = add_scores(compare_joined(joined, trained), served_predictions(joined), trained)
    japan = (trained.X["origin"] == "Japan").to_numpy()
    assert rows.loc['origin is "Japan"', "MAE train"] == pytest.approx(
        np.abs(trained.y_true - trained.y_pred)[japan].mean()
    )
    assert rows.loc["all records", "outcomes"] == N_LOGGED


def test_interval_includes_the_mean_in_about_95_of_100_samples():
    """Each sample has 100 squares of normally distributed numbers."""
    generator = np.random.default_rng(0)
    hits = 0
    for _ in range(100):
        squares = generator.normal(size=100) ** 2
        ((low,), (high,)) = resample(squares, [np.ones(100, dtype=bool)]).intervals()
        hits += low <= 1 <= high
    assert 88 <= hits <= 99


def test_groups_of_rows_give_the_interval_of_rows():
    """A long log is resampled in groups; the expected standard error is that of single rows."""
    losses = np.random.default_rng(0).normal(size=200_000) ** 2
    means = resample(losses, [np.ones(len(losses), dtype=bool)])
    expected = np.std(losses) / np.sqrt(len(losses))
    assert np.std(means.resampled) == pytest.approx(expected, rel=0.1)


def test_segment_with_few_training_rows_is_excluded(trained):
    """Its expected error is not known."""
    joined = served(trained)
    joined.predictions.features.loc[:299, "name"] = trained.X["name"].iloc[0]
    table = compare_joined(joined, trained)
    assert not [name for name in table.index if name.startswith("name is")]


def test_expected_error_is_shrunk_toward_the_overall_error(trained):
    """If a segment has no error in training, that may be chance."""
    is_six = (trained.X["cylinders"] == 6).to_numpy()
    y_pred = np.where(is_six, trained.y_true, trained.y_pred)
    table = compare_joined(served(trained), trained._replace(y_pred=y_pred))
    overall = 1 - is_six.mean()  # relative to the error of the other rows
    expected = (is_six.sum() + PRIOR_ROWS) / (PRIOR_ROWS * overall)
    assert table.loc["cylinders is 6", "ratio"] == pytest.approx(expected, rel=0.2)
