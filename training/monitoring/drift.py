"""The drift command: compare a prediction log with the data that the model was trained on."""

from pathlib import Path
from typing import NamedTuple

import bentoml
import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from pandas.api.types import is_bool_dtype, is_numeric_dtype
from pydantic import BaseModel
from scipy.stats import entropy, fisher_exact, ks_2samp

from serving.features import feature_schemas
from serving.model import ModelReference, training_metadata
from serving.regressor import Regressor
from training.data import load_data_of_model, to_rows
from training.errors import InvalidLogError
from training.monitoring.prediction_log import read_predictions
from training.plotting import BLUE, STYLE, VERMILION
from training.project import Project

BINS = 10
# The usual terms for the population stability index (PSI), and where each begins: N. Siddiqi,
# Credit Risk Scorecards (2006).
VERDICTS = {"stable": 0.0, "shifted": 0.1, "drifted": 0.25}
TOO_FEW = "too few"
# The PSI of rows that did not drift is about (1 / n_training + 1 / n_log) times a chi-square of
# BINS - 1 degrees of freedom: B. Yurdakul, Statistical Properties of Population Stability Index
# (2018). With 455 training rows, the PSI of 500 such rows is above 0.1 in 0.5 % of cases, that of
# 200 in 13 %.
MIN_LOG_ROWS = 500
# The share of missing values has drifted if it has doubled or halved, and not by chance.
MISSING_RATIO = 2
MAX_MISSING_P = 0.01
PANELS_PER_ROW = 5
BARS = 20  # per panel


class Measures(NamedTuple):
    """How much a column differs between the training data and the log."""

    n: int  # rows of the log that have a value; for missing values, all rows
    PSI: float = np.nan
    KS: float = np.nan  # the Kolmogorov-Smirnov statistic, or the difference of two shares
    p: float = np.nan


def read_log(
    folder: Path, tag: str, record_type: type[BaseModel]
) -> tuple[pd.DataFrame, list[str]]:
    """Return the valid records of one model with their predictions, and counts of the other rows.

    `LoggedPredictions` says which are valid. Raise InvalidLogError or OSError.
    """
    predictions = read_predictions(folder, feature_schemas(record_type))
    tags = predictions.common["model_tag"]
    of_others = format_counts(tags[tags != tag], "of")
    of_model = predictions.select(tags == tag)
    if of_model.common.empty:
        raise InvalidLogError(
            f"The log in {folder} has no rows of the newest model, {tag}, only {of_others}; "
            "restart the service for the newest"
        )
    invalid = format_counts(of_model.invalid_feature[~of_model.is_valid], "without a valid")
    valid = of_model.select(of_model.is_valid)
    if valid.common.empty:
        raise InvalidLogError(f"The log in {folder} has no valid records of {tag}, only {invalid}")
    rows = valid.features.assign(prediction=valid.common["prediction"])
    return rows, [counts for counts in (of_others, invalid) if counts]


def format_counts(names: pd.Series, relation: str) -> str:
    """Return how often each name occurs, such as "3 of a, 2 of b"."""
    return ", ".join(f"{n} {relation} {name}" for name, n in names.value_counts().items())


def read_training(project: Project, model: bentoml.Model, data_path: Path) -> pd.DataFrame:
    """Return the rows on which a model was fitted (the training part), with its predictions.

    Raise InvalidDataError.
    """
    training = training_metadata(model)
    X_train = load_data_of_model(data_path, project.labelled_type, training).X_train
    rows = to_rows(X_train, project.record_type)
    return X_train.assign(prediction=Regressor(model).predict(rows))


def convert_types(log: pd.DataFrame, training: pd.DataFrame) -> pd.DataFrame:
    """Return the log with numbers in the columns that are numbers in the training data.

    The column of a boolean with missing values is one of them.
    """
    return log.astype(dict.fromkeys(training.select_dtypes("number").columns, float))


def stability_index(training: pd.Series, log: pd.Series) -> float:
    """Return the PSI: the sum of the relative entropies of each distribution to the other.

    The bins of a number end at the deciles of the training data. A category, a boolean or a number
    with fewer than BINS distinct values has a bin for each frequent value, and one for the others.
    """
    if is_number(training) and training.nunique() >= BINS:
        # Each bin includes its upper edge. If the maximum is so frequent that it is an edge, move
        # that edge just below: the maximum gets a bin of its own. Equal edges become one.
        below_maximum = np.nextafter(training.max(), -np.inf)
        quantiles = training.quantile(np.arange(1, BINS) / BINS)
        edges = np.unique(quantiles.clip(upper=below_maximum))
        bins = [np.searchsorted(edges, column) for column in (training, log)]
    else:
        values = training.value_counts().index[: BINS - 1]  # any other is in bin 0
        bins = [values.get_indexer(column) + 1 for column in (training, log)]
    counts = np.array([np.bincount(each, minlength=BINS) for each in bins])
    return divergence(counts[:, counts.any(axis=0)])


def divergence(counts: np.ndarray) -> float:
    """Return the PSI of the counts (2, n_bins) in the training data and in the log."""
    # A bin that is empty in one of them would make the index infinite. Half a row more in each bin
    # keeps it finite, and weighs less the more rows there are.
    expected, actual = counts + 0.5
    return entropy(expected, actual) + entropy(actual, expected)


def is_number(column: pd.Series) -> bool:
    """Return whether a column holds numbers, as opposed to categories or booleans."""
    return is_numeric_dtype(column) and not is_bool_dtype(column)


