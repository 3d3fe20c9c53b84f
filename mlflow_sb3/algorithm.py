"""SB3 algorithms by name: what they act on, and how JSON hyperparameters become their arguments."""

from __future__ import annotations

import inspect
import json
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import stable_baselines3
import torch
from gymnasium import Space, spaces
from mlflow.exceptions import MlflowException
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.noise import ActionNoise, NormalActionNoise, OrnsteinUhlenbeckActionNoise
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike
from stable_baselines3.common.utils import LinearSchedule

from mlflow_sb3 import environment

ACTIONS: dict[str, tuple[type[Space[Any]], ...]] = {
    "a2c": (spaces.Box, spaces.Discrete),
    "ddpg": (spaces.Box,),
    "dqn": (spaces.Discrete,),
    "ppo": (spaces.Box, spaces.Discrete),
    "sac": (spaces.Box,),
    "td3": (spaces.Box,),
}
"""The algorithms, and the action spaces that each of them takes."""

REFUSALS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
    gymnasium.error.Error,
)
"""What SB3, PyTorch and environments raise when hyperparameters do not fit, be it when they are built or while they learn."""
NOISE_STD = 0.1
"""Of action noise that is asked for by its type alone."""
_SCHEDULES = ("learning_rate", "clip_range", "clip_range_vf")
_NOISES: dict[str, type[NormalActionNoise | OrnsteinUhlenbeckActionNoise]] = {
    "normal": NormalActionNoise,
    "ornstein-uhlenbeck": OrnsteinUhlenbeckActionNoise,
}
_NOT_HYPERPARAMS = frozenset({"self", "env", "seed", "device", "verbose", "tensorboard_log", "action_noise", "_init_setup_model"})


def find(algo: str) -> type[BaseAlgorithm]:
    """The SB3 class of a name such as ``"dqn"``."""
    if algo not in ACTIONS:
        raise MlflowException.invalid_parameter_value(f"algorithm {algo!r} is unknown; take one of {', '.join(ACTIONS)}.")
    found: type[BaseAlgorithm] = getattr(stable_baselines3, algo.upper())
    return found


def check_spaces(algo: str, observation_space: Space[Any], action_space: Space[Any]) -> None:
    """Refuse spaces that the algorithm does not take, or that this version cannot export.

    Raises:
        MlflowException: In one sentence, what does not fit and what would.
    """
    if not isinstance(observation_space, spaces.Box) or is_image_space(observation_space):
        raise MlflowException.invalid_parameter_value(
            f"observations of {observation_space} are not supported yet; this version takes Box observations that are no images."
        )
    if not isinstance(action_space, ACTIONS[algo]):
        fitting = [name for name, actions in ACTIONS.items() if isinstance(action_space, actions)]
        raise MlflowException.invalid_parameter_value(
            f"{algo} does not fit the action space {action_space}: it takes {_names(ACTIONS[algo])}; "
            + (f"use {', '.join(fitting)}." if fitting else "no algorithm of this version takes these actions yet.")
        )
    if isinstance(action_space, spaces.Box) and action_space.dtype.kind != "f":
        raise MlflowException.invalid_parameter_value(
            f"actions of {action_space} are not supported yet; this version takes Box actions of floats."
        )
    if isinstance(action_space, spaces.Discrete) and action_space.start != 0:
        raise MlflowException.invalid_parameter_value(
            f"actions of {action_space} are not supported yet; this version takes Discrete actions that start at 0."
        )


def build(algo: str, description: str, hyperparams: dict[str, Any], *, seed: int) -> BaseAlgorithm:
    """Build an algorithm with environments of its own, ready to learn.

    Args:
        algo: Lower case, such as ``"dqn"``.
        description: The environment, as ``EnvSpec`` JSON.
        hyperparams: SB3's arguments as JSON values, and four more in rl_zoo3's notation: ``n_envs``, ``noise_type``,
            ``noise_std``, and ``"lin_0.001"`` for what falls linearly to 0.
        seed: SB3's seed.

    Raises:
        MlflowException: The spaces do not fit, or the algorithm refuses a hyperparameter.
    """
    cls = find(algo)
    check_hyperparams(algo, hyperparams)
    make_env = partial(environment.remake, description)
    with make_env() as env:
        check_spaces(algo, env.observation_space, env.action_space)
    try:
        vec_env = make_vec_env(make_env, n_envs=hyperparams.get("n_envs", 1))
        return cls(env=vec_env, seed=seed, **_arguments(hyperparams, vec_env.action_space))
    except REFUSALS as error:
        raise MlflowException.invalid_parameter_value(f"{algo} refuses these hyperparameters: {error}") from error


