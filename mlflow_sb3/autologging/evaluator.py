"""Evaluate the agent that a script trains, in an environment of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import gymnasium
import numpy as np
from mlflow.exceptions import MlflowException
from sb3_contrib.common.maskable.evaluation import evaluate_policy as evaluate_with_masks
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv, VecNormalize, is_vecenv_wrapped

from mlflow_sb3.envs import env_spec, spec_rollout
from mlflow_sb3.envs.rollout import Episodes
from mlflow_sb3.envs.seeds import generate_episode_seeds
from mlflow_sb3.flavor import sb3_policy, source_env, vec_normalize
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
        self._policy = build_policy(model, env_spec_json)

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

        evaluate: Any = evaluate_policy
        if sb3_policy.has_action_masks(self._model):
            evaluate = evaluate_with_masks
        returns, lengths = evaluate(
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


def build_policy(model: BaseAlgorithm, env_spec_json: str) -> SB3Policy:
    """Return a policy with the current weights of a model, for an environment without wrappers."""
    with env_spec.make_from_spec(env_spec_json) as env:
        spaces = env.observation_space, env.action_space
    return SB3Policy.from_algorithm(model, *spaces)


def make_evaluator(
    model: BaseAlgorithm, eval_env: EvalEnv | None, training_env: str | None
) -> Evaluator:
    """Return the evaluator for an environment.

    Args:
        model: Algorithm to evaluate.
        eval_env: Gymnasium id, environment or VecEnv. None: a copy of the training environment.
        training_env: Training environment as ``EnvSpec`` JSON. None if it cannot be copied.

    Raises:
        MlflowException: The environment cannot be made, or has other spaces than the agent.
    """
    if isinstance(eval_env, VecEnv):
        return VecEnvEvaluator(model, eval_env)
    if isinstance(eval_env, gymnasium.Env):
        return _make_spec_evaluator(model, env_spec.spec_to_json(eval_env.spec))
    if eval_env is not None:
        return _make_spec_evaluator(model, env_spec.compose_spec(eval_env))
    if training_env is None:
        raise MlflowException.invalid_parameter_value(
            "mlflow-sb3 cannot make a copy of the training environment for evaluations. Pass a "
            "VecEnv as eval_env, or register the environment with Gymnasium."
        )
    return SpecEvaluator(model, training_env)


def _make_spec_evaluator(model: BaseAlgorithm, env_spec_json: str) -> SpecEvaluator:
    source_env.find_source_env(model, env_spec_json)  # checks the spaces
    return SpecEvaluator(model, env_spec_json)
