"""The error of a served model: by segment, over time, and beside that of training."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import root_mean_squared_error

from serving.features import feature_schemas
from tests.helpers.mpg import Model, read_table
from training.monitoring.bootstrap import resample
from training.monitoring.join import Joined
from training.monitoring.prediction_log import Predictions
from training.monitoring.segments import MAX_PERIODS, feature_segments, periods
from training.monitoring.served_error import (
    MIN_OUTCOMES,
    PRIOR_ROWS,
    WORSE,
    Errors,
    by_model,
    by_period,
    compare,
    describe,
    list_segments,
)

SCHEMAS = feature_schemas(Model)
TARGET_STD = 7.8
N_LOGGED = 4000
DAYS = 20


class Mpg:
    """What `list_segments` needs of a project."""

    record_type = Model


@pytest.fixture(scope="module")
def trained():
    """Errors of the training, of the standard deviation 1; each row is there three times."""
    table = pd.concat([read_table()] * 3, ignore_index=True)
    noise = np.random.default_rng(0).normal(size=len(table))
    return Errors(table.iloc[:, :-1], table["mpg"].to_numpy(), table["mpg"].to_numpy() + noise)


def served(trained, is_worse=None, times=4, n_rows=N_LOGGED):
    """Return logged records with errors as in the training or, in a part, larger ones.

    `is_worse` chooses the part from the features and the times.
    """
    generator = np.random.default_rng(1)
    drawn = generator.integers(len(trained.actual), size=n_rows)
    features = trained.X.iloc[drawn].reset_index(drop=True)
    wagon = [None if value != value else bool(value) for value in features["wagon"]]
    features["wagon"] = pd.Series(wagon, dtype=object)  # as the log is read
    start = pd.Timestamp("2026-01-01", tz="UTC")
    timestamps = start + pd.to_timedelta(np.arange(n_rows) * DAYS / n_rows, unit="D")
    noise = generator.normal(size=n_rows)
    if is_worse:
        noise *= np.where(is_worse(features, timestamps), times, 1)
    actual = pd.Series(trained.actual[drawn])
    common = pd.DataFrame(
        {"timestamp": timestamps, "model_tag": "mpg:1", "prediction": actual + noise}
    )
    fits = pd.Series(np.ones(n_rows, dtype=bool))
    return Joined(Predictions(common, features, fits), actual, [])


def compare_joined(joined, trained):
    """Return the comparison of a log with its training."""
    known = joined.with_outcome()
    prediction = known.predictions.common["prediction"]
    errors = Errors(known.predictions.features, known.actual.to_numpy(), prediction.to_numpy())
    return compare(errors, trained, list_segments(joined, Mpg, trained), TARGET_STD), errors


def test_error_as_at_training_is_expected(trained):
    """In each of about fifty segments; the intervals have the ratio 1 in them."""
    table, _ = compare_joined(served(trained), trained)
    assert len(table) > 40
    assert (table["low"] < 1).all()
    assert (table["high"] > 1).all()
    assert table["ratio"].between(table["low"], table["high"]).all()


PARTS = {
    'origin is "Japan"': lambda X, _: X["origin"] == "Japan",
    "origin is null": lambda X, _: X["origin"].isna(),
    "wagon is true": lambda X, _: X["wagon"] == True,  # noqa: E712
    "cylinders is 6": lambda X, _: X["cylinders"] == 6,
    "0-60 mph above 17": lambda X, _: X["0-60 mph"] > 17,
    "2026-01-08": lambda _, timestamps: timestamps.day == 8,
    "all records": lambda X, _: X["weight"] > 0,
}


@pytest.mark.parametrize(("name", "is_worse"), PARTS.items(), ids=PARTS)
def test_part_that_is_made_worse_is_named_first(trained, name, is_worse):
    """A category, a gap, a boolean, an integer, a quantile, a day, or everything."""
    table, _ = compare_joined(served(trained, is_worse, times=3), trained)
    assert table["low"].iloc[0] > WORSE
    assert name in (table.index[0], *table.index[table["ratio"] > 2.5])
    if name != "all records":
        assert table.index[0] == name


def test_values_outside_the_training_range_are_a_segment(trained):
    """The training has no such rows: they are compared with all of them."""
    joined = served(trained, lambda X, _: X.index < 300)
    joined.predictions.features.loc[:299, "weight"] = 9000.0
    table, _ = compare_joined(joined, trained)
    assert "weight outside its training range" in table.index[table["low"] > WORSE]


def test_category_that_the_training_lacks_is_a_segment(trained):
    """A text may have any value."""
    joined = served(trained, lambda X, _: X.index < 300)
    joined.predictions.features.loc[:299, "name"] = "new model"
    table, _ = compare_joined(joined, trained)
    assert table.index[0] == 'name is "new model"'


def test_segment_of_few_outcomes_is_left_out(trained):
    """One more outcome makes it a segment."""
    for n_outcomes in (MIN_OUTCOMES - 1, MIN_OUTCOMES):
        joined = served(trained)
        joined.predictions.features["name"] = "other"
        joined.predictions.features.loc[: n_outcomes - 1, "name"] = "rare"
        table, _ = compare_joined(joined, trained)
        assert ('name is "rare"' in table.index) == (n_outcomes == MIN_OUTCOMES)


def test_record_that_does_not_fit_counts_in_no_segment_of_a_feature(trained):
    """Its features are not known, which is no gap."""
    joined = served(trained)
    fits = joined.predictions.fits
    fits[:1000] = False
    joined.predictions.features.loc[~fits, :] = None
    segments = {part.name: part for part in list_segments(joined, Mpg, trained)}
    assert "weight is null" not in segments
    assert segments["all records"].of_log.sum() == N_LOGGED
    assert not segments["origin is null"].of_log[:1000].any()


def test_segments_of_a_feature_divide_its_rows(trained):
    """Each row is in one: a quantile, a value or a gap."""
    X = trained.X[["weight", "origin", "wagon", "horsepower"]]
    for name in X:
        parts = list(feature_segments(X, X, {name: SCHEMAS[name]}))
        counts = sum(part.of_log.astype(int) for part in parts)
        assert counts.tolist() == [1] * len(X)
        for part in parts:
            assert (part.of_log == part.of_training).all()


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
    parts = periods(times.dt.tz_localize("UTC"))
    assert parts[0][0] == first
    assert len(parts) <= MAX_PERIODS
    assert sum(mask.astype(int) for _, mask in parts).tolist() == [1] * 500


def test_scores_are_those_of_the_rows_with_an_outcome(trained):
    """Over time and for each model. The bias is positive if predictions are too large."""
    joined = served(trained)
    joined.actual[::2] = np.nan
    joined.predictions.common["prediction"] += 5
    joined.predictions.common.loc[:999, "model_tag"] = "mpg:0"
    table = by_model(joined, "mpg:1", trained)
    assert list(table.index) == ["mpg:0", "mpg:1", "mpg:1, cross-validated"]
    assert table["predictions"].tolist()[:2] == [1000, 3000]
    assert table["outcomes"].tolist() == [500, 1500, len(trained.actual)]
    known = joined.with_outcome()
    own = known.predictions.common["model_tag"] == "mpg:1"
    expected = root_mean_squared_error(
        known.actual[own], known.predictions.common["prediction"][own]
    )
    assert table.loc["mpg:1", "RMSE"] == pytest.approx(expected)
    assert table.loc["mpg:1", "bias"] == pytest.approx(5, abs=0.2)
    assert table.loc["mpg:1", "low"] < expected < table.loc["mpg:1", "high"]
    days = by_period(joined)
    assert days["predictions"].tolist() == [N_LOGGED / DAYS] * DAYS
    assert days["outcomes"].sum() == 2000


def test_segments_are_described_beside_the_same_rows_of_training(trained):
    """A score and what it was."""
    table, errors = compare_joined(served(trained), trained)
    rows = describe(table, errors, trained)
    japan = (trained.X["origin"] == "Japan").to_numpy()
    assert rows.loc['origin is "Japan"', "MAE, was"] == pytest.approx(
        np.abs(trained.actual - trained.predicted)[japan].mean()
    )
    assert rows.loc["all records", "outcomes"] == N_LOGGED


def test_interval_has_the_mean_in_nine_of_ten_samples():
    """Of the squares of 100 numbers of a normal distribution."""
    generator = np.random.default_rng(0)
    hits = 0
    for _ in range(100):
        squares = generator.normal(size=100) ** 2
        ((low,), (high,)) = resample(squares, [np.ones(100, dtype=bool)]).interval()
        hits += low <= 1 <= high
    assert 88 <= hits <= 99


def test_groups_of_rows_give_the_interval_of_rows():
    """A long log is resampled in groups: the standard error of the mean is known."""
    losses = np.random.default_rng(0).normal(size=200_000) ** 2
    resampled = resample(losses, [np.ones(len(losses), dtype=bool)])
    expected = np.std(losses) / np.sqrt(len(losses))
    assert np.std(resampled.resamples) == pytest.approx(expected, rel=0.1)


def test_segment_of_few_rows_of_training_is_left_out(trained):
    """The error that was to be expected there is not known."""
    joined = served(trained)
    joined.predictions.features.loc[:299, "name"] = trained.X["name"].iloc[0]
    table, _ = compare_joined(joined, trained)
    assert not [name for name in table.index if name.startswith("name is")]


def test_rows_of_training_that_were_lucky_are_not_what_to_expect(trained):
    """If by chance no car of a kind had an error, the average of all has some weight."""
    is_six = (trained.X["cylinders"] == 6).to_numpy()
    lucky = np.where(is_six, trained.actual, trained.predicted)
    table, _ = compare_joined(served(trained), trained._replace(predicted=lucky))
    average = 1 - is_six.mean()  # of the errors elsewhere
    expected = (is_six.sum() + PRIOR_ROWS) / (PRIOR_ROWS * average)
    assert table.loc["cylinders is 6", "ratio"] == pytest.approx(expected, rel=0.2)
