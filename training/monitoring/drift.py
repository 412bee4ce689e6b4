"""The drift command: compare a prediction log with the data that the model was trained on."""

from collections import Counter
from pathlib import Path
from typing import Any

import bentoml
import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from pandas.api.types import is_bool_dtype, is_numeric_dtype
from scipy.stats import entropy, fisher_exact, ks_2samp

from serving.model import ModelReference, training_metadata
from serving.regressor import Regressor
from training.data import read_training_csv, to_rows
from training.errors import InvalidLogError
from training.monitoring.prediction_log import read_chunks
from training.plotting import BLUE, STYLE, VERMILION
from training.project import Project

EXIT_DRIFTED = 3  # Python exits with 1 on an error, argparse with 2
BINS = 10
# The usual terms for the population stability index: N. Siddiqi, Credit Risk Scorecards (2006).
VERDICTS = {"stable": 0.0, "shifted": 0.1, "drifted": 0.25}
# The index of rows that did not drift is about (1 / n_training + 1 / n_log) times a chi-square of
# BINS - 1 degrees of freedom: B. Yurdakul, Statistical Properties of Population Stability Index
# (2018). Beside 455 rows of training, 500 reach 0.1 by chance in 0.5 % of all cases, 200 in 13 %.
MIN_ROWS = 500
# The share of gaps has drifted if it has doubled or halved, and not by chance.
GAP_RATIO, MAX_GAP_P = 2, 0.01
PANELS_PER_ROW = 5
BARS = 20  # per panel


def read_log(folder: Path, tag: str, columns: list[str]) -> tuple[pd.DataFrame, Counter[str]]:
    """Return the rows of one model, and the number of rows of each.

    Raise InvalidLogError or OSError.
    """
    rows: list[list[Any]] = []
    tags: Counter[str] = Counter()
    # `pandas.read_json` does not say which line is damaged, and turns text into numbers.
    for chunk in read_chunks(folder):
        tags.update(entry["model_tag"] for entry in chunk.entries)
        for n, entry in enumerate(chunk.entries):
            try:
                if entry["model_tag"] == tag:
                    rows.append([entry[name] for name in columns])
            except LookupError:
                raise InvalidLogError(f"{chunk.place(n)} is damaged: remove it") from None
    if not rows:
        others = f", only {format_counts(tags)}; restart the service for the newest" if tags else ""
        raise InvalidLogError(f"The log in {folder} has no rows of the newest model, {tag}{others}")
    return pd.DataFrame(rows, columns=columns), tags


def format_counts(tags: Counter[str]) -> str:
    """Return the number of rows of each model, as text."""
    return ", ".join(f"{count} of {tag}" for tag, count in tags.most_common())


def read_training(project: Project, model: bentoml.Model, data_path: Path) -> pd.DataFrame:
    """Return the rows that fitted a model, with its predictions; raise InvalidDataError."""
    training = training_metadata(model)
    X_train = read_training_csv(data_path, project.labelled_type, training).X_train
    rows = to_rows(X_train, project.record_type)
    return X_train.assign(prediction=Regressor(model).predict(rows))


def convert_types(log: pd.DataFrame, training: pd.DataFrame) -> pd.DataFrame:
    """Return the log with the column types of the training; raise InvalidLogError."""
    numbers = training.select_dtypes("number").columns
    try:
        return log.astype(dict.fromkeys(numbers, float))
    except (ValueError, TypeError) as error:
        raise InvalidLogError(f"The log has values that are no numbers: {error}") from None


def stability_index(training: pd.Series, log: pd.Series) -> float:
    """Return the population stability index, over deciles of the training or its categories.

    It is the sum of the relative entropies of each distribution to the other.
    """
    if is_number(training) and training.nunique() >= BINS:
        # Quantiles coincide where many values are the same. An edge belongs to the bin below it:
        # one at the highest value would leave no bin to tell that value from the others.
        below_highest = np.nextafter(training.max(), -np.inf)
        quantiles = training.quantile(np.arange(1, BINS) / BINS)
        edges = np.unique(quantiles.clip(upper=below_highest))
        bins = [np.searchsorted(edges, part) for part in (training, log)]
    else:
        categories = training.value_counts().index[: BINS - 1]  # any other is in bin 0
        bins = [categories.get_indexer(part) + 1 for part in (training, log)]
    counts = np.array([np.bincount(part, minlength=BINS) for part in bins])
    # A bin that is empty in one part would make the index infinite. Half a row more in each keeps
    # it finite, and weighs less the more rows there are.
    expected, actual = counts[:, counts.any(axis=0)] + 0.5
    return entropy(expected, actual) + entropy(actual, expected)


def is_number(column: pd.Series) -> bool:
    """Tell whether a column holds numbers, as opposed to categories or booleans."""
    return is_numeric_dtype(column) and not is_bool_dtype(column)


def measure(training: pd.Series, log: pd.Series) -> tuple[int, float, float, float]:
    """Return the rows of the log, the stability index, and the Kolmogorov-Smirnov test."""
    if len(log) < MIN_ROWS:
        return len(log), np.nan, np.nan, np.nan
    psi = stability_index(training, log)
    if not is_number(training):
        return len(log), psi, np.nan, np.nan
    test = ks_2samp(training, log, method="asymp")  # the exact one takes long for a long log
    return len(log), psi, test.statistic, test.pvalue


