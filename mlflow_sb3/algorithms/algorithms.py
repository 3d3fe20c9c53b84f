"""List the supported SB3 algorithms, with their classes and action spaces."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import gymnasium
from gymnasium import Space, spaces
from mlflow.exceptions import MlflowException
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.preprocessing import is_image_space

from mlflow_sb3.client.suggestion import suggest

SpaceTypes = tuple[type[Space[Any]], ...]


@dataclass(frozen=True)
class Algorithm:
    """Class of an algorithm, and the action spaces that it supports."""

    module: str
    class_name: str
    action_spaces: SpaceTypes


_CONTINUOUS: SpaceTypes = (spaces.Box,)
_DISCRETE: SpaceTypes = (spaces.Discrete,)
_MULTI_DISCRETE: SpaceTypes = (spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
_ALL: SpaceTypes = (spaces.Box, *_MULTI_DISCRETE)
# sb3-contrib 2.9: RecurrentPPO accepts MultiBinary actions, but raises an error in learn()
_ALL_BUT_MULTI_BINARY: SpaceTypes = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete)

ALGORITHMS = {
    "a2c": Algorithm("stable_baselines3", "A2C", _ALL),
    "ars": Algorithm("sb3_contrib", "ARS", (spaces.Box, spaces.Discrete)),
    "crossq": Algorithm("sb3_contrib", "CrossQ", _CONTINUOUS),
    "ddpg": Algorithm("stable_baselines3", "DDPG", _CONTINUOUS),
    "dqn": Algorithm("stable_baselines3", "DQN", _DISCRETE),
    "ppo": Algorithm("stable_baselines3", "PPO", _ALL),
    "ppo_lstm": Algorithm("sb3_contrib", "RecurrentPPO", _ALL_BUT_MULTI_BINARY),
    "ppo_mask": Algorithm("sb3_contrib", "MaskablePPO", _MULTI_DISCRETE),
    "qrdqn": Algorithm("sb3_contrib", "QRDQN", _DISCRETE),
    "sac": Algorithm("stable_baselines3", "SAC", _CONTINUOUS),
    "td3": Algorithm("stable_baselines3", "TD3", _CONTINUOUS),
    "tqc": Algorithm("sb3_contrib", "TQC", _CONTINUOUS),
    "trpo": Algorithm("sb3_contrib", "TRPO", _ALL),
}
"""Algorithms by the names that rl_zoo3 uses. ``ppo_mask`` is not in rl_zoo3."""

TRAINING_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
    gymnasium.error.Error,
)
"""Exceptions of SB3, PyTorch and environments for invalid hyperparameters.

They can occur when an algorithm is built and while it learns.
"""


def get_algorithm_class(algo: str) -> type[BaseAlgorithm]:
    """Return the SB3 class of an algorithm.

    Args:
        algo: Key of ``ALGORITHMS``, such as ``"dqn"``.

    Raises:
        MlflowException: The algorithm is unknown.
    """
    if algo not in ALGORITHMS:
        raise MlflowException.invalid_parameter_value(
            f"Unknown algorithm {algo!r}.{suggest(algo, ALGORITHMS)} "
            f"Choose one of {', '.join(ALGORITHMS)}."
        )
    module = importlib.import_module(ALGORITHMS[algo].module)
    algorithm_class: type[BaseAlgorithm] = getattr(module, ALGORITHMS[algo].class_name)
    return algorithm_class


def get_algorithm_name(algorithm_class: type[BaseAlgorithm]) -> str:
    """Return the key of ``ALGORITHMS`` for a class, such as ``"dqn"``.

    A subclass has the name of its base class. Other algorithms have the name of their class in
    lower case.
    """
    names = {
        (algorithm.module, algorithm.class_name): name for name, algorithm in ALGORITHMS.items()
    }
    for cls in algorithm_class.__mro__:
        key = cls.__module__.partition(".")[0], cls.__name__
        if key in names:
            return names[key]
    return algorithm_class.__name__.lower()


def get_default_policy(algo: str, observation_space: Space[Any]) -> str:
    """Return the name of the policy for an observation space, such as ``"MlpPolicy"``.

    Args:
        algo: Key of ``ALGORITHMS``. A recurrent algorithm has policies such as ``MlpLstmPolicy``.
        observation_space: Space of the environment. A Dict space needs a MultiInput policy, and
            an image needs a Cnn policy.
    """
    if isinstance(observation_space, spaces.Dict):
        prefix = "MultiInput"
    else:
        prefix = "Cnn" if is_image_space(observation_space) else "Mlp"
    is_recurrent = "MlpLstmPolicy" in get_algorithm_class(algo).policy_aliases
    return f"{prefix}LstmPolicy" if is_recurrent else f"{prefix}Policy"