def measure_values(training: pd.Series, log: pd.Series) -> Measures:
    """Measure the difference of the values of a column, without the missing ones."""
    training, log = training.dropna(), log.dropna()
    if len(log) < MIN_LOG_ROWS:
        return Measures(len(log))
    psi = stability_index(training, log)
    if not is_number(training):
        return Measures(len(log), psi)
    test = ks_2samp(training, log, method="asymp")  # the exact test of a long log takes long
    return Measures(len(log), psi, test.statistic, test.pvalue)


def measure_missing(training: pd.Series, log: pd.Series) -> Measures:
    """Measure the difference of the shares of missing values, with Fisher's exact test."""
    if len(log) < MIN_LOG_ROWS:
        return Measures(len(log))
    counts = np.array([(each.isna().sum(), each.notna().sum()) for each in (training, log)])
    difference = abs(log.isna().mean() - training.isna().mean())
    return Measures(len(log), divergence(counts), difference, fisher_exact(counts).pvalue)


def compare(training: pd.DataFrame, log: pd.DataFrame) -> pd.DataFrame:
    """Return the Measures and the verdict of each column, and of its missing values if any."""
    has_missing = training.isna().any() | log.isna().any()
    with_missing = [name for name in training if has_missing[name]]
    measures = {name: measure_values(training[name], log[name]) for name in training}
    measures |= {
        missing_label(name): measure_missing(training[name], log[name]) for name in with_missing
    }
    table = pd.DataFrame.from_dict(measures, orient="index", columns=Measures._fields)
    # Bonferroni: of many tests one has a small p by chance.
    table["p"] = (table["p"] * table["p"].count()).clip(upper=1)
    verdicts = {name: value_verdict(table["PSI"][name]) for name in training}
    for name in with_missing:
        label = missing_label(name)
        verdicts[label] = missing_verdict(training[name], log[name], table["p"][label])
    return table.assign(verdict=verdicts)


def missing_label(name: str) -> str:
    """Return the label of the table's row for the missing values of a feature."""
    return f"{name}, missing"


def value_verdict(psi: float) -> str:
    """Return the verdict on the values of a column."""
    if np.isnan(psi):
        return TOO_FEW
    return [verdict for verdict, lowest in VERDICTS.items() if psi >= lowest][-1]


def missing_verdict(training: pd.Series, log: pd.Series, p: float) -> str:
    """Return the verdict on missing values.

    It does not use the PSI: if few values are missing, that stays small even if they double.
    """
    if np.isnan(p):
        return TOO_FEW
    if p > MAX_MISSING_P:
        return "stable"
    low, high = sorted([training.isna().mean(), log.isna().mean()])
    return "drifted" if high >= MISSING_RATIO * low else "shifted"


def plot_column(axes: Axes, training: pd.Series, log: pd.Series) -> None:
    """Plot the share of the rows by value, or by category."""
    if is_number(training):
        # The outermost bars include outliers; a longer axis would squeeze all other bars.
        low = min(training.min(), log.quantile(0.01))
        high = max(training.max(), log.quantile(0.99))
        edges = np.histogram_bin_edges([low, high], BARS)
        counts = [np.histogram(each.clip(low, high), edges)[0] for each in (training, log)]
    else:
        names = pd.concat([training, log]).value_counts().index[:BINS]
        edges = np.arange(len(names) + 1) - 0.5
        counts = [each.value_counts().reindex(names, fill_value=0) for each in (training, log)]
        axes.set_xticks(range(len(names)), names.astype(str), rotation=30, ha="right")
    of_training, of_log = (count / max(count.sum(), 1) for count in counts)
    axes.stairs(of_training, edges, fill=True, color=BLUE, alpha=0.5, label="Training")
    axes.stairs(of_log, edges, color=VERMILION, linewidth=1.8, label="Log")
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))


@mpl.rc_context(STYLE)
def plot_columns(training: pd.DataFrame, log: pd.DataFrame, verdicts: pd.Series) -> Figure:
    """Plot the distribution of each column in the training data and in the log."""
    n_rows = -(-len(verdicts) // PANELS_PER_ROW)
    figure = Figure(figsize=(3 * PANELS_PER_ROW, 2.3 * n_rows + 0.5), layout="constrained")
    panels = figure.subplots(n_rows, PANELS_PER_ROW, squeeze=False).ravel()
    for (name, verdict), axes in zip(verdicts.items(), panels, strict=False):
        plot_column(axes, training[name].dropna(), log[name].dropna())
        weight = "bold" if verdict == "drifted" else "normal"
        axes.set_title(f"{name}: {verdict}", fontsize="medium", fontweight=weight)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    for axes in panels[len(verdicts) :]:
        axes.set_axis_off()
    return figure


def compare_log(
    project: Project, name: str, data_path: Path, log_folder: Path, plot_path: Path
) -> bool:
    """Compare a prediction log with the training data of the newest model of a name.

    Print a table, write a plot, and return whether a column has drifted. Raise TrainingError,
    BentoMLException or OSError.
    """
    model = ModelReference(f"{name}:latest", project.record_type).resolve()
    training = read_training(project, model, data_path)
    log, excluded = read_log(log_folder, str(model.tag), project.record_type)
    log = convert_types(log, training)
    table = compare(training, log)
    figure = plot_columns(training, log, table["verdict"][list(training)])
    figure.savefig(plot_path, format="png", dpi=100)
    print(f"{len(log)} rows of {model.tag} against the {len(training)} rows of its training part")
    for counts in excluded:
        print(f"Excluded: {counts}")
    formats = {"p": "{:.2g}".format}
    print(table.to_string(float_format="{:.3f}".format, formatters=formats, na_rep="-"))
    print(f"Wrote {plot_path}")
    return "drifted" in table["verdict"].to_numpy()