def measure_gaps(training: pd.Series, log: pd.Series) -> tuple[int, float, float, float]:
    """Return, of the shares of gaps, what `measure` does; the test is Fisher's exact one."""
    if len(log) < MIN_ROWS:
        return len(log), np.nan, np.nan, np.nan
    counts = np.array([(part.isna().sum(), part.notna().sum()) for part in (training, log)])
    expected, actual = counts + 0.5  # as in `stability_index`
    psi = entropy(expected, actual) + entropy(actual, expected)
    return len(log), psi, abs(np.subtract(*gap_shares(training, log))), fisher_exact(counts).pvalue


def gap_shares(training: pd.Series, log: pd.Series) -> tuple[float, float]:
    """Return the share of gaps in the training and in the log."""
    return training.isna().mean(), log.isna().mean()


def gap_verdict(shares: tuple[float, float], p: float) -> str:
    """Return the verdict on shares of gaps: their index is small where gaps are rare."""
    if np.isnan(p):
        return "too few"
    if p > MAX_GAP_P:
        return "stable"
    return "drifted" if max(shares) >= GAP_RATIO * min(shares) else "shifted"


def compare(training: pd.DataFrame, log: pd.DataFrame) -> pd.DataFrame:
    """Return the measures of each column and of its gaps, and the verdict."""
    measures = {name: measure(training[name].dropna(), log[name].dropna()) for name in training}
    with_gaps = [name for name in training if any(gap_shares(training[name], log[name]))]
    measures |= {gaps_of(name): measure_gaps(training[name], log[name]) for name in with_gaps}
    table = pd.DataFrame.from_dict(measures, orient="index", columns=["n", "PSI", "KS", "p"])
    # Bonferroni: of many tests one has a small p by chance.
    table["p"] = (table["p"] * table["p"].count()).clip(upper=1)
    verdicts = pd.cut(table["PSI"], [*VERDICTS.values(), np.inf], right=False, labels=[*VERDICTS])
    table["verdict"] = verdicts.astype(object).fillna("too few")
    for name in with_gaps:
        row = gaps_of(name)
        shares = gap_shares(training[name], log[name])
        table.loc[row, "verdict"] = gap_verdict(shares, table.loc[row, "p"])
    return table


def gaps_of(name: str) -> str:
    """Return the name of the table's row for the gaps of a feature."""
    return f"{name}, gaps"


def draw_column(axes: Axes, training: pd.Series, log: pd.Series) -> None:
    """Draw the share of the rows by value, or by category."""
    if is_number(training):
        # Outliers are drawn in the outermost bar; a longer axis would squeeze all others.
        low = min(training.min(), log.quantile(0.01))
        high = max(training.max(), log.quantile(0.99))
        edges = np.histogram_bin_edges([low, high], BARS)
        counts = [np.histogram(part.clip(low, high), edges)[0] for part in (training, log)]
    else:
        names = pd.concat([training, log]).value_counts().index[:BINS]
        edges = np.arange(len(names) + 1) - 0.5
        counts = [part.value_counts().reindex(names, fill_value=0) for part in (training, log)]
        axes.set_xticks(range(len(names)), names.astype(str), rotation=30, ha="right")
    of_training, of_log = (count / max(count.sum(), 1) for count in counts)
    axes.stairs(of_training, edges, fill=True, color=BLUE, alpha=0.5, label="Training")
    axes.stairs(of_log, edges, color=VERMILION, linewidth=1.8, label="Log")
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))


@mpl.rc_context(STYLE)
def draw(training: pd.DataFrame, log: pd.DataFrame, verdicts: pd.Series) -> Figure:
    """Draw the distribution of each column in the training and in the log."""
    n_rows = -(-len(verdicts) // PANELS_PER_ROW)
    figure = Figure(figsize=(3 * PANELS_PER_ROW, 2.3 * n_rows + 0.5), layout="constrained")
    panels = figure.subplots(n_rows, PANELS_PER_ROW, squeeze=False).flat
    for (name, verdict), axes in zip(verdicts.items(), panels, strict=False):
        draw_column(axes, training[name].dropna(), log[name].dropna())
        weight = "bold" if verdict == "drifted" else "normal"
        axes.set_title(f"{name}: {verdict}", fontsize="medium", fontweight=weight)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    for axes in panels:
        axes.set_axis_off()
    return figure


def compare_log(
    project: Project, name: str, data_path: Path, log_folder: Path, picture: Path
) -> bool:
    """Compare a prediction log with the training data of the newest model of a name.

    Print a table, draw a picture, and tell whether a column has drifted. Raise TrainingError,
    BentoMLException or OSError.
    """
    model = ModelReference(f"{name}:latest", project.record_type).resolve()
    training = read_training(project, model, data_path)
    log, tags = read_log(log_folder, str(model.tag), list(training))
    log = convert_types(log, training)
    table = compare(training, log)
    draw(training, log, table["verdict"][list(training)]).savefig(picture, format="png", dpi=100)
    print(f"{len(log)} rows of {model.tag} against {len(training)} of its training")
    if others := tags - Counter({str(model.tag): len(log)}):
        print(f"Left out: {format_counts(others)}")
    formats = {"p": "{:.2g}".format}
    print(table.to_string(float_format="{:.3f}".format, formatters=formats, na_rep="-"))
    print(f"Wrote {picture}")
    return "drifted" in table["verdict"].to_numpy()
