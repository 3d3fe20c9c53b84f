"""Plot the returns of evaluated episodes and of paired comparisons."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mlflow_sb3.envs.rollout import Episodes
from mlflow_sb3.reports.number_format import format_number

BLUE, GREY = "#0194e2", "#43494f"


@dataclass(frozen=True)
class MeanDifference:
    """Mean difference of the first ``pairs`` pairs, with its bounds. An infinite bound is None."""

    pairs: int
    mean: float
    lower: float | None
    upper: float | None


@dataclass(frozen=True)
class PairedReturns:
    """Returns of two agents on the same seeds, and the mean difference at each look of the gate.

    Attributes:
        title: Title of the figure.
        challenger: Name of the first agent.
        champion: Name of the second agent.
        challenger_returns: Returns of the challenger, one per pair.
        champion_returns: Returns of the champion, one per pair.
        challenger_mean: Mean return of the challenger.
        champion_mean: Mean return of the champion.
        differences: Mean differences, challenger minus champion, one per look. The last one is the
            mean over all pairs.
        min_improvement: Mean difference that the challenger must exceed.
        is_paired: Whether the returns at the same position belong to the same seed.
    """

    title: str
    challenger: str
    champion: str
    challenger_returns: Sequence[float]
    champion_returns: Sequence[float]
    challenger_mean: float
    champion_mean: float
    differences: Sequence[MeanDifference]
    min_improvement: float
    is_paired: bool = True


def plot_returns(episodes: Episodes, title: str) -> Figure:
    """Plot a histogram of the returns, with their mean as a vertical line."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.hist(episodes.returns, bins=20, color=BLUE, edgecolor="white")
    mean = float(episodes.returns.mean())
    axes.axvline(mean, color=GREY, linestyle="--", label=f"mean {mean:.2f}")
    axes.set(title=title, xlabel="return of an episode", ylabel="episodes")
    axes.legend()
    return figure


def plot_pairs(paired: PairedReturns) -> Figure:
    """Plot the returns of each pair, and the bounds of the mean difference after each look.

    Returns:
        A figure with two axes: a scatter plot of the pairs, and the mean differences. Without
        pairs, the scatter plot shows the quantiles of both agents.
    """
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    pairs_axes, differences_axes = figure.subplots(1, 2)
    _plot_scatter(pairs_axes, paired)
    _plot_differences(differences_axes, paired)
    figure.suptitle(paired.title)
    return figure


def _plot_scatter(axes: Axes, paired: PairedReturns) -> None:
    """Plot one point per distinct pair of returns, larger if more pairs have these returns."""
    champion_returns, challenger_returns = paired.champion_returns, paired.challenger_returns
    title = f"{len(challenger_returns)} pairs of episodes"
    if not paired.is_paired:
        champion_returns, challenger_returns = sorted(champion_returns), sorted(challenger_returns)
        title = f"quantiles of {len(challenger_returns)} episodes each"
    points = Counter(zip(champion_returns, challenger_returns, strict=True))
    x, y = zip(*points, strict=True)
    sizes = [24 * math.sqrt(count) for count in points.values()]
    axes.scatter(x, y, s=sizes, color=BLUE, alpha=0.5, edgecolors="white", linewidths=0.5)
    ends = [min(*x, *y), max(*x, *y)]
    axes.plot(ends, ends, color=GREY, linestyle="--", linewidth=1, label="equal")
    axes.set(
        title=title,
        xlabel=f"return of {paired.champion} (mean {format_number(paired.champion_mean)})",
        ylabel=f"return of {paired.challenger} (mean {format_number(paired.challenger_mean)})",
    )
    axes.legend(loc="best")


def _plot_differences(axes: Axes, paired: PairedReturns) -> None:
    """Plot the mean differences with their bounds. If a bound is infinite, both are left out."""
    looks, last = paired.differences, paired.differences[-1]
    places = [str(look.pairs) for look in looks]
    means = [look.mean for look in looks]
    axes.scatter(places, means, color=BLUE, label="mean difference", zorder=3)
    bounded = [
        (str(look.pairs), look.lower, look.upper)
        for look in looks
        if look.lower is not None and look.upper is not None
    ]
    axes.vlines(
        [place for place, _, _ in bounded],
        [lower for _, lower, _ in bounded],
        [upper for _, _, upper in bounded],
        color=BLUE,
        label="its bounds",
    )
    least = paired.min_improvement
    label = f"min_improvement: {format_number(least)}"
    axes.axhline(least, color=GREY, linestyle="--", linewidth=1, label=label)
    bounds = f"{format_number(last.lower)} to {format_number(last.upper)}"
    axes.set(
        title=f"difference {format_number(last.mean)}, bounds {bounds}",
        xlabel="pairs tested" if paired.is_paired else "episodes of each agent",
        ylabel="challenger minus champion, return",
    )
    axes.legend(loc="best")
