from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection

from mlflow_sb3.reports.gate_plot import MeanDifference, PairedReturns, plot_pairs

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


def test_the_scatter_plot_has_one_point_per_distinct_pair() -> None:
    pairs, _ = plot_pairs(PAIRED).axes

    assert sorted(points_of(pairs)) == [(1.0, 3.0), (2.0, 4.0)]
    assert pairs.get_title() == "3 pairs of episodes"
    assert pairs.get_xlabel() == "return of agent/1\n(mean 1.67)"
    assert pairs.get_ylabel() == "return of agent/2\n(mean 3.67)"


def test_the_mean_differences_are_plotted_with_their_finite_bounds() -> None:
    figure = plot_pairs(PAIRED)
    _, differences = figure.axes

    (bounds,) = [part for part in differences.collections if isinstance(part, LineCollection)]
    assert [y for _, y in points_of(differences)] == [2.5, 2.0]
    assert [label.get_text() for label in differences.get_xticklabels()] == [
        "2\nno bounds",
        "3\n1.00\nto 3.00",
    ]
    assert [segment[:, 1].tolist() for segment in map(np.asarray, bounds.get_segments())] == [
        [1.0, 3.0]
    ]
    assert differences.get_title() == "difference 2.00"
    assert figure.get_suptitle() == PAIRED.title


def test_a_gate_without_bounds_says_so() -> None:
    figure = plot_pairs(replace(PAIRED, differences=[MeanDifference(2, 2.5, None, None)]))

    assert [label.get_text() for label in figure.axes[1].get_xticklabels()] == ["2\nno bounds"]


def test_names_of_any_script_are_drawn_without_warnings(tmp_path: Path) -> None:
    paired = replace(
        PAIRED,
        title="promote: 车杆/2 with $\\alpha$ and 🎲",
        challenger="车杆/2",
        champion="مثال/1",
    )

    plot_pairs(paired).savefig(tmp_path / "gate.png")  # a warning is an error

    assert (tmp_path / "gate.png").stat().st_size > 1000
