"""What people would rather look at than read: returns as a histogram, an episode as a video."""

from __future__ import annotations

import math
from collections import Counter

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mlflow_sb3.envs.rollout import Episodes
from mlflow_sb3.promotion import report_text
from mlflow_sb3.promotion.record import PromotionRecord

BLUE, GREY = "#0194e2", "#43494f"


def plot_returns(episodes: Episodes, title: str) -> Figure:
    """How often which return came out."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.hist(episodes.returns, bins=20, color=BLUE, edgecolor="white")
    mean = float(episodes.returns.mean())
    axes.axvline(mean, color=GREY, linestyle="--", label=f"mean {mean:.2f}")
    axes.set(title=title, xlabel="return of an episode", ylabel="episodes")
    axes.legend()
    return figure


def plot_pairs(promotion: PromotionRecord) -> Figure:
    """The returns of the pairs against each other, and how the bounds of their mean difference closed in."""
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    pairs, looks = figure.subplots(1, 2)
    _scatter(pairs, promotion)
    _closing_in(looks, promotion)
    figure.suptitle(
        f"{promotion['verdict']}: {report_text.challenger_name(promotion)} against {report_text.opponent_name(promotion)}"
    )
    return figure


def _scatter(axes: Axes, promotion: PromotionRecord) -> None:
    played = promotion["episodes"]
    points = Counter(zip(played["champion_return"], played["challenger_return"], strict=True))
    x, y = zip(*points, strict=True)
    sizes = [24 * math.sqrt(count) for count in points.values()]
    axes.scatter(x, y, s=sizes, color=BLUE, alpha=0.5, edgecolors="white", linewidths=0.5)
    ends = [min(*x, *y), max(*x, *y)]
    axes.plot(ends, ends, color=GREY, linestyle="--", linewidth=1, label="equal")
    own, other = (
        promotion["challenger_episodes"]["mean_return"],
        promotion["champion_episodes"]["mean_return"],
    )
    axes.set(
        title=f"{len(played['seed'])} pairs of episodes",
        xlabel=f"return of {report_text.opponent_name(promotion)} (mean {report_text.format_number(other)})",
        ylabel=f"return of {report_text.challenger_name(promotion)} (mean {report_text.format_number(own)})",
    )
    axes.legend(loc="best")


def _closing_in(axes: Axes, promotion: PromotionRecord) -> None:
    looks = promotion["looks"]
    places = [str(look["pairs"]) for look in looks]
    axes.scatter(
        places,
        [look["mean_difference"] for look in looks],
        color=BLUE,
        label="mean difference",
        zorder=3,
    )
    known = [look for look in looks if look["lower"] is not None and look["upper"] is not None]
    lower, upper = ([look[bound] for look in known] for bound in ("lower", "upper"))
    axes.vlines(
        [str(look["pairs"]) for look in known], lower, upper, color=BLUE, label="its bounds"
    )
    least = promotion["gate"]["min_improvement"]
    axes.axhline(
        least,
        color=GREY,
        linestyle="--",
        linewidth=1,
        label=f"to exceed: {report_text.format_number(least)}",
    )
    axes.set(
        title=f"difference {report_text.format_number(promotion['mean_difference'])}, "
        f"bounds {report_text.format_number(promotion['lower_bound'])} to {report_text.format_number(promotion['upper_bound'])}",
        xlabel="pairs looked at",
        ylabel="challenger less champion, return",
    )
    axes.legend(loc="best")
