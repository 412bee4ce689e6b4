"""Divide rows into segments: by the values of each feature, by missing values, and by time."""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from serving.features import Schema, kind_of
from training.formatting import format_number

QUANTILES = (0.25, 0.5, 0.75)  # of the training data
MAX_VALUE_SEGMENTS = 20  # of one feature
# A number with more distinct values in the training data is divided by quantiles instead.
MAX_DISCRETE_VALUES = 5
MAX_PERIODS = 31
# The units of time, and how the start of a period is written.
PERIODS = {"h": "%Y-%m-%d %H:00", "D": "%Y-%m-%d", "W": "week of %Y-%m-%d", "M": "%Y-%m", "Y": "%Y"}


class Segment(NamedTuple):
    """The rows of a segment in the log and in the training data, as masks."""

    name: str
    in_log: np.ndarray
    in_training: np.ndarray


def feature_segments(
    log: pd.DataFrame, training: pd.DataFrame, schemas: Mapping[str, Schema]
) -> Iterator[Segment]:
    """Yield the segments of each feature."""
    for name, schema in schemas.items():
        columns = log[name], training[name]
        is_number = kind_of(schema) in ("number", "integer")
        if is_number and training[name].nunique() > MAX_DISCRETE_VALUES:
            yield from quantile_segments(name, *columns)
        else:
            yield from value_segments(name, *columns)
        yield Segment(f"{name} is null", *(column.isna().to_numpy() for column in columns))


def quantile_segments(name: str, log: pd.Series, training: pd.Series) -> Iterator[Segment]:
    """Yield the segments between quantiles of the training data, and the one outside its range."""
    edges = np.unique(training.quantile(QUANTILES))
    labels = [format_number(edge, 4) for edge in edges]
    names = [
        f"{name} up to {labels[0]}",
        *(f"{name} {low} to {high}" for low, high in pairwise(labels)),
        f"{name} above {labels[-1]}",
    ]
    # The index of a missing value is that of no segment.
    log_bins, training_bins = (
        np.where(column.isna(), -1, np.searchsorted(edges, column)) for column in (log, training)
    )
    for index, segment_name in enumerate(names):
        yield Segment(segment_name, log_bins == index, training_bins == index)
    is_outside = (log < training.min()) | (log > training.max())
    in_training = np.zeros(len(training), dtype=bool)
    yield Segment(
        f"{name} outside the range of the training data", is_outside.to_numpy(), in_training
    )


def value_segments(name: str, log: pd.Series, training: pd.Series) -> Iterator[Segment]:
    """Yield a segment for each of the most frequent values in the log."""
    for value in log.value_counts().index[:MAX_VALUE_SEGMENTS]:
        masks = ((column == value).to_numpy(dtype=bool) for column in (log, training))
        yield Segment(f"{name} is {format_value(value)}", *masks)


def format_value(value: Any) -> str:
    """Return a value as JSON writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else format_number(value, 6)


def divide_by_time(timestamps: pd.Series) -> dict[str, pd.Series]:
    """Return a mask for each calendar period of the timestamps, in order.

    The unit is the shortest one that gives at most MAX_PERIODS, or years.
    """
    times = timestamps.dt.tz_localize(None)
    for unit in PERIODS:
        starts = times.dt.to_period(unit).dt.start_time
        if starts.nunique() <= MAX_PERIODS:
            break
    label = PERIODS[unit]
    return {start.strftime(label): starts == start for start in sorted(starts.unique())}
