"""Infer the features and the target from a table: kind, bounds and number of missing values."""

import re
from collections.abc import Collection
from difflib import get_close_matches
from typing import NamedTuple

import numpy as np
import pandas as pd

from serving.features import MAX_INTEGER, Kind
from serving.observability import LOG_COLUMNS
from training.data import MIN_ROWS, NUMBER
from training.errors import InvalidDataError
from training.scaffold.table import UNNAMED, Table

# A column of strings with more different values, or fewer rows per value, is a text and not a
# category.
MAX_CATEGORIES = 20
MIN_ROWS_PER_CATEGORY = 5
MAX_CATEGORY_LENGTH = 50  # characters; longer strings are sentences
# The smallest of these lengths that is twice the longest text, or more, is its `max_length`.
TEXT_LENGTHS = (40, 100, 200, 500, 1000, 10_000, 100_000)
DEFAULT_INTEGER_BOUND = 10**9  # unless a value is greater than a tenth of it

INTEGER = "[+-]?[0-9]+"
WHOLE = r"[+-]?[0-9]+(\.0*)?"
LEADING_ZERO = "[+-]?0[0-9]+"
MONTH = "(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*"
DATE = (
    r"(?i)(\d{4}-\d{1,2}-\d{1,2}|\d{4}/\d{1,2}/\d{1,2}|\d{1,2}[./-]\d{1,2}[./-]\d{2,4}"
    r"|\d{4}\.\d{1,2}\.\d{1,2}|\d{4}-\d{2}|\d{8}T\d{4,6}"
    rf"|{MONTH}\.? \d{{1,2}},? \d{{2,4}}|\d{{1,2}}\.?[ -]{MONTH}\.?[ -]\d{{2,4}})"
    r"([T ]\d{1,2}:\d{2}.*)?"
)
# Numbers as people write them: 1.234,50 or 1,234.50 or $12 or 12 %.
FORMATTED = r"[$€£]? ?[+-]?([0-9]{1,3}([,.' ][0-9]{3})+|[0-9]+)([.,][0-9]+)? ?[%$€£]?"
# If at least this share of the values are numbers (or dates), the others are treated as mistakes.
MIN_SHARE = 0.9


class Bounds(NamedTuple):
    """The bounds of a quantity, such as a latitude."""

    words: Collection[str]  # a column named like one of these has the bounds
    minimum: float
    maximum: float
    reason: str


PERCENTAGES = {"percent", "percentage", "pct"}
FRACTIONS = {"share", "fraction", "proportion", "probability"}
SHARES = PERCENTAGES | FRACTIONS  # also as the first word of a name: share_of_women
KNOWN_BOUNDS = [
    Bounds({"lat", "latitude"}, -90, 90, "a latitude"),
    Bounds({"lon", "lng", "longitude"}, -180, 180, "a longitude"),
    Bounds(PERCENTAGES, 0, 100, "a percentage"),
    Bounds(FRACTIONS, 0, 1, "a share"),
    Bounds({"year"}, 1, 9999, "a year"),
    Bounds({"month"}, 1, 12, "a month"),
    Bounds({"hour"}, 0, 24, "an hour"),
]


class Column(NamedTuple):
    """An inferred feature."""

    name: str
    kind: Kind
    reason: str  # for the kind and the bounds
    n_missing: int = 0  # number of missing values
    missing_markers: tuple[str, ...] = ()  # their texts in the file, such as NA
    minimum: float | None = None
    maximum: float | None = None
    values: tuple[str, ...] = ()  # of a category
    max_length: int | None = None  # of a text


class InferredTable(NamedTuple):
    """The features and the target of a table, its rows, and what is excluded."""

    features: list[Column]
    target: str
    excluded: dict[str, str]  # by name of a column: why it is not a feature
    frame: pd.DataFrame  # texts of the features and the target, in the file's order; NaN if missing
    n_unlabelled: int  # number of rows without a target; the frame lacks them


