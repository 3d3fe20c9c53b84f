from __future__ import annotations

from dataclasses import replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection

from mlflow_sb3.envs.rollout import Episodes
from mlflow_sb3.reports import plots
from mlflow_sb3.reports.plots import MeanDifference, PairedReturns

PAIRED = PairedReturns(
    title="promote: agent/2 against agent/1",
    challenger="agent/2",
    champion="agent/1",
    challenger_returns=[3.0, 4.0, 4.0],
    champion_returns=[1.0, 2.0, 2.0],
    challenger_mean=3.67,
    champion_mean=1.67,
    differences=[MeanDifference(2, 2.5, None, None), MeanDifference(3, 2.0, 1.0, 3.0)],
    min_improvement=0.5,
)


def points_of(axes: Axes) -> list[tuple[float, float]]:
    (scatter,) = [part for part in axes.collections if isinstance(part, PathCollection)]
    return [(float(x), float(y)) for x, y in np.asarray(scatter.get_offsets())]


def test_the_legend_of_the_histogram_has_the_mean() -> None:
    figure = plots.plot_returns(
        Episodes(np.arange(3), np.array([1.0, 2.0, 6.0]), np.ones(3, dtype=np.int64)), "agent/1"
    )

    (axes,) = figure.axes
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["mean 3.00"]


def test_equal_returns_are_counted_in_the_histogram() -> None:
    figure = plots.plot_returns(
        Episodes(np.arange(3), np.full(3, 500.0), np.ones(3, dtype=np.int64)), "agent/1"
    )

    heights = [patch.get_height() for patch in figure.axes[0].patches]  # type: ignore[attr-defined]
    assert sum(heights) == 3


def test_the_scatter_plot_has_one_point_per_distinct_pair() -> None:
    pairs, _ = plots.plot_pairs(PAIRED).axes

    assert sorted(points_of(pairs)) == [(1.0, 3.0), (2.0, 4.0)]
    assert pairs.get_title() == "3 pairs of episodes"
    assert pairs.get_xlabel() == "return of agent/1 (mean 1.67)"
    assert pairs.get_ylabel() == "return of agent/2 (mean 3.67)"


def test_the_mean_differences_are_plotted_with_their_finite_bounds() -> None:
    figure = plots.plot_pairs(PAIRED)
    _, differences = figure.axes

    (bounds,) = [part for part in differences.collections if isinstance(part, LineCollection)]
    assert [y for _, y in points_of(differences)] == [2.5, 2.0]
    assert [label.get_text() for label in differences.get_xticklabels()] == ["2", "3"]
    assert [segment[:, 1].tolist() for segment in map(np.asarray, bounds.get_segments())] == [
        [1.0, 3.0]
    ]
    assert differences.get_title() == "difference 2.00, bounds 1.00 to 3.00"
    assert figure.get_suptitle() == PAIRED.title


def test_infinite_bounds_are_shown_as_unknown() -> None:
    figure = plots.plot_pairs(replace(PAIRED, differences=[MeanDifference(2, 2.5, None, None)]))

    assert figure.axes[1].get_title() == "difference 2.50, bounds unknown to unknown"
