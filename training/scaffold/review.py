"""Find what the author of a new bundle should look at before the first training."""

from collections.abc import Iterator

import pandas as pd

from training.data import NUMBER
from training.scaffold.columns import MAX_CATEGORIES, Column, Columns, split_words

UNIQUE = 0.95  # share of different values from which on a column may identify the row
EQUAL_RANK = 0.99  # rank correlation from which on a feature may give the target away
MIN_ROWS = 20  # with a value: fewer say too little
MANY_GAPS = 0.5
SOME_NUMBERS = 0.05
DATE_AS_INTEGER = r"(19|20)\d{2}(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])"
ID_WORDS = {"id", "uuid", "key", "number", "no", "nr", "rownames"}


def review(columns: Columns) -> list[str]:
    """Return a line for each column that may be no feature, or is of little use as one."""
    target = columns.frame[columns.target].astype(float)
    return [
        f"{feature.name}: {remark}"
        for feature in columns.features
        for remark in remarks(feature, columns.frame[feature.name], target)
    ]


def remarks(feature: Column, column: pd.Series, target: pd.Series) -> Iterator[str]:
    """Yield what is remarkable about a feature."""
    values = column.dropna()
    if values.nunique() == 1 and not feature.n_gaps:
        yield f"has the same value in each row, {values.iloc[0]!r}: no model learns from it"
        return
    if looks_like_identifier(feature, values):
        yield "looks like an identifier, which tells nothing about other rows"
    if values.str.fullmatch(DATE_AS_INTEGER).all():
        yield "looks like dates, written as 20251231"
    if feature.n_gaps > MANY_GAPS * len(column):
        yield f"has gaps in {feature.n_gaps / len(column):.0%} of the rows"
    if feature.kind in ("number", "integer"):
        correlation = rank_correlation(values.astype(float), target)
        if abs(correlation) >= EQUAL_RANK:
            yield (
                f"ranks the rows as the target does (rank correlation {correlation:.3f}): "
                "is it known before the target is?"
            )
    if feature.kind == "category" and (single := once(values)):
        yield f"one row only for {', '.join(map(repr, single))}: too few to learn from"
    if feature.kind == "text" and values.str.fullmatch(NUMBER.pattern).mean() >= SOME_NUMBERS:
        share = values.str.fullmatch(NUMBER.pattern).mean()
        yield f"is a string, although {share:.0%} of its values are numbers"


def rank_correlation(values: pd.Series, target: pd.Series) -> float:
    """Return Spearman's correlation over the rows with values; 0 if these say too little."""
    target = target[values.index]
    is_enough = len(values) >= MIN_ROWS and target.nunique() > 1 and values.nunique() > 1
    return values.corr(target, method="spearman") if is_enough else 0.0


def looks_like_identifier(feature: Column, values: pd.Series) -> bool:
    """Tell whether a column is named like an identifier, or has a value of its own in each row."""
    if feature.kind not in ("text", "integer"):
        return False
    if set(split_words(feature.name)[-1:]) & ID_WORDS:
        return values.nunique() > MAX_CATEGORIES
    numbers = pd.to_numeric(values, errors="coerce")
    is_numbered = numbers.max() - numbers.min() == len(numbers) - 1
    is_unique = values.nunique() >= max(UNIQUE * len(values), MIN_ROWS)
    return is_unique and (feature.kind == "text" or is_numbered)


def once(values: pd.Series) -> list[str]:
    """Return the values that are in one row only."""
    counts = values.value_counts()
    return sorted(counts.index[counts == 1])