def infer_table(table: Table, target: str, dropped: Collection[str]) -> InferredTable:
    """Return the features and the target; raise InvalidDataError if they can't be used.

    `dropped` are the names of columns that the author excludes.
    """
    frame = table.frame
    for name in [target, *dropped]:
        check_has([*frame, *table.unreadable], name)
    if target in dropped:
        raise InvalidDataError(f"{target} is the target: it can't be dropped")
    excluded = dict.fromkeys(dropped, "named by DROP") | dict(table.unreadable)
    if target in table.unreadable:
        raise InvalidDataError(f"The target {target} can't be predicted: {excluded[target]}")
    if UNNAMED in frame and UNNAMED not in excluded:
        check_row_numbers(frame[UNNAMED])
        excluded[UNNAMED] = "the numbers of the rows, in a column without a name"
    labelled = table.select(frame[target].notna().to_numpy())
    check_target(labelled, target)
    features = []
    for name in [name for name in frame if name != target and name not in excluded]:
        if reason := exclusion_reason(labelled.frame[name]):
            excluded[name] = reason
        else:
            features.append(infer_feature(labelled, name))
    if not features:
        raise InvalidDataError("No column is left that could be a feature")
    names = [*(feature.name for feature in features), target]
    kept = labelled.frame[[name for name in frame if name in names]]
    return InferredTable(features, target, excluded, kept, len(frame) - len(kept))


def check_row_numbers(column: pd.Series) -> None:
    """Raise InvalidDataError unless a column without a name contains the numbers of the rows."""
    numbers = pd.to_numeric(column, errors="coerce")
    if not (numbers.diff().iloc[1:] == 1).all():
        raise InvalidDataError(
            "A column has no name, and is not the numbers of the rows: name it, or delete it"
        )


def check_has(names: list[str], name: str) -> None:
    """Raise InvalidDataError if there is no column of this name."""
    if name not in names:
        similar = get_close_matches(name, names, n=1) or names
        raise InvalidDataError(f"There is no column {name!r}. Is it {', '.join(similar)}?")


def check_target(labelled: Table, name: str) -> None:
    """Raise InvalidDataError if no regressor can be fitted to a column."""
    values = labelled.frame[name]
    if len(values) < MIN_ROWS:
        raise InvalidDataError(f"{len(values)} rows with {name} are too few: give {MIN_ROWS}")
    if not values.str.fullmatch(NUMBER.pattern).all():
        wrong = first_non_number(labelled, name)
        raise InvalidDataError(f"The target {name} has to be a number, not {wrong}")
    if to_numbers(labelled, name).nunique() == 1:
        raise InvalidDataError(f"The target {name} has the same value in each row")


def exclusion_reason(column: pd.Series) -> str | None:
    """Return why a column can't be a feature, or None."""
    values = column.dropna()
    if values.empty:
        return "it has no value in any row"
    if values.str.fullmatch(DATE).mean() >= MIN_SHARE:
        return "dates: add columns of numbers instead, such as the year or an age"
    return None


def infer_feature(table: Table, name: str) -> Column:
    """Return the feature of a column; raise InvalidDataError if a cell or the name is invalid."""
    if name in LOG_COLUMNS:
        raise InvalidDataError(f"{name} is a name that the prediction log uses: rename the column")
    n_missing = int(table.frame[name].isna().sum())
    markers = tuple(sorted(table.missing_markers.get(name, set()) - {""}))
    return infer_column(table, name)._replace(n_missing=n_missing, missing_markers=markers)


def infer_column(table: Table, name: str) -> Column:
    """Return the kind and bounds of a column; raise InvalidDataError if a cell is invalid."""
    column = table.frame[name]
    values = column.dropna()
    if set(values.str.lower().unique()) <= {"true", "false"}:
        return Column(name, "boolean", "true or false")
    share = values.str.fullmatch(NUMBER.pattern).mean()
    if share < 1:
        check_string(table, name, values, share)
        return infer_string(name, values)
    if values.str.fullmatch(LEADING_ZERO).any():
        return infer_string(name, values, "leading zeros: a code, not a number; ")
    numbers = to_numbers(table, name)
    # pandas writes 110.0 for an integer if its column has missing values.
    has_missing = name in table.missing_markers
    if values.str.fullmatch(WHOLE if has_missing else INTEGER).all():
        return infer_integer(name, values, numbers)
    minimum, maximum, reason = number_bounds(name, numbers)
    return Column(name, "number", reason, minimum=minimum, maximum=maximum)


