"""Evaluate agents from Python."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mlflow

from mlflow_sb3.envs import Env
from mlflow_sb3.envs.seeds import generate_episode_seeds
from mlflow_sb3.flavor import evaluation_run
from mlflow_sb3.inference.policy_protocol import Policy
from mlflow_sb3.lifecycle import agents
from mlflow_sb3.lifecycle.arguments import check_minimum
from mlflow_sb3.lifecycle.results import EvaluateResult
from mlflow_sb3.registry import signing

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

    from mlflow_sb3.registry.signing import KeyPath


def evaluate(
    model: str | Policy | BaseAlgorithm,
    env: str | Env | None = None,
    *,
    n_episodes: int = 100,
    seed: int = 0,
    public_key: KeyPath | None = None,
    allow_pickle: bool = False,
    progress_bar: bool = True,
) -> EvaluateResult:
    """Play episodes with an agent, with the seeds of the step ``evaluate``.

    If a run is active, it gets the metrics ``evaluation/...``, the table and the histogram of the
    step. They replace those of an earlier evaluation in that run. Without an active run, nothing
    is logged.

    Args:
        model: ``models:/name@alias``, ``models:/name/3`` or another model URI of ``load_policy``;
            the result of ``load_policy``; an SB3 algorithm; or an object with SB3's ``predict``.
        env: Environment to play in: a Gymnasium id, ``EnvSpec`` JSON, or a ``gymnasium.Env``, which
            plays one episode after the other and stays open. By default, the environment that the
            agent was trained in. If you pass ``env``, only the run gets the metrics, and not the
            logged model.
        n_episodes: Number of episodes.
        seed: Base seed of the episodes; see ``make_episode_seeds``.
        public_key: PEM file of the Ed25519 public key that must have signed the version.
        allow_pickle: As in ``load_policy``.
        progress_bar: Show a progress bar on standard error.

    Raises:
        MlflowException: An argument is invalid, the agent cannot be loaded, its version has no
            valid digest or signature, or ``env`` cannot be made or does not fit the agent.
    """
    _check_seed(n_episodes, seed)
    signing.check_keys(None, public_key)
    agent = agents.find_agent(model, env, public_key=public_key, allow_pickle=allow_pickle)
    episodes = evaluation_run.play(agent, n_episodes, seed=seed, progress_bar=progress_bar)
    run = mlflow.active_run()
    if run is not None:
        evaluation_run.log_evaluation(episodes, version=agent.version, model_id=agent.model_id)
    return EvaluateResult.from_episodes(
        episodes, version=agent.version, run_id=None if run is None else run.info.run_id
    )


def make_episode_seeds(n_episodes: int = 100, *, seed: int = 0) -> list[int]:
    """Return the seeds of the episodes that ``evaluate`` plays, as data for MLflow's ``evaluate``.

    Args:
        n_episodes: Number of episodes.
        seed: Base seed of the episodes.

    Raises:
        MlflowException: A number is too small.
    """
    _check_seed(n_episodes, seed)
    return generate_episode_seeds(seed, "evaluation", n_episodes)


def _check_seed(n_episodes: int, seed: int) -> None:
    check_minimum("n_episodes", n_episodes, 1)
    check_minimum("seed", seed, 0)
