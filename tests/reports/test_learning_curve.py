from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from mlflow_sb3.reports import learning_curve
from mlflow_sb3.reports.learning_curve import CurvePoint, FreshReturns, plot_learning_curve

POINTS = [
    CurvePoint(3000, 90.0, FreshReturns.summarize([80.0, 100.0]), is_kept=True),
    CurvePoint(1000, 20.0, None, is_kept=False),
    CurvePoint(2000, 95.0, FreshReturns(65.0, 60.0, 70.0), is_kept=False),
]


def get_labels(points: list[CurvePoint]) -> list[str]:
    legend = plot_learning_curve(points, "CartPole-v1, dqn, seed 0").axes[0].get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


def test_the_kept_checkpoint_is_marked_with_its_mean_return() -> None:
    assert "kept: step 3000, mean return 90.00" in get_labels(POINTS)


def test_the_curve_has_all_checkpoints_in_the_order_of_their_steps() -> None:
    axes = plot_learning_curve(POINTS, "agent").axes[0]

    line = np.asarray(axes.lines[0].get_data())
    assert line.tolist() == [[1000, 2000, 3000], [20.0, 95.0, 90.0]]


@pytest.mark.parametrize(
    "point",
    [
        CurvePoint(50, math.nan, None, is_kept=True),
        CurvePoint(50, math.nan, FreshReturns.summarize([7.0]), is_kept=True),
        CurvePoint(50, math.inf, FreshReturns(math.inf, 1.0, math.inf), is_kept=True),
    ],
)
def test_missing_and_infinite_values_are_left_out(point: CurvePoint, tmp_path: Path) -> None:
    figure = plot_learning_curve([point], "agent")

    (tmp_path / "curve.png").write_bytes(learning_curve.save_png(figure))

    assert (tmp_path / "curve.png").stat().st_size > 1000
