"""Format the numbers and tables that commands print."""

import numpy as np
import pandas as pd

COUNTS = ("predictions", "outcomes")  # columns without decimals


def format_number(value: float, digits: int = 3) -> str:
    """Return a number rounded to `digits` significant digits, without an exponent."""
    return np.format_float_positional(value, digits, unique=False, fractional=False, trim="-")


def print_table(title: str, table: pd.DataFrame, number_format: str = "{:.3f}") -> None:
    """Print a table with a title; a dash stands for a missing value."""
    formatters = {name: "{:.0f}".format for name in COUNTS if name in table}
    text = table.to_string(float_format=number_format.format, formatters=formatters, na_rep="-")
    print(f"\n{title}:\n{text}")