def check_hyperparams(algo: str, hyperparams: dict[str, Any]) -> None:
    """Refuse a hyperparameter that the algorithm does not have, before anything is built."""
    known = _known(find(algo))
    if unknown := sorted(set(hyperparams) - set(known)):
        raise MlflowException.invalid_parameter_value(
            f"{algo} has no hyperparameter {', '.join(map(repr, unknown))}; it has {', '.join(sorted(known))}."
        )
    if (policy := hyperparams.get("policy", "MlpPolicy")) != "MlpPolicy":
        raise MlflowException.invalid_parameter_value(f"policy {policy!r} is not supported yet; this version takes MlpPolicy.")


def resolve(algo: str, hyperparams: dict[str, Any]) -> dict[str, str]:
    """Every hyperparameter that training uses, given or SB3's default, as text for MLflow's parameters."""
    defaults = {key: default for key, default in _known(find(algo)).items() if default is not None}
    if hyperparams.get("noise_type") is not None:
        defaults["noise_std"] = NOISE_STD
    return {key: value if isinstance(value, str) else _text(value) for key, value in sorted((defaults | hyperparams).items())}


def _known(cls: type[BaseAlgorithm]) -> dict[str, Any]:
    """Hyperparameters and their defaults."""
    parameters = inspect.signature(cls).parameters.values()
    own = {parameter.name: parameter.default for parameter in parameters if parameter.name not in _NOT_HYPERPARAMS}
    noise = {"noise_type": None, "noise_std": None} if "action_noise" in inspect.signature(cls).parameters else {}
    return own | {"policy": "MlpPolicy", "n_envs": 1} | noise


def _arguments(hyperparams: dict[str, Any], action_space: Space[Any]) -> dict[str, Any]:
    """JSON values as SB3's arguments; the caller's are left as they are."""
    arguments = {"policy": "MlpPolicy"} | {key: _argument(key, value) for key, value in hyperparams.items()}
    arguments.pop("n_envs", None)
    noise_type, noise_std = arguments.pop("noise_type", None), arguments.pop("noise_std", NOISE_STD)
    if noise_type is not None:
        arguments["action_noise"] = _noise(noise_type, noise_std, action_space)
    return arguments


def _argument(key: str, value: Any) -> Any:
    if key in _SCHEDULES and isinstance(value, str):
        if not value.startswith("lin_"):
            raise ValueError(f"{key} is {value!r}; give a number, or 'lin_0.001' for one that falls linearly to 0")
        return LinearSchedule(start=float(value.removeprefix("lin_")), end=0.0, end_fraction=1.0)
    if key == "train_freq" and isinstance(value, list):
        return tuple(value)
    if key == "policy_kwargs" and value is not None:
        return {name: _class(item) if name.endswith(("_fn", "_class")) else item for name, item in value.items()}
    return value


def _class(name: str) -> type:
    """``"nn.ReLU"`` or ``"ReLU"``, ``"Adam"``, or SB3's own ``"RMSpropTFLike"``."""
    if name == RMSpropTFLike.__name__:
        return RMSpropTFLike
    short = name.rpartition("nn.")[2]
    found: type = getattr(torch.nn, short, None) or getattr(torch.optim, short)
    return found


def _noise(noise_type: str, noise_std: float, action_space: Space[Any]) -> ActionNoise:
    shape = action_space.shape or ()
    return _NOISES[noise_type](mean=np.zeros(shape), sigma=np.full(shape, noise_std))


def _names(types: tuple[type[Space[Any]], ...]) -> str:
    return " or ".join(cls.__name__ for cls in types)


def _text(value: Any) -> str:
    return json.dumps(value) if isinstance(value, (dict, list, tuple)) else str(value)
