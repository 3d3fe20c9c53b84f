"""Plot the evaluations of the checkpoints of a training, and mark the kept checkpoint."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from mlflow_sb3.reports.number_format import format_number
from mlflow_sb3.reports.plot_style import BLUE, GREY, ORANGE, apply_style, format_text


@dataclass(frozen=True)
class FreshReturns:
    """Mean and range of the returns of a checkpoint on new seeds, played after learning."""

    mean: float
    lowest: float
    highest: float

    @classmethod
    def summarize(cls, returns: Sequence[float]) -> FreshReturns | None:
        """Summarize the returns. None if there are none."""
        if not returns:
            return None
        return cls(sum(returns) / len(returns), min(returns), max(returns))


@dataclass(frozen=True)
class CurvePoint:
    """Evaluation of one checkpoint.

    Attributes:
        step: Environment step of the checkpoint.
        training_mean: Mean return of the evaluation during the training. NaN without evaluation.
        fresh: Returns of the episodes on new seeds after learning. None without such episodes.
        is_kept: Whether this checkpoint was selected.
    """

    step: int
    training_mean: float
    fresh: FreshReturns | None
    is_kept: bool


def plot_learning_curve(points: Sequence[CurvePoint], title: str) -> Figure:
    """Plot the mean returns of the checkpoints against the environment steps.

    Args:
        points: The checkpoints, at least one.
        title: Title of the figure.
    """
    ordered = sorted(points, key=lambda point: point.step)
    with apply_style() as figure:
        axes = figure.subplots()
        axes.set_title(format_text(title))
        _plot_training(axes, ordered)
        _plot_fresh(axes, ordered)
        _mark_kept(axes, ordered)
        axes.set(xlabel="environment steps", ylabel="mean return")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        axes.margins(y=0.15)
        axes.legend()
    return figure


def save_png(figure: Figure) -> bytes:
    """Return a figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _plot_training(axes: Axes, points: Sequence[CurvePoint]) -> None:
    known = [
        (point.step, point.training_mean) for point in points if math.isfinite(point.training_mean)
    ]
    if known:
        steps, means = zip(*known, strict=True)
        axes.plot(steps, means, color=BLUE, marker="o", label="evaluation during the training")


def _plot_fresh(axes: Axes, points: Sequence[CurvePoint]) -> None:
    """Plot the mean return over new seeds, with the smallest and the largest return."""
    played = [
        (point.step, point.fresh)
        for point in points
        if point.fresh is not None and math.isfinite(point.fresh.highest - point.fresh.lowest)
    ]
    if not played:
        return
    below = [fresh.mean - fresh.lowest for _, fresh in played]
    above = [fresh.highest - fresh.mean for _, fresh in played]
    axes.errorbar(
        [step for step, _ in played],
        [fresh.mean for _, fresh in played],
        yerr=[below, above],
        fmt="s",
        color=GREY,
        capsize=5,
        alpha=0.8,
        label="new episodes: mean and range",
    )


def _mark_kept(axes: Axes, points: Sequence[CurvePoint]) -> None:
    for point in points:
        if not point.is_kept:
            continue
        mean = point.training_mean if point.fresh is None else point.fresh.mean
        label = f"kept: step {point.step}, mean return {format_number(mean)}"
        axes.axvline(point.step, color=ORANGE, linestyle="--", label=label)
