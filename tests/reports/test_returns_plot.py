from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from mlflow_sb3.reports.returns_plot import plot_returns


def test_the_legend_of_the_histogram_has_the_mean() -> None:
    (axes,) = plot_returns(np.array([1.0, 2.0, 6.0]), "agent/1").axes

    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["mean 3.00"]


@pytest.mark.parametrize(
    ("returns", "sentence"),
    [
        (np.full(100, 500.0), "All 100 episodes have a return of 500.00."),
        (np.array([-3.5]), "The episode has a return of -3.50."),
        (np.array([0.3, 0.1 + 0.2]), "All 2 episodes have a return of 0.30."),
    ],
)
def test_equal_returns_are_told_in_a_sentence(returns: NDArray[np.float64], sentence: str) -> None:
    (axes,) = plot_returns(returns, "agent/1").axes

    assert [text.get_text() for text in axes.texts] == [sentence]
    assert list(axes.patches) == []


def test_few_integers_get_a_bar_each() -> None:
    (axes,) = plot_returns(np.array([1.0, 2.0, 2.0, 4.0]), "agent/1").axes

    heights = [patch.get_height() for patch in axes.patches]  # type: ignore[attr-defined]
    assert heights == [1, 2, 0, 1]


def test_every_episode_is_counted_and_counts_are_integers() -> None:
    (axes,) = plot_returns(np.random.default_rng(0).normal(-200, 60, 300), "agent/1").axes

    heights = [patch.get_height() for patch in axes.patches]  # type: ignore[attr-defined]
    assert sum(heights) == 300
    assert all(float(tick).is_integer() for tick in axes.get_yticks())
