"""Evaluate the agent that a script trains, in an environment of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import gymnasium
import numpy as np
from mlflow.exceptions import MlflowException
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv, VecNormalize, is_vecenv_wrapped

from mlflow_sb3.envs import env_spec, spec_rollout
from mlflow_sb3.envs.rollout import Episodes
from mlflow_sb3.envs.seeds import generate_episode_seeds
from mlflow_sb3.flavor import source_env, vec_normalize
from mlflow_sb3.flavor.sb3_policy import SB3Policy

EvalEnv = str | gymnasium.Env[Any, Any] | VecEnv
"""Gymnasium id, environment or VecEnv to evaluate in."""


class Evaluator(ABC):
    """Play evaluation episodes with the current weights of a model."""

    @abstractmethod
    def play(self, n_episodes: int, *, first_episode: int = 0) -> Episodes:
        """Play episodes with deterministic actions.

        Args:
            n_episodes: Number of episodes.
            first_episode: Index of the first episode. Episodes with other indices have other seeds.
        """


class SpecEvaluator(Evaluator):
    """Evaluate in new environments, made from an ``EnvSpec``.

    Every evaluation of a training plays the same episodes. The environments and the random
    generators of the training are not touched.
    """

    def __init__(self, model: BaseAlgorithm, env_spec_json: str) -> None:
        """Prepare the seeds of the episodes.

        Args:
            model: Algorithm to evaluate. The seeds of the episodes are derived from its seed.
            env_spec_json: Environment as ``EnvSpec`` JSON, without SB3's wrappers.
        """
        self._env_spec_json = env_spec_json
        self._seed = model.seed or 0
        with env_spec.make_from_spec(env_spec_json) as env:
            spaces = env.observation_space, env.action_space
        self._policy = SB3Policy.from_algorithm(model, *spaces)

    def play(self, n_episodes: int, *, first_episode: int = 0) -> Episodes:
        """Play episodes with the seeds of their indices."""
        seeds = generate_episode_seeds(self._seed, "choice", n_episodes, start=first_episode)
        return spec_rollout.play_episodes(self._policy, self._env_spec_json, seeds)


class VecEnvEvaluator(Evaluator):
    """Evaluate in a VecEnv with SB3's ``evaluate_policy``."""

    def __init__(self, model: BaseAlgorithm, vec_env: VecEnv) -> None:
        """Wrap the VecEnv in a ``VecNormalize`` if the model is trained in one.

        Args:
            model: Algorithm to evaluate.
            vec_env: Environments that the training does not use.
        """
        self._model = model
        self._vec_env = vec_env
        statistics = vec_normalize.read_statistics(model)
        if statistics is not None and not is_vecenv_wrapped(vec_env, VecNormalize):
            self._vec_env = vec_normalize.wrap_vec_env(vec_env, statistics)

    def play(self, n_episodes: int, *, first_episode: int = 0) -> Episodes:  # noqa: ARG002
        """Play new episodes. A VecEnv cannot start an episode from a seed."""
        self._synchronize()
        successes: list[Any] = []

        def collect_success(local_values: dict[str, Any], _: dict[str, Any]) -> None:
            if local_values["done"]:
                successes.append(local_values["info"].get("is_success"))

        returns, lengths = evaluate_policy(
            self._model,
            self._vec_env,
            n_eval_episodes=n_episodes,
            return_episode_rewards=True,
            callback=collect_success,
            warn=False,
        )
        has_successes = len(successes) == n_episodes and None not in successes
        return Episodes(
            np.zeros(n_episodes, np.int64),
            np.asarray(returns, dtype=np.float64),
            np.asarray(lengths, dtype=np.int64),
            np.array(successes, np.bool_) if has_successes else None,
        )

    def _synchronize(self) -> None:
        """Copy the statistics of the training, and neither update them nor normalize rewards."""
        statistics = vec_normalize.read_statistics(self._model)
        wrapper: Any = self._vec_env
        while isinstance(wrapper, VecEnv) and not isinstance(wrapper, VecNormalize):
            wrapper = getattr(wrapper, "venv", None)
        if statistics is not None and wrapper is not None:
            vec_normalize.set_statistics(wrapper, statistics)
            wrapper.training = wrapper.norm_reward = False


def make_evaluator(model: BaseAlgorithm, eval_env: EvalEnv | None) -> Evaluator:
    """Return the evaluator for an environment.

    Args:
        model: Algorithm to evaluate.
        eval_env: Gymnasium id, environment or VecEnv. None: the training environment, made again.

    Raises:
        MlflowException: ``eval_env`` is None, and the training environment cannot be made again.
    """
    if isinstance(eval_env, VecEnv):
        return VecEnvEvaluator(model, eval_env)
    if isinstance(eval_env, gymnasium.Env):
        return SpecEvaluator(model, env_spec.spec_to_json(eval_env.spec))
    if eval_env is not None:
        return SpecEvaluator(model, env_spec.compose_spec(eval_env))
    description = source_env.find_source_env(model).description
    if description is None:
        raise MlflowException.invalid_parameter_value(
            "The training environment cannot be made again for evaluations, because it has no "
            "EnvSpec. Pass eval_env, or register the environment with Gymnasium."
        )
    return SpecEvaluator(model, description)
