"""Build an SB3 algorithm, with its environments, from JSON hyperparameters."""

from __future__ import annotations

from typing import Any

from mlflow.exceptions import MlflowException
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from mlflow_sb3.algorithms.algorithms import TRAINING_ERRORS, get_algorithm_class
from mlflow_sb3.algorithms.env_check import check_env
from mlflow_sb3.algorithms.hyperparam_check import check_hyperparams, get_policy
from mlflow_sb3.algorithms.hyperparams import to_algorithm_kwargs, to_vec_normalize_kwargs
from mlflow_sb3.envs import Env, env_spec, vec_env_factory
from mlflow_sb3.envs.wrapper_config import format_cause
from mlflow_sb3.flavor.factory_vec_env import FactoryVecEnv
from mlflow_sb3.wrappers import ZeroStart, to_zero_start


def build_algorithm(
    algo: str, env_spec_json: str, hyperparams: dict[str, Any], *, seed: int
) -> BaseAlgorithm:
    """Build an algorithm that is ready to learn.

    Args:
        algo: Key of ``ALGORITHMS``, such as ``"dqn"``.
        env_spec_json: Environment as ``EnvSpec`` JSON.
        hyperparams: SB3's arguments as JSON values, in rl_zoo3's notation:

            - ``n_envs``: number of environments in the ``VecEnv``.
            - ``normalize``: true, or arguments of ``VecNormalize``.
            - ``noise_type``, ``noise_std``: action noise.
            - ``"lin_0.001"``: a value that decreases linearly to 0.
            - Class names, as in ``replay_buffer_class`` and ``policy_kwargs``.
            - ``policy``: by default, the policy for the observation space.
        seed: Seed for SB3.

    Raises:
        MlflowException: The algorithm is unknown, the environment cannot be made, or the algorithm
            does not support the environment or a hyperparameter.
    """
    check_hyperparams(algo, hyperparams)
    with env_spec.make_from_spec(env_spec_json) as env:
        check_env(algo, hyperparams, env)
        policy = get_policy(algo, hyperparams, env.observation_space)
    try:
        vec_env = build_vec_env(env_spec_json, hyperparams, seed=seed)
        kwargs = to_algorithm_kwargs(hyperparams | {"policy": policy}, vec_env.action_space)
        return get_algorithm_class(algo)(env=vec_env, seed=seed, **kwargs)
    except TRAINING_ERRORS as error:
        raise MlflowException.invalid_parameter_value(
            f"{algo} cannot be built with these hyperparameters: {format_cause(error)} "
            "Change the hyperparameter that causes this error."
        ) from error


def build_vec_env(env_spec_json: str, hyperparams: dict[str, Any], *, seed: int = 0) -> VecEnv:
    """Build the ``VecEnv`` that an algorithm learns in.

    Args:
        env_spec_json: Environment as ``EnvSpec`` JSON.
        hyperparams: ``n_envs``, ``normalize`` and ``gamma`` are used. The others are ignored.
        seed: Seed for a function that makes the environments. The algorithm sets all other seeds.
    """
    n_envs = hyperparams.get("n_envs", 1)
    vec_env: VecEnv
    if vec_env_factory.is_vec_env(env_spec_json):
        made = vec_env_factory.make_vec_env(env_spec_json, n_envs=n_envs, seed=seed)
        vec_env = FactoryVecEnv(made, env_spec_json)
    else:
        vec_env = make_vec_env(
            lambda: start_spaces_at_zero(env_spec.make_from_spec(env_spec_json)), n_envs=n_envs
        )
    kwargs = to_vec_normalize_kwargs(hyperparams)
    return vec_env if kwargs is None else VecNormalize(vec_env, **kwargs)


def start_spaces_at_zero(env: Env) -> Env:
    """Wrap an environment if a discrete space does not start at 0.

    SB3 assumes that all discrete spaces start at 0.
    """
    env_spaces = (env.observation_space, env.action_space)
    if all(to_zero_start(space) is space for space in env_spaces):
        return env
    return ZeroStart(env)