def to_numbers(table: Table, name: str) -> pd.Series:
    """Return the numbers of a column, without missing ones.

    Raise InvalidDataError if one is too large for a float.
    """
    numbers = table.frame[name].astype(float)
    if np.isinf(numbers).any():
        location = table.location(int(np.isinf(numbers).argmax()))
        raise InvalidDataError(f"{name} in {location} is greater than any float")
    return numbers.dropna()


def check_string(table: Table, name: str, values: pd.Series, share: float) -> None:
    """Raise InvalidDataError if nearly all strings are numbers.

    `share` is that of plain numbers, such as 1234.5; formatted ones, such as 1,234.50, are counted
    here.
    """
    if share >= MIN_SHARE:
        raise InvalidDataError(
            f"Most values of {name} are numbers, but not {first_non_number(table, name)}. Correct "
            "such values, leave the cells empty, or drop the column"
        )
    if values.str.fullmatch(FORMATTED).mean() >= MIN_SHARE:
        raise InvalidDataError(
            f"{name} has numbers with a decimal comma, a separator of thousands or a unit: "
            f"{first_non_number(table, name)}. Write 1234.5, or drop the column"
        )


def first_non_number(table: Table, name: str) -> str:
    """Return the first value that is not a number, and its location in the file."""
    column = table.frame[name].fillna("0")
    position = int((~column.str.fullmatch(NUMBER.pattern)).to_numpy().argmax())
    return f"{column.iloc[position][:40]!r} in {table.location(position)}"


def infer_string(name: str, values: pd.Series, reason: str = "") -> Column:
    """Return a category if the column has few values, otherwise a text."""
    distinct = sorted(values.unique())
    reason += f"{len(distinct):,} different values" if len(distinct) > 1 else "a single value"
    longest = int(values.str.len().max())
    repeats_enough = len(values) >= MIN_ROWS_PER_CATEGORY * len(distinct)
    if len(distinct) <= MAX_CATEGORIES and repeats_enough and longest <= MAX_CATEGORY_LENGTH:
        reason += "; others are rejected"
        return Column(name, "category", reason, values=tuple(distinct))
    max_length = next((length for length in TEXT_LENGTHS if length >= 2 * longest), 2 * longest)
    return Column(name, "text", reason, max_length=max_length)


def infer_integer(name: str, values: pd.Series, numbers: pd.Series) -> Column:
    """Return an integer, or a string if floats can't hold the values."""
    largest = numbers.abs().max()
    if largest >= MAX_INTEGER:
        return infer_string(name, values, "integers too large for exact floats; ")
    if set(numbers.unique()) == {0, 1}:
        return Column(name, "integer", "only 0 and 1: a flag", minimum=0, maximum=1)
    minimum, maximum, reason = number_bounds(name, numbers)
    bound = MAX_INTEGER if 10 * largest > DEFAULT_INTEGER_BOUND else DEFAULT_INTEGER_BOUND
    minimum = -bound if minimum is None else int(minimum)
    maximum = bound if maximum is None else int(maximum)
    reason = f"whole numbers, {reason}"
    return Column(name, "integer", reason, minimum=minimum, maximum=maximum)


def number_bounds(name: str, numbers: pd.Series) -> tuple[float | None, float | None, str]:
    """Return the least and greatest valid number, each None if there is none, and the reason."""
    low, high = numbers.min(), numbers.max()
    quantity = quantity_of(name)
    for bounds in KNOWN_BOUNDS:
        if quantity in bounds.words and bounds.minimum <= low and high <= bounds.maximum:
            return bounds.minimum, bounds.maximum, bounds.reason
    if low >= 0:
        return 0, None, "none is negative"
    return None, None, "some are negative"


def split_words(name: str) -> list[str]:
    """Return the words of a name such as `birth_year` or `BirthYear`, in lower case."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]


def quantity_of(name: str) -> str:
    """Return the word that says what a column measures, such as `year` for birth_year."""
    words = split_words(name) or [""]
    if "per" in words:
        return ""
    return words[0] if words[0] in SHARES else words[-1]
