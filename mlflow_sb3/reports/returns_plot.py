"""Plot the returns of evaluated episodes."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from mlflow_sb3.reports.number_format import format_number
from mlflow_sb3.reports.plot_style import BLUE, ORANGE, apply_style, format_text

_MAX_BINS = 20
_SAME = 1e-9
"""Relative difference of returns that count as equal."""


def plot_returns(returns: NDArray[np.float64], title: str) -> Figure:
    """Plot a histogram of the returns, with their mean as a vertical line.

    If all returns are equal, a sentence says so instead.

    Args:
        returns: Returns of the episodes, shape ``(n,)`` with ``n >= 1``.
        title: Title of the figure.
    """
    with apply_style() as figure:
        axes = figure.subplots()
        axes.set_title(format_text(title))
        mean = float(returns.mean())
        sentence = describe_equal_returns(returns)
        if sentence is not None:
            _write_sentence(axes, sentence)
        else:
            _plot_histogram(axes, returns, mean)
    return figure


def describe_equal_returns(returns: NDArray[np.float64]) -> str | None:
    """Return a sentence if all returns are equal, and None otherwise.

    Args:
        returns: Returns of the episodes, shape ``(n,)`` with ``n >= 1``.
    """
    mean = float(returns.mean())
    if not np.allclose(returns, mean, rtol=_SAME, atol=0.0):
        return None
    episodes = "The episode has" if len(returns) == 1 else f"All {len(returns)} episodes have"
    return f"{episodes} a return of {format_number(mean)}."


def _write_sentence(axes: Axes, sentence: str) -> None:
    axes.set_axis_off()
    axes.text(0.5, 0.5, sentence, ha="center", va="center", fontsize=18, transform=axes.transAxes)


def _plot_histogram(axes: Axes, returns: NDArray[np.float64], mean: float) -> None:
    axes.hist(returns, bins=_choose_bins(returns).tolist(), color=BLUE, edgecolor="white")
    axes.axvline(mean, color=ORANGE, linestyle="--", label=f"mean {format_number(mean)}")
    axes.set(xlabel="return of an episode", ylabel="episodes")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()


def _choose_bins(returns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the edges of the bins. Few different integers get a bin each."""
    low, high = float(returns.min()), float(returns.max())
    is_integer = bool((returns == np.round(returns)).all())
    if is_integer and high - low < _MAX_BINS:
        return np.arange(low - 0.5, high + 1.0)
    return np.linspace(low, high, _MAX_BINS + 1)
