from __future__ import annotations

from pathlib import Path

import numpy as np

from mlflow_sb3.envs.rollout import Episodes
from mlflow_sb3.inference.onnx_policy import OnnxPolicy
from mlflow_sb3.reports import plots, video


def test_the_mean_is_in_the_histogram() -> None:
    figure = plots.plot_returns(
        Episodes(np.arange(3), np.array([1.0, 2.0, 6.0]), np.ones(3, dtype=np.int64)), "agent/1"
    )

    (axes,) = figure.axes
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["mean 3.00"]


def test_returns_that_are_all_the_same_are_shown_too() -> None:
    figure = plots.plot_returns(
        Episodes(np.arange(3), np.full(3, 500.0), np.ones(3, dtype=np.int64)), "agent/1"
    )

    heights = [patch.get_height() for patch in figure.axes[0].patches]  # type: ignore[attr-defined]
    assert sum(heights) == 3


def test_an_episode_is_filmed(saved: Path, cartpole: str, tmp_path: Path) -> None:
    film = video.record_episode(OnnxPolicy.load(saved / "agent"), cartpole, 0, tmp_path)

    assert film == tmp_path / "episode.mp4"
    assert film.read_bytes()[4:8] == b"ftyp"
    assert film.stat().st_size > 1000
