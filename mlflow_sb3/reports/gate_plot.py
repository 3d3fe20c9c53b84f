"""Plot the returns of a paired comparison, and the bounds at each look of its gate."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mlflow_sb3.reports.number_format import format_number
from mlflow_sb3.reports.plot_style import BLUE, GREY, apply_style, format_text


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


def plot_pairs(paired: PairedReturns) -> Figure:
    """Plot the returns of each pair, and the bounds of the mean difference after each look.

    Returns:
        A figure with two axes: a scatter plot of the pairs, and the mean differences. Without
        pairs, the scatter plot shows the quantiles of both agents.
    """
    with apply_style(11.0, 5.0) as figure:
        pairs_axes, differences_axes = figure.subplots(1, 2)
        _plot_scatter(pairs_axes, paired)
        _plot_differences(differences_axes, paired)
        figure.suptitle(format_text(paired.title, 90))
    return figure


def plot_looks(paired: PairedReturns) -> Figure:
    """Plot only the mean differences and their bounds, without a title."""
    with apply_style(8.0, 5.0) as figure:
        axes = figure.subplots()
        _plot_differences(axes, paired)
        axes.set_title("")
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
        xlabel=_label_returns(paired.champion, paired.champion_mean),
        ylabel=_label_returns(paired.challenger, paired.challenger_mean),
    )
    axes.legend(loc="best")


def _label_returns(name: str, mean: float) -> str:
    return f"{format_text(f'return of {name}', 36)}\n(mean {format_number(mean)})"


def _plot_differences(axes: Axes, paired: PairedReturns) -> None:
    """Plot the mean differences with their bounds, and write the bounds below each look."""
    looks, last = paired.differences, paired.differences[-1]
    places = range(len(looks))
    axes.scatter(
        places, [look.mean for look in looks], color=BLUE, label="mean difference", zorder=3
    )
    bounded = [
        (place, look.mean, look.lower, look.upper)
        for place, look in zip(places, looks, strict=True)
        if look.lower is not None and look.upper is not None
    ]
    if bounded:
        axes.errorbar(
            [place for place, *_ in bounded],
            [mean for _, mean, _, _ in bounded],
            yerr=[
                [mean - lower for _, mean, lower, _ in bounded],
                [upper - mean for _, mean, _, upper in bounded],
            ],
            fmt="none",
            ecolor=BLUE,
            capsize=8,
        )
    least = paired.min_improvement
    label = f"min_improvement: {format_number(least)}"
    axes.axhline(least, color=GREY, linestyle="--", linewidth=1, label=label)
    axes.set_xticks(places, [_label_look(look) for look in looks], fontsize=11)
    axes.margins(x=0.15, y=0.15)
    axes.set(
        title=f"difference {format_number(last.mean)}",
        xlabel="pairs tested, with the bounds" if paired.is_paired else "episodes of each agent",
        ylabel="challenger minus champion, return",
    )
    # Below the plot, because matplotlib does not keep a legend away from the bounds.
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.32), ncols=2, frameon=False)


def _label_look(look: MeanDifference) -> str:
    if look.lower is None or look.upper is None:
        return f"{look.pairs}\nno bounds"
    return f"{look.pairs}\n{format_number(look.lower)}\nto {format_number(look.upper)}"
