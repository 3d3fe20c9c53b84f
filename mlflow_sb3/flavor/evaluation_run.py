"""Evaluate a registered version, and log the episodes to the active run."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Metric

from mlflow_sb3.client import permissions
from mlflow_sb3.client.timestamps import now_ms
from mlflow_sb3.envs import rollout
from mlflow_sb3.envs.rollout import Episodes
from mlflow_sb3.envs.seeds import generate_episode_seeds
from mlflow_sb3.flavor import registered_agent
from mlflow_sb3.flavor.registered_agent import RegisteredAgent
from mlflow_sb3.registry.model_version import VERSION_TAG, Version
from mlflow_sb3.reports import progress, returns_plot
from mlflow_sb3.reports.run_sections import TABLES_TAG
from mlflow_sb3.reports.video import record_episode
from mlflow_sb3.runs import run_name

EPISODES_JSON = "episodes.json"
RETURNS_PNG = "returns.png"

_logger = logging.getLogger(__name__)


class PlayableAgent(Protocol):
    """An agent with its environment."""

    def play(self, seeds: Sequence[int], *, on_episode: Callable[[], object]) -> Episodes:
        """Play one episode for each seed, and call ``on_episode`` after each."""
        raise NotImplementedError


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
    episodes = play(agent, n_episodes, seed=seed)
    log_evaluation(episodes, version=version, model_id=version.model_id, names_run=True)
    if has_video:
        _log_video(agent, int(episodes.seeds[0]))
    return episodes


def play(
    agent: PlayableAgent, n_episodes: int, *, seed: int, progress_bar: bool = True
) -> Episodes:
    """Play episodes with the seeds of an evaluation.

    Args:
        agent: Agent with its environment.
        n_episodes: Number of episodes.
        seed: Base seed of the episodes.
        progress_bar: Show a progress bar on standard error.
    """
    seeds = generate_episode_seeds(seed, "evaluation", n_episodes)
    with progress.make_bar("evaluating", "episode", total=n_episodes, is_shown=progress_bar) as bar:
        return agent.play(seeds, on_episode=bar.update)


def log_evaluation(
    episodes: Episodes,
    *,
    version: Version | None = None,
    model_id: str | None = None,
    names_run: bool = False,
) -> None:
    """Log metrics ``evaluation/...``, a table and a figure to the active run.

    They replace those of an earlier evaluation in the same run.

    Args:
        episodes: Episodes of an agent.
        version: Registered version of the agent.
        model_id: Logged model that gets the metrics too.
        names_run: Whether to name and describe the run, if MLflow invented its name.
    """
    summary = rollout.summarize_returns(episodes)
    count = summary.episodes
    if version is not None:
        text = f"Mean return {summary} over {count} new episodes"
        name_tags = run_name.build_tags(f"evaluate {version}", text) if names_run else {}
        mlflow.set_tags({VERSION_TAG: str(version)} | name_tags)
    log_metrics(build_metrics(episodes, "evaluation/"), model_id)
    log_episodes(episodes, f"{version or 'Agent'}: {count} episodes", folder="evaluation/")


def log_metrics(metrics: dict[str, float], model_id: str | None) -> None:
    """Log metrics to the active run, and to the logged model if there is one."""
    if model_id is None:
        _log_run_metrics(metrics)
    else:
        permissions.log_metrics(metrics, model_id)


def _log_run_metrics(metrics: dict[str, float]) -> None:
    """Log metrics to the active run alone.

    ``mlflow.log_metrics`` also writes to the models that the run has logged.
    """
    run = mlflow.active_run()
    if run is not None:
        now = now_ms()
        points = [Metric(key, value, now, 0) for key, value in metrics.items()]
        MlflowClient().log_batch(run.info.run_id, metrics=points)


def build_metrics(episodes: Episodes, prefix: str) -> dict[str, float]:
    """Return the mean, spread and range of the returns, the mean length and the success rate.

    Args:
        episodes: At least one episode.
        prefix: First part of each metric key, such as ``"evaluation/"``.
    """
    metrics = rollout.summarize_returns(episodes).to_metrics(prefix)
    if episodes.success_rate is not None:
        metrics[f"{prefix}success_rate"] = episodes.success_rate
    return metrics


def log_episodes(episodes: Episodes, title: str, *, folder: str) -> None:
    """Log the table ``episodes.json`` and the histogram ``returns.png`` to the active run.

    Args:
        episodes: Episodes of an agent.
        title: Title of the histogram.
        folder: Folder of both files, with a slash at the end; empty for the root of the run.
    """
    _log_table(episodes.to_table(), f"{folder}{EPISODES_JSON}")
    figure = returns_plot.plot_returns(episodes.returns, title)
    mlflow.log_figure(figure, f"{folder}{RETURNS_PNG}")


def _log_table(columns: dict[str, list[float]], path: str) -> None:
    """Log a table like ``mlflow.log_table``, which would add its rows to an earlier table."""
    rows = list(zip(*columns.values(), strict=True))
    mlflow.log_text(json.dumps({"columns": list(columns), "data": rows}), path)
    run = mlflow.active_run()
    tags = {} if run is None else MlflowClient().get_run(run.info.run_id).data.tags
    entry = {"path": path, "type": "table"}
    tables = json.loads(tags.get(TABLES_TAG, "[]"))
    if entry not in tables:
        mlflow.set_tag(TABLES_TAG, json.dumps([*tables, entry]))


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
