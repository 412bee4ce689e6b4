"""Find columns that the author of a new bundle should check before the first training."""

from collections.abc import Iterator

import pandas as pd

from training.data import NUMBER
from training.scaffold.columns import MAX_CATEGORIES, Column, InferredTable, split_words

MIN_UNIQUE_SHARE = 0.95  # with at least this share of different values, a column may identify rows
LEAK_CORRELATION = 0.99  # with at least this rank correlation, a feature may leak the target
MIN_VALUES = 20  # fewer are too few for either
MANY_MISSING = 0.5  # share of the rows
MIN_NUMERIC_SHARE = 0.05  # a text with at least this share of numbers is suspicious
DATE_AS_INTEGER = r"(19|20)\d{2}(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])"
ID_WORDS = {"id", "uuid", "key", "number", "no", "nr", "rownames"}


def review(table: InferredTable) -> list[str]:
    """Return a line for each remark on a column that may be a bad feature."""
    target = table.frame[table.target].astype(float)
    return [
        f"{feature.name}: {remark}"
        for feature in table.features
        for remark in find_remarks(feature, table.frame[feature.name], target)
    ]


def find_remarks(feature: Column, column: pd.Series, target: pd.Series) -> Iterator[str]:
    """Yield each reason why a column may be a bad feature."""
    values = column.dropna()
    if values.nunique() == 1 and not feature.n_missing:
        yield f"has the same value in each row, {values.iloc[0]!r}: no model can learn from it"
        return
    if looks_like_identifier(feature, values):
        yield "looks like an identifier, which says nothing about other rows"
    if values.str.fullmatch(DATE_AS_INTEGER).all():
        yield "looks like dates, written as 20251231"
    if feature.n_missing > MANY_MISSING * len(column):
        yield f"is missing in {feature.n_missing / len(column):.0%} of the rows"
    if feature.kind in ("number", "integer"):
        correlation = rank_correlation(values.astype(float), target)
        if abs(correlation) >= LEAK_CORRELATION:
            yield (
                f"may leak the target (rank correlation {correlation:.3f}): is it known when a "
                "prediction is needed?"
            )
    if feature.kind == "category" and (rare := values_in_one_row(values)):
        yield f"only one row has {', '.join(map(repr, rare))}: too few to learn from"
    numeric_share = values.str.fullmatch(NUMBER.pattern).mean()
    if feature.kind == "text" and numeric_share >= MIN_NUMERIC_SHARE:
        yield f"is a string, although {numeric_share:.0%} of its values are numbers"


def rank_correlation(values: pd.Series, target: pd.Series) -> float:
    """Return Spearman's correlation over the rows with values; 0 if these are too few or equal."""
    target = target[values.index]
    is_enough = len(values) >= MIN_VALUES and target.nunique() > 1 and values.nunique() > 1
    return values.corr(target, method="spearman") if is_enough else 0.0


def looks_like_identifier(feature: Column, values: pd.Series) -> bool:
    """Return whether a column is named like an identifier, or has nearly only different values."""
    if feature.kind not in ("text", "integer"):
        return False
    if set(split_words(feature.name)[-1:]) & ID_WORDS:
        return values.nunique() > MAX_CATEGORIES
    numbers = pd.to_numeric(values, errors="coerce")
    is_numbered = numbers.max() - numbers.min() == len(numbers) - 1
    is_unique = values.nunique() >= max(MIN_UNIQUE_SHARE * len(values), MIN_VALUES)
    return is_unique and (feature.kind == "text" or is_numbered)


def values_in_one_row(values: pd.Series) -> list[str]:
    """Return the values that occur in one row only."""
    counts = values.value_counts()
    return sorted(counts.index[counts == 1])
