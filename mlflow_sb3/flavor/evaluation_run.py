"""Evaluate a registered version, and log the episodes to the active run."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import mlflow
from tqdm import tqdm

from mlflow_sb3.client import permissions
from mlflow_sb3.envs import rollout
from mlflow_sb3.envs.rollout import Episodes
from mlflow_sb3.envs.seeds import generate_episode_seeds
from mlflow_sb3.flavor import registered_agent
from mlflow_sb3.registry.model_version import Version
from mlflow_sb3.reports import plots
from mlflow_sb3.reports.video import record_episode


def evaluate_version(
    version: Version, n_episodes: int, *, seed: int, public_key: str | None, has_video: bool
) -> Episodes:
    """Play episodes with a version and log their returns.

    Metrics ``evaluation/...`` go to the active run and to the logged model. A table, a figure and
    the video go to the folder ``evaluation`` of the run.

    Args:
        version: Version to evaluate.
        n_episodes: Number of episodes.
        seed: Base seed of the episodes.
        public_key: PEM file of the public key that must have signed the version.
        has_video: Whether to record a video of the first episode.

    Raises:
        MlflowException: The files of the version changed, or its signature is invalid.
    """
    agent = registered_agent.load_agent(version, public_key=public_key)
    seeds = generate_episode_seeds(seed, "evaluation", n_episodes)
    with tqdm(total=n_episodes, desc="evaluating", unit="episode", mininterval=1) as bar:
        episodes = agent.play(seeds, on_episode=bar.update)
    summary = rollout.summarize_returns(episodes)
    mlflow.set_tag("mlflow_sb3.version", str(version))
    permissions.log_metrics(summary.to_metrics("evaluation/"), version.model_id)
    mlflow.log_table(episodes.to_table(), "evaluation/episodes.json")
    figure = plots.plot_returns(episodes, f"{version}: {n_episodes} episodes")
    mlflow.log_figure(figure, "evaluation/returns.png")
    if has_video:
        with TemporaryDirectory() as folder:
            video = record_episode(agent.policy, agent.environment, seeds[0], Path(folder))
            mlflow.log_artifact(str(video), "evaluation")
    return episodes
