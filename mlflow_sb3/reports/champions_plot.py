"""Plot the mean returns of the champions of a registered model over time."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure

from mlflow_sb3.reports.plot_style import BLUE, GREY, ORANGE, apply_style

_MAX_LABELS = 12
"""Largest number of champions whose numbers are written into the plot."""


@dataclass(frozen=True)
class Reign:
    """Time in which a version had an alias.

    Attributes:
        number: Number of the version.
        since: When it got the alias.
        until: When it lost the alias; for the current champion, the time of the report.
        mean_return: Mean return in the gate that made it champion.
        is_current: Whether it still has the alias.
    """

    number: int
    since: datetime
    until: datetime
    mean_return: float
    is_current: bool


def plot_champions(reigns: Sequence[Reign]) -> Figure:
    """Plot one horizontal line per reign at the mean return of the champion.

    Args:
        reigns: At least one reign, oldest first.
    """
    with apply_style() as figure:
        axes = figure.subplots()
        for former, following in itertools.pairwise(reigns):
            _plot_move(axes, former, following)
        for index, reign in enumerate(reigns):
            _plot_reign(axes, reign, has_label=index >= len(reigns) - _MAX_LABELS)
        locator = AutoDateLocator()  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_locator(locator)
        formatter = ConciseDateFormatter(locator)  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_formatter(formatter)
        axes.set(xlabel="time (UTC)", ylabel="mean return in the gate")
        axes.margins(x=0.06, y=0.2)
    return figure


def _plot_move(axes: Axes, former: Reign, following: Reign) -> None:
    ends = (former.mean_return, following.mean_return)
    axes.plot(np.array([following.since] * 2), ends, color=GREY, linewidth=1, alpha=0.5)


def _plot_reign(axes: Axes, reign: Reign, *, has_label: bool) -> None:
    color = ORANGE if reign.is_current else BLUE
    times = np.array([reign.since, reign.until])
    axes.plot(times, [reign.mean_return] * 2, color=color, linewidth=3, solid_capstyle="butt")
    axes.plot(times[:1], [reign.mean_return], color=color, marker="o")
    if has_label:
        axes.annotate(
            f"v{reign.number}",
            (times[0], reign.mean_return),
            xytext=(4, 7),
            textcoords="offset points",
            color=color,
        )
