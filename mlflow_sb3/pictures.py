"""What people would rather look at than read: returns as a histogram, an episode as a video."""

from __future__ import annotations

from pathlib import Path

from gymnasium.wrappers import RecordVideo
from matplotlib.figure import Figure

from mlflow_sb3 import environment, evaluation
from mlflow_sb3.evaluation import Episodes, Policy


def histogram(episodes: Episodes, title: str) -> Figure:
    """How often which return came out."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.hist(episodes.returns, bins=20, color="#0194e2", edgecolor="white")
    mean = float(episodes.returns.mean())
    axes.axvline(mean, color="#43494f", linestyle="--", label=f"mean {mean:.2f}")
    axes.set(title=title, xlabel="return of an episode", ylabel="episodes")
    axes.legend()
    return figure


def record(policy: Policy, description: str, seed: int, folder: Path) -> Path:
    """Play one episode and film it.

    Args:
        policy: Picks the actions.
        description: The environment, as ``EnvSpec`` JSON; must render ``rgb_array``.
        seed: Of the episode.
        folder: To write into.

    Returns:
        The file, H.264 in mp4.
    """

    def filmed() -> environment.Env:
        env = environment.remake(description, render_mode="rgb_array")
        return RecordVideo(env, str(folder / "films"), name_prefix="episode", disable_logger=True)

    evaluation.play(policy, filmed, [seed])
    return (folder / "films" / "episode-episode-0.mp4").rename(folder / "episode.mp4")
