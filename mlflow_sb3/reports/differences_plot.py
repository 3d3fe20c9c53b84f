"""Plot the difference of each pair of a gate, with the mean difference and its bounds."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from mlflow_sb3.reports.gate_plot import PairedReturns
from mlflow_sb3.reports.number_format import format_number
from mlflow_sb3.reports.plot_style import BLUE, GREY, ORANGE, apply_style

_BAND = "#b9bec4"


def plot_differences(paired: PairedReturns) -> Figure:
    """Plot the differences of the pairs in ascending order, as bars from zero.

    Lines and a band show the mean difference and its bounds after the last look of the gate.

    Args:
        paired: Returns of at least one pair, with ``is_paired``.
    """
    differences = compute_differences(paired)
    with apply_style(8.0, 5.0) as figure:
        axes = figure.subplots()
        _plot_bars(axes, differences)
        _plot_mean(axes, paired)
        axes.axhline(0.0, color=GREY, linewidth=0.8)
        axes.set(
            xlabel="pairs, sorted by difference",
            ylabel="challenger minus champion, return",
        )
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.margins(x=0.01, y=0.08)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, frameon=False)
    return figure


def compute_differences(paired: PairedReturns) -> NDArray[np.float64]:
    """Return challenger minus champion of each pair, shape ``(pairs,)``, in ascending order."""
    challenger = np.asarray(paired.challenger_returns, np.float64)
    return np.sort(challenger - np.asarray(paired.champion_returns, np.float64))


def _plot_bars(axes: Axes, differences: NDArray[np.float64]) -> None:
    edges = np.arange(len(differences) + 1)
    for sign, color, name in ((1, BLUE, "challenger better"), (-1, ORANGE, "champion better")):
        heights = np.where(sign * differences > 0, differences, 0.0)
        count = int(np.count_nonzero(heights))
        if count:
            label = f"{name}: {count}"
            axes.stairs(heights, edges, fill=True, color=color, alpha=0.75, label=label)


def _plot_mean(axes: Axes, paired: PairedReturns) -> None:
    last = paired.differences[-1]
    label = f"mean difference {format_number(last.mean)}"
    axes.axhline(last.mean, color="black", linewidth=1.6, zorder=4, label=label)
    if last.lower is not None and last.upper is not None:
        label = f"its bounds: {format_number(last.lower)} to {format_number(last.upper)}"
        axes.axhspan(
            last.lower, last.upper, color=_BAND, alpha=0.7, linewidth=0, zorder=3, label=label
        )
    least = paired.min_improvement
    if least:
        label = f"min_improvement: {format_number(least)}"
        axes.axhline(least, color=GREY, linestyle="--", linewidth=1, label=label)
