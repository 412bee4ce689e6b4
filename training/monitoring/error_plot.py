"""The picture of the evaluate command: the error over time, in the worst segments, and by value."""

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from training.monitoring.served_error import WORSE, Errors
from training.plotting import BLUE, STYLE, VERMILION

MAX_TICKS = 8
BINS = 60
OTHER = "#888888"
MAX_NAME = 45  # characters of a segment


def draw_periods(axes: Axes, over_time: pd.DataFrame, trained_rmse: float, unit: str) -> None:
    """Draw the RMSE over time, with its intervals, and that of training."""
    positions = np.arange(len(over_time))
    ends = over_time["low"], over_time["high"]
    axes.fill_between(positions, *ends, color=VERMILION, alpha=0.2, lw=0)
    axes.plot(
        positions, over_time["RMSE"], color=VERMILION, marker="o", ms=4, label="Log, 95 % interval"
    )
    axes.axhline(trained_rmse, color=BLUE, ls="--", label="Training, cross-validated")
    step = -(-len(over_time) // MAX_TICKS)
    axes.set_xticks(positions[::step], over_time.index[::step], rotation=30, ha="right")
    axes.set(title="Over time", ylabel=f"RMSE, {unit}", ylim=(0, None))
    axes.legend(loc="lower left")


def draw_segments(axes: Axes, segments: pd.DataFrame) -> None:
    """Draw the ratio of the MAE to that of training, with its interval, the worst on top."""
    positions = -np.arange(len(segments))
    colours = np.where(segments["low"] > WORSE, VERMILION, OTHER)
    axes.hlines(positions, segments["low"], segments["high"], color=colours, lw=2)
    axes.scatter(segments["ratio"], positions, color=colours, zorder=3)
    axes.axvline(1, color=BLUE, ls="--")
    axes.axvline(WORSE, color=VERMILION, ls=":")
    axes.set_xlim(min(0.9, segments["low"].min() - 0.05), None)
    axes.set_yticks(positions, [name[:MAX_NAME] for name in segments.index])
    axes.set(
        title=f"Worst segments (orange: surely above {WORSE})",
        xlabel="Mean absolute error, times that of training",
    )
    axes.grid(visible=False, axis="y")


def draw_values(axes: Axes, served: Errors, unit: str) -> None:
    """Draw how often each prediction comes with each outcome."""
    ends = np.quantile(np.concatenate([served.actual, served.predicted]), [0.001, 0.999])
    low, high = ends + np.array([-0.05, 0.05]) * np.ptp(ends)
    edges = np.linspace(low, high, BINS + 1)
    counts, *_ = np.histogram2d(served.actual, served.predicted, (edges, edges))
    shown = np.ma.masked_equal(counts, 0)
    mesh = axes.pcolormesh(edges, edges, shown, norm=LogNorm(0.3), cmap="Blues")
    axes.figure.colorbar(mesh, ax=axes, label="Records")
    axes.axline((low, low), slope=1, color="#444444", lw=1)
    axes.set(title="Predicted and actual", aspect="equal")
    axes.set(xlabel=f"Predicted, {unit}", ylabel=f"Actual, {unit}")


@mpl.rc_context(STYLE)
def draw(
    title: str,
    over_time: pd.DataFrame,
    segments: pd.DataFrame,
    errors: tuple[Errors, Errors],
    unit: str,
) -> Figure:
    """Draw the error of a model in a log beside that of its training."""
    served, trained = errors
    figure = Figure(figsize=(17, 5.2), layout="constrained")
    periods, worst, values = figure.subplots(1, 3, width_ratios=[1, 1.1, 0.9])
    figure.suptitle(title, fontweight="bold")
    draw_periods(periods, over_time, trained.scores()[0], unit)
    draw_segments(worst, segments)
    draw_values(values, served, unit)
    return figure
