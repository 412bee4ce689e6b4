"""The style of all plots."""

from typing import Any

from cycler import cycler

# Two colours of the Okabe-Ito palette: colour-blind readers can distinguish them, also in print.
BLUE, VERMILION = "#0072B2", "#D55E00"
STYLE: Any = {
    "axes.prop_cycle": cycler(color=[BLUE, VERMILION]),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "font.size": 11,
    "legend.frameon": False,
    "text.parse_math": False,  # a "$" in a name or a category does not start a formula
}
