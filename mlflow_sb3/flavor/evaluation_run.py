"""Evaluate a registered version, and log the episodes to the active run."""

from __future__ import annotations

import logging
from pathlib import Path
from tempfile import TemporaryDirectory

import mlflow

from mlflow_sb3.client import permissions
from mlflow_sb3.envs import rollout
from mlflow_sb3.envs.rollout import Episodes
from mlflow_sb3.envs.seeds import generate_episode_seeds
from mlflow_sb3.flavor import registered_agent
from mlflow_sb3.flavor.registered_agent import RegisteredAgent
from mlflow_sb3.registry.model_version import VERSION_TAG, Version
from mlflow_sb3.reports import progress, returns_plot, run_sections
from mlflow_sb3.reports.video import record_episode
from mlflow_sb3.runs import run_name

_logger = logging.getLogger(__name__)


def evaluate_version(
    version: Version,
    n_episodes: int,
    *,
    seed: int,
    public_key: str | None,
    allow_pickle: bool,
    has_video: bool,
) -> Episodes:
    """Play episodes with a version and log their returns.

    Metrics ``evaluation/...`` go to the active run and to the logged model. A table, a figure and
    the video go to the folder ``evaluation`` of the run.

    Args:
        version: Version to evaluate.
        n_episodes: Number of episodes.
        seed: Base seed of the episodes.
        public_key: PEM file of the public key that must have signed the version.
        allow_pickle: As in ``registered_agent.load_agent``.
        has_video: Whether to record a video of the first episode. If that is not possible, a
            warning is logged.

    Raises:
        MlflowException: The files of the version changed, its signature is invalid, or it must be
            unpickled and that is not allowed.
    """
    agent = registered_agent.load_agent(version, public_key=public_key, allow_pickle=allow_pickle)
    seeds = generate_episode_seeds(seed, "evaluation", n_episodes)
    with progress.make_bar("evaluating", "episode", total=n_episodes) as bar:
        episodes = agent.play(seeds, on_episode=bar.update)
    summary = rollout.summarize_returns(episodes)
    text = f"Mean return {summary} over {n_episodes} new episodes"
    mlflow.set_tags({VERSION_TAG: str(version)} | run_name.build_tags(f"evaluate {version}", text))
    metrics = summary.to_metrics("evaluation/")
    if episodes.success_rate is not None:
        metrics["evaluation/success_rate"] = episodes.success_rate
    permissions.log_metrics(metrics, version.model_id)
    mlflow.log_table(episodes.to_table(), run_sections.EPISODES_TABLE)
    figure = returns_plot.plot_returns(episodes.returns, f"{version}: {n_episodes} episodes")
    mlflow.log_figure(figure, "evaluation/returns.png")
    if has_video:
        _log_video(agent, seeds[0])
    return episodes


def _log_video(agent: RegisteredAgent, seed: int) -> None:
    """Record and log an episode. If the environment cannot be rendered, only log a warning."""
    with TemporaryDirectory() as folder:
        try:
            video = record_episode(agent.policy, agent.environment, seed, Path(folder))
        except Exception as error:  # noqa: BLE001 each renderer has its own errors
            _logger.warning(
                "No video was recorded: %s: %s. Without a screen, MuJoCo needs the environment "
                "variable MUJOCO_GL=egl or MUJOCO_GL=osmesa. Other environments may need packages "
                "to render.",
                type(error).__name__,
                str(error).rstrip("."),
            )
            return
        mlflow.log_artifact(str(video), "evaluation")
