"""Parts of the rows: by the quantiles, the values and the gaps of each feature, and by time."""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from serving.features import Schema, kind_of
from training.formatting import format_number

QUANTILES = (0.25, 0.5, 0.75)  # of the training
MAX_VALUES = 20  # of one feature, each of which is a segment
FEW_VALUES = 5  # of a number: each is a segment, instead of quantiles
MAX_PERIODS = 31
PERIODS = {"h": "%Y-%m-%d %H:00", "D": "%Y-%m-%d", "W": "week of %Y-%m-%d", "M": "%Y-%m", "Y": "%Y"}


class Segment(NamedTuple):
    """A part of the log, and the same part of the training, as masks of rows."""

    name: str
    of_log: np.ndarray
    of_training: np.ndarray


def feature_segments(
    log: pd.DataFrame, training: pd.DataFrame, schemas: Mapping[str, Schema]
) -> Iterator[Segment]:
    """Yield the segments of each feature."""
    for name, schema in schemas.items():
        columns = log[name], training[name]
        is_number = kind_of(schema) in ("number", "integer")
        if is_number and training[name].nunique() > FEW_VALUES:
            yield from quantile_segments(name, *columns)
        else:
            yield from value_segments(name, *columns)
        yield Segment(f"{name} is null", *(column.isna().to_numpy() for column in columns))


def quantile_segments(name: str, log: pd.Series, training: pd.Series) -> Iterator[Segment]:
    """Yield the parts between quantiles of the training, and the part outside of its range."""
    edges = np.unique(training.quantile(QUANTILES))
    labels = [format_number(edge, 4) for edge in edges]
    names = [
        f"{name} up to {labels[0]}",
        *(f"{name} {low} to {high}" for low, high in pairwise(labels)),
        f"{name} above {labels[-1]}",
    ]
    bins = [np.searchsorted(edges, column) for column in (log, training)]
    known = [column.notna().to_numpy() for column in (log, training)]
    for n, label in enumerate(names):
        yield Segment(
            label, *((part == n) & is_known for part, is_known in zip(bins, known, strict=True))
        )
    outside = (log < training.min()) | (log > training.max())
    nothing = np.zeros(len(training), dtype=bool)
    yield Segment(f"{name} outside its training range", outside.to_numpy(), nothing)


def value_segments(name: str, log: pd.Series, training: pd.Series) -> Iterator[Segment]:
    """Yield a part for each value, of the most frequent in the log."""
    for value in log.value_counts().index[:MAX_VALUES]:
        masks = ((column == value).to_numpy(dtype=bool) for column in (log, training))
        yield Segment(f"{name} is {format_value(value)}", *masks)


def format_value(value: Any) -> str:
    """Return a value as JSON writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else format_number(value, 6)


def periods(timestamps: pd.Series) -> list[tuple[str, pd.Series]]:
    """Return equal periods, from hours to years, as masks: the shortest that are few enough."""
    times = timestamps.dt.tz_localize(None)
    for unit in PERIODS:
        starts = times.dt.to_period(unit).dt.start_time
        if starts.nunique() <= MAX_PERIODS:
            break
    label = PERIODS[unit]
    return [(start.strftime(label), starts == start) for start in sorted(starts.unique())]
