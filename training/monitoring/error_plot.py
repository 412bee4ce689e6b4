"""The plot of the evaluate command: the error over time, in the worst segments, and by value."""

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from training.monitoring.served_error import MAX_ERROR_RATIO, EvaluatedRecords
from training.plotting import BLUE, STYLE, VERMILION

MAX_TICKS = 8
HISTOGRAM_BINS = 60
GREY = "#888888"
MAX_NAME = 45  # characters of a segment's name


def plot_periods(axes: Axes, scores: pd.DataFrame, cross_validated_rmse: float, unit: str) -> None:
    """Plot the RMSE of each period, with its interval, and that of training."""
    positions = np.arange(len(scores))
    ends = scores["low"], scores["high"]
    axes.fill_between(positions, *ends, color=VERMILION, alpha=0.2, lw=0)
    axes.plot(
        positions, scores["RMSE"], color=VERMILION, marker="o", ms=4, label="Log, 95 % interval"
    )
    axes.axhline(cross_validated_rmse, color=BLUE, ls="--", label="Training, cross-validated")
    step = -(-len(scores) // MAX_TICKS)
    axes.set_xticks(positions[::step], scores.index[::step], rotation=30, ha="right")
    axes.set(title="Over time", ylabel=f"RMSE, {unit}", ylim=(0, None))
    axes.legend(loc="lower left")


def plot_segments(axes: Axes, segments: pd.DataFrame) -> None:
    """Plot the ratio of each MAE to that of training, with its interval, the first row on top."""
    positions = -np.arange(len(segments))
    colours = np.where(segments["is_worse"], VERMILION, GREY)
    axes.hlines(positions, segments["low"], segments["high"], color=colours, lw=2)
    axes.scatter(segments["ratio"], positions, color=colours, zorder=3)
    axes.axvline(1, color=BLUE, ls="--")
    axes.axvline(MAX_ERROR_RATIO, color=VERMILION, ls=":")
    axes.set_xlim(min(0.9, segments["low"].min() - 0.05), None)
    axes.set_yticks(positions, [name[:MAX_NAME] for name in segments.index])
    axes.set(
        title=f"Worst segments (orange: interval above {MAX_ERROR_RATIO})",
        xlabel="Mean absolute error, times that of training",
    )
    axes.grid(visible=False, axis="y")


def plot_predictions(axes: Axes, served: EvaluatedRecords, unit: str) -> None:
    """Plot the number of records by prediction and outcome."""
    ends = np.quantile(np.concatenate([served.y_true, served.y_pred]), [0.001, 0.999])
    low, high = ends + np.array([-0.05, 0.05]) * np.ptp(ends)
    edges = np.linspace(low, high, HISTOGRAM_BINS + 1)
    counts, *_ = np.histogram2d(served.y_true, served.y_pred, (edges, edges))
    shown = np.ma.masked_equal(counts, 0)
    mesh = axes.pcolormesh(edges, edges, shown, norm=LogNorm(0.3), cmap="Blues")
    axes.figure.colorbar(mesh, ax=axes, label="Records")
    axes.axline((low, low), slope=1, color="#444444", lw=1)
    axes.set(title="Predictions and outcomes", aspect="equal")
    axes.set(xlabel=f"Predicted, {unit}", ylabel=f"Outcome, {unit}")


@mpl.rc_context(STYLE)
def plot_errors(
    title: str,
    periods: pd.DataFrame,
    segments: pd.DataFrame,
    served: EvaluatedRecords,
    cross_validated: EvaluatedRecords,
    unit: str,
) -> Figure:
    """Plot the error of a model in a log, compared with that of training."""
    figure = Figure(figsize=(17, 5.2), layout="constrained")
    period_axes, segment_axes, prediction_axes = figure.subplots(1, 3, width_ratios=[1, 1.1, 0.9])
    figure.suptitle(title, fontweight="bold")
    plot_periods(period_axes, periods, cross_validated.scores()["RMSE"], unit)
    plot_segments(segment_axes, segments)
    plot_predictions(prediction_axes, served, unit)
    return figure
