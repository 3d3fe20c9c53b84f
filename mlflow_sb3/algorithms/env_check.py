"""Check before training that an algorithm can learn in an environment."""

from __future__ import annotations

from typing import Any

from gymnasium import Space, spaces
from mlflow.exceptions import MlflowException
from stable_baselines3.her import HerReplayBuffer

from mlflow_sb3.algorithms.algorithms import (
    ALGORITHMS,
    TRAINING_ERRORS,
    SpaceTypes,
    get_algorithm_class,
    get_default_policy,
)
from mlflow_sb3.algorithms.hyperparams import find_class
from mlflow_sb3.envs import Env
from mlflow_sb3.envs.spaces import list_subspaces
from mlflow_sb3.envs.wrapper_config import format_cause

_OBSERVATION_SPACES: SpaceTypes = (
    spaces.Box,
    spaces.Discrete,
    spaces.MultiDiscrete,
    spaces.MultiBinary,
)
_GOAL_KEYS = ("observation", "achieved_goal", "desired_goal")
_FLATTEN_OPTION = 'wrappers=["gymnasium.wrappers:FlattenObservation"]'
_MASK_OPTION = 'wrappers=[{"mlflow_sb3.wrappers:ActionMasks": {"method": "valid_actions"}}]'


def check_env(algo: str, hyperparams: dict[str, Any], env: Env) -> None:
    """Check that an algorithm with these hyperparameters can learn in an environment.

    Raises:
        MlflowException: A space is not supported. The algorithm needs action masks, or the replay
            buffer needs goals, and the environment has none. Or the class of the replay buffer
            cannot be imported.
    """
    check_spaces(algo, env.observation_space, env.action_space)
    if algo == "ppo_mask" and not env.has_wrapper_attr("action_masks"):
        raise MlflowException.invalid_parameter_value(
            f"ppo_mask needs an environment with a method action_masks(), and {env} has none. "
            "Add the method. If another method returns the mask, such as valid_actions, add a "
            f"wrapper instead: {_MASK_OPTION}."
        )
    if _uses_her_buffer(hyperparams) and not _has_goals(env):
        raise MlflowException.invalid_parameter_value(
            f"HerReplayBuffer needs an environment with goals, and {env} has none. Remove "
            "replay_buffer_class, or choose an environment with a method compute_reward and "
            f"Dict observations with the keys {', '.join(_GOAL_KEYS)}."
        )


def check_spaces(algo: str, observation_space: Space[Any], action_space: Space[Any]) -> None:
    """Check that an algorithm supports the spaces of an environment.

    Raises:
        MlflowException: A space is not supported. The message suggests a remedy.
    """
    _check_observation_space(observation_space)
    policy = get_default_policy(algo, observation_space)
    if policy not in get_algorithm_class(algo).policy_aliases:
        raise MlflowException.invalid_parameter_value(
            f"{algo} has no {policy} for the observation space {observation_space}. "
            f"Use another algorithm, or flatten the observations: {_FLATTEN_OPTION}."
        )
    _check_action_space(algo, action_space)


def _check_observation_space(space: Space[Any]) -> None:
    for subspace in list_subspaces(space):
        if isinstance(subspace, spaces.MultiDiscrete) and _is_multi_dimensional(subspace):
            kind = "multi-dimensional MultiDiscrete"
        elif not isinstance(subspace, _OBSERVATION_SPACES):
            kind = type(subspace).__name__
        else:
            continue
        # FlattenObservation cannot flatten Graph and Sequence spaces. It also fails on the Text
        # spaces of many environment packages.
        is_flattenable = space.is_np_flattenable and not isinstance(subspace, spaces.Text)
        remedy = (
            f"Flatten the observations: {_FLATTEN_OPTION}."
            if is_flattenable
            else "Use a wrapper of the environment's package that encodes or removes this part."
        )
        raise MlflowException.invalid_parameter_value(
            f"SB3 does not support the {kind} space in the observation space {space}. It supports "
            f"{_join_names(_OBSERVATION_SPACES)}, and a Dict of these without nesting. {remedy}"
        )


def _check_action_space(algo: str, space: Space[Any]) -> None:
    supported = ALGORITHMS[algo].action_spaces
    if not isinstance(space, supported):
        raise MlflowException.invalid_parameter_value(
            f"{algo} does not support the action space {space}. It supports "
            f"{_join_names(supported)}. {_suggest_algorithms(space)}"
        )
    if isinstance(space, spaces.Box) and (space.dtype.kind != "f" or not space.is_bounded()):
        raise MlflowException.invalid_parameter_value(
            f"SB3 does not support the action space {space}. A Box of actions needs a float dtype "
            "and finite bounds. Wrap the environment."
        )
    if _is_multi_dimensional(space):
        raise MlflowException.invalid_parameter_value(
            f"SB3 does not support the action space {space}. {type(space).__name__} actions need "
            "exactly one dimension. Wrap the environment."
        )


def _suggest_algorithms(action_space: Space[Any]) -> str:
    suitable = [
        name
        for name, algorithm in ALGORITHMS.items()
        if isinstance(action_space, algorithm.action_spaces)
    ]
    if not suitable:
        return "No algorithm supports these actions. Wrap the environment."
    return f"Use {', '.join(suitable)}."


def _is_multi_dimensional(space: Space[Any]) -> bool:
    """Return whether a MultiDiscrete or MultiBinary space has more than one dimension."""
    return isinstance(space, (spaces.MultiDiscrete, spaces.MultiBinary)) and len(space.shape) > 1


def _uses_her_buffer(hyperparams: dict[str, Any]) -> bool:
    name = hyperparams.get("replay_buffer_class")
    if not isinstance(name, str):
        return False
    try:
        return issubclass(find_class(name), HerReplayBuffer)
    except TRAINING_ERRORS as error:
        raise MlflowException.invalid_parameter_value(
            f"replay_buffer_class {name!r} cannot be imported: {format_cause(error)} "
            "Use 'HerReplayBuffer', or 'module:Class' with an installed module."
        ) from error


def _has_goals(env: Env) -> bool:
    space = env.observation_space
    return (
        isinstance(space, spaces.Dict)
        and set(_GOAL_KEYS) <= set(space.spaces)
        and env.has_wrapper_attr("compute_reward")
    )


def _join_names(space_types: SpaceTypes) -> str:
    return " or ".join(space_type.__name__ for space_type in space_types)
