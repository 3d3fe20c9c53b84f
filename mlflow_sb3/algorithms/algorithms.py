"""SB3 algorithms by name: what each of them takes, and how it is built from JSON hyperparameters."""

from __future__ import annotations

import importlib
import inspect
import json
from dataclasses import dataclass
from typing import Any

import gymnasium
from gymnasium import Space, spaces
from mlflow.exceptions import MlflowException
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.vec_env import VecEnv, VecNormalize
from stable_baselines3.her import HerReplayBuffer

from mlflow_sb3.algorithms.hyperparams import NOISE_STD, find_class, of_algorithm, of_normalization
from mlflow_sb3.envs import env_spec
from mlflow_sb3.envs.wrapper_config import Env
from mlflow_sb3.wrappers import ZeroStart, zero_start

Spaces = tuple[type[Space[Any]], ...]


@dataclass(frozen=True)
class Algorithm:
    """Where an algorithm is found, and the action spaces that it takes."""

    module: str
    name: str
    actions: Spaces


_CONTINUOUS: Spaces = (spaces.Box,)
_DISCRETE: Spaces = (spaces.Discrete,)
_MASKABLE: Spaces = (spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
_ALL: Spaces = (spaces.Box, *_MASKABLE)

ALGORITHMS = {
    "a2c": Algorithm("stable_baselines3", "A2C", _ALL),
    "ars": Algorithm("sb3_contrib", "ARS", (spaces.Box, spaces.Discrete)),
    "crossq": Algorithm("sb3_contrib", "CrossQ", _CONTINUOUS),
    "ddpg": Algorithm("stable_baselines3", "DDPG", _CONTINUOUS),
    "dqn": Algorithm("stable_baselines3", "DQN", _DISCRETE),
    "ppo": Algorithm("stable_baselines3", "PPO", _ALL),
    "ppo_lstm": Algorithm(
        "sb3_contrib", "RecurrentPPO", _ALL[:-1]
    ),  # sb3-contrib 2.9 cannot learn MultiBinary actions with it
    "ppo_mask": Algorithm("sb3_contrib", "MaskablePPO", _MASKABLE),
    "qrdqn": Algorithm("sb3_contrib", "QRDQN", _DISCRETE),
    "sac": Algorithm("stable_baselines3", "SAC", _CONTINUOUS),
    "td3": Algorithm("stable_baselines3", "TD3", _CONTINUOUS),
    "tqc": Algorithm("sb3_contrib", "TQC", _CONTINUOUS),
    "trpo": Algorithm("sb3_contrib", "TRPO", _ALL),
}
"""The algorithms by rl_zoo3's names, or by that of the module for MaskablePPO, which rl_zoo3 does not have."""
ACTION_SPACES: dict[str, Spaces] = {
    name: algorithm.actions for name, algorithm in ALGORITHMS.items()
}

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
"""What SB3, PyTorch and environments raise when hyperparameters do not fit, be it when they are built or while they learn."""
_NOT_HYPERPARAMS = frozenset(
    {
        "self",
        "env",
        "seed",
        "device",
        "verbose",
        "tensorboard_log",
        "action_noise",
        "_init_setup_model",
    }
)
_NOT_TAKEN = {
    "callback": "training has callbacks of its own; leave it out, or call mlflow_sb3.training.loop.train with callbacks",
    "vec_env_wrapper": "it wraps environments together, which an EnvSpec cannot record; wrap each of them by env_wrapper",
}
"""Of rl_zoo3's notation, and why not."""
_OBSERVATIONS: Spaces = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
_GOAL = ("observation", "achieved_goal", "desired_goal")
_FLATTEN = 'wrappers=["gymnasium.wrappers:FlattenObservation"]'
_MASK = 'wrappers=[{"mlflow_sb3.wrappers:ActionMasks": {"method": "valid_actions"}}]'


def find_algorithm(algo: str) -> type[BaseAlgorithm]:
    """The SB3 class of a name such as ``"dqn"``."""
    if algo not in ALGORITHMS:
        raise MlflowException.invalid_parameter_value(
            f"algorithm {algo!r} is unknown; take one of {', '.join(ALGORITHMS)}."
        )
    found: type[BaseAlgorithm] = getattr(
        importlib.import_module(ALGORITHMS[algo].module), ALGORITHMS[algo].name
    )
    return found


def check_spaces(algo: str, observation_space: Space[Any], action_space: Space[Any]) -> None:
    """Refuse spaces that SB3's algorithm does not take.

    Raises:
        MlflowException: In one sentence, what does not fit and what would.
    """
    _check_observations(observation_space)
    if (policy := _default_policy(algo, observation_space)) not in find_algorithm(
        algo
    ).policy_aliases:
        raise MlflowException.invalid_parameter_value(
            f"{algo} does not fit observations of {observation_space}: it has no {policy}; use another algorithm, or {_FLATTEN}."
        )
    _check_actions(algo, action_space)


def _check_observations(space: Space[Any]) -> None:
    parts = list(space.spaces.values()) if isinstance(space, spaces.Dict) else [space]
    wrong = [
        part
        for part in parts
        if not isinstance(part, _OBSERVATIONS)
        or (isinstance(part, spaces.MultiDiscrete) and _is_grid(part))
    ]
    if wrong:
        kind = (
            "MultiDiscrete of several dimensions" if _is_grid(wrong[0]) else type(wrong[0]).__name__
        )
        raise MlflowException.invalid_parameter_value(
            f"observations of {space} do not fit: SB3 takes {_names(_OBSERVATIONS)}, or a flat Dict of them, but no {kind} in it; "
            f"flatten them, with {_FLATTEN}."
        )


def _check_actions(algo: str, space: Space[Any]) -> None:
    if not isinstance(space, ACTION_SPACES[algo]):
        fitting = [name for name, actions in ACTION_SPACES.items() if isinstance(space, actions)]
        raise MlflowException.invalid_parameter_value(
            f"{algo} does not fit the action space {space}: it takes {_names(ACTION_SPACES[algo])}; "
            + (
                f"use {', '.join(fitting)}."
                if fitting
                else "no algorithm takes these actions; wrap the environment."
            )
        )
    if isinstance(space, spaces.Box) and (space.dtype.kind != "f" or not space.is_bounded()):
        raise MlflowException.invalid_parameter_value(
            f"actions of {space} do not fit: SB3 takes Box actions of floats with finite bounds; wrap the environment."
        )
    if _is_grid(space):
        raise MlflowException.invalid_parameter_value(
            f"actions of {space} do not fit: SB3 takes {type(space).__name__} actions of one dimension; wrap the environment."
        )


def _is_grid(space: Space[Any]) -> bool:
    """Whether a MultiDiscrete or MultiBinary has several dimensions."""
    return isinstance(space, (spaces.MultiDiscrete, spaces.MultiBinary)) and len(space.shape) > 1


def check(algo: str, hyperparams: dict[str, Any], env: Env) -> None:
    """Refuse an environment that the algorithm cannot learn in, with these hyperparameters.

    Raises:
        MlflowException: Its spaces do not fit, or it lacks masks or goals that are asked for.
    """
    check_spaces(algo, env.observation_space, env.action_space)
    if algo == "ppo_mask" and not env.has_wrapper_attr("action_masks"):
        raise MlflowException.invalid_parameter_value(
            f"ppo_mask needs an environment with action_masks(), which {env} does not have; give it one, "
            f"or name a method of it that returns the mask, with {_MASK}."
        )
    if _hindsight(hyperparams) and not _has_goals(env):
        raise MlflowException.invalid_parameter_value(
            f"HerReplayBuffer needs an environment with goals, observations of a Dict with {', '.join(_GOAL)} and a method compute_reward, "
            f"which {env} is not; leave out replay_buffer_class, or take such an environment."
        )


def _hindsight(hyperparams: dict[str, Any]) -> bool:
    named = hyperparams.get("replay_buffer_class")
    return isinstance(named, str) and issubclass(_find_class(named), HerReplayBuffer)


def _find_class(name: str) -> type:
    try:
        return find_class(name)
    except TRAINING_ERRORS as error:
        raise MlflowException.invalid_parameter_value(
            f"class {name!r} cannot be found: {error}."
        ) from error


def _has_goals(env: Env) -> bool:
    space = env.observation_space
    return (
        isinstance(space, spaces.Dict)
        and set(_GOAL) <= set(space.spaces)
        and env.has_wrapper_attr("compute_reward")
    )


def trainable(env: Env) -> Env:
    """The environment as SB3 can learn in it: what is discrete counts from 0. Itself, where it does so already."""
    pairs = ((space, zero_start(space)) for space in (env.observation_space, env.action_space))
    return env if all(space is zeroed for space, zeroed in pairs) else ZeroStart(env)


def build(algo: str, description: str, hyperparams: dict[str, Any], *, seed: int) -> BaseAlgorithm:
    """Build an algorithm with environments of its own, ready to learn.

    Args:
        algo: Lower case, such as ``"dqn"``.
        description: The environment, as ``EnvSpec`` JSON.
        hyperparams: SB3's arguments as JSON values, and more in rl_zoo3's notation: ``n_envs``; ``normalize`` (true, or
            arguments of ``VecNormalize``); ``noise_type``, ``noise_std``; ``"lin_0.001"`` for what falls linearly to 0;
            names for classes, as in ``replay_buffer_class`` and ``policy_kwargs``. Without ``policy``, the one for the observations.
        seed: SB3's seed.

    Raises:
        MlflowException: The spaces do not fit, or the algorithm refuses a hyperparameter.
    """
    check_hyperparams(algo, hyperparams)
    with env_spec.make_from_spec(description) as env:
        check(algo, hyperparams, env)
        chosen = hyperparams | {"policy": _policy(algo, hyperparams, env.observation_space)}
    try:
        learning = vec_env(description, hyperparams)
        return find_algorithm(algo)(
            env=learning, seed=seed, **of_algorithm(chosen, learning.action_space)
        )
    except TRAINING_ERRORS as error:
        raise MlflowException.invalid_parameter_value(
            f"{algo} refuses these hyperparameters: {error}"
        ) from error


def vec_env(description: str, hyperparams: dict[str, Any]) -> VecEnv:
    """Environments as an algorithm learns in them: ``n_envs`` at once, and normalized, if the hyperparameters say so."""
    envs = make_vec_env(
        lambda: trainable(env_spec.make_from_spec(description)), n_envs=hyperparams.get("n_envs", 1)
    )
    normalization = of_normalization(hyperparams)
    return envs if normalization is None else VecNormalize(envs, **normalization)


def check_hyperparams(algo: str, hyperparams: dict[str, Any]) -> None:
    """Refuse a hyperparameter that the algorithm does not have, before anything is built."""
    known, policies = _known(algo), find_algorithm(algo).policy_aliases
    if refused := sorted(set(hyperparams) & set(_NOT_TAKEN)):
        raise MlflowException.invalid_parameter_value(
            f"hyperparameter {refused[0]!r} is not taken: {_NOT_TAKEN[refused[0]]}."
        )
    if unknown := sorted(set(hyperparams) - set(known)):
        raise MlflowException.invalid_parameter_value(
            f"{algo} has no hyperparameter {', '.join(map(repr, unknown))}{_owners(unknown[0])}; it has {', '.join(sorted(known))}."
        )
    if (policy := hyperparams.get("policy")) is not None and policy not in list(policies):
        raise MlflowException.invalid_parameter_value(
            f"{algo} has no policy {policy!r}; it has {', '.join(sorted(policies))}."
        )


def resolve(
    algo: str, hyperparams: dict[str, Any], observation_space: Space[Any]
) -> dict[str, str]:
    """Every hyperparameter that training uses, given or SB3's default, as text for MLflow's parameters."""
    used = {
        key: default for key, default in _known(algo).items() if default is not None
    } | hyperparams
    used["policy"] = _policy(algo, hyperparams, observation_space)
    if hyperparams.get("noise_type") is not None:
        used.setdefault("noise_std", NOISE_STD)
    return {
        key: value if isinstance(value, str) else _text(value)
        for key, value in sorted(used.items())
    }


def plain_hyperparams(algo: str, model: BaseAlgorithm) -> dict[str, str]:
    """The hyperparameters of an algorithm that was loaded, as text, as far as they are plain values."""
    values = {key: getattr(model, key, None) for key in _known(algo)}
    return {
        key: _text(value)
        for key, value in sorted(values.items())
        if isinstance(value, (bool, int, float, str))
    }


def _policy(algo: str, hyperparams: dict[str, Any], observation_space: Space[Any]) -> str:
    policy: str = hyperparams.get("policy") or _default_policy(algo, observation_space)
    return policy


def _default_policy(algo: str, observation_space: Space[Any]) -> str:
    kind = (
        "MultiInput"
        if isinstance(observation_space, spaces.Dict)
        else "Cnn"
        if is_image_space(observation_space)
        else "Mlp"
    )
    recurrent = "MlpLstmPolicy" in find_algorithm(algo).policy_aliases
    return f"{kind}LstmPolicy" if recurrent else f"{kind}Policy"


def _known(algo: str) -> dict[str, Any]:
    """Hyperparameters and their defaults."""
    parameters = inspect.signature(find_algorithm(algo)).parameters
    own = {
        name: parameter.default
        for name, parameter in parameters.items()
        if name not in _NOT_HYPERPARAMS
    }
    noise = {"noise_type": None, "noise_std": None} if "action_noise" in parameters else {}
    return own | {"policy": None, "n_envs": 1, "normalize": None} | noise


def _owners(hyperparam: str) -> str:
    """The algorithms that do have a hyperparameter."""
    owners = [algo for algo in ALGORITHMS if hyperparam in _known(algo)]
    return f" (which {', '.join(owners)} have)" if owners else ""


def _names(types: Spaces) -> str:
    return " or ".join(cls.__name__ for cls in types)


def _text(value: Any) -> str:
    return json.dumps(value) if isinstance(value, (dict, list, tuple)) else str(value)
