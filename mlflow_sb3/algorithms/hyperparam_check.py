"""Check the names of hyperparameters, and complete them with SB3's defaults."""

from __future__ import annotations

import inspect
import json
from typing import Any

from gymnasium import Space
from mlflow.exceptions import MlflowException

from mlflow_sb3.algorithms.algorithms import ALGORITHMS, get_algorithm_class, get_default_policy
from mlflow_sb3.algorithms.hyperparams import DEFAULT_NOISE_STD
from mlflow_sb3.client.suggestion import suggest
from mlflow_sb3.flavor.model_hyperparams import OTHER_ARGUMENTS

_UNSUPPORTED = {
    "callback": (
        "Training has its own callbacks. Remove it, or call mlflow_sb3.training.loop.train with "
        "your callbacks."
    ),
    "vec_env_wrapper": (
        "An EnvSpec cannot record a wrapper of a whole VecEnv. Wrap each environment with "
        "env_wrapper."
    ),
}
"""Keys of rl_zoo3 that are not supported, with the reason and the remedy."""


def check_hyperparams(algo: str, hyperparams: dict[str, Any]) -> None:
    """Check that an algorithm has these hyperparameters and this policy.

    Raises:
        MlflowException: A name is unknown or not supported.
    """
    known = list_defaults(algo)
    if unsupported := sorted(set(hyperparams) & set(_UNSUPPORTED)):
        raise MlflowException.invalid_parameter_value(
            f"Hyperparameter {unsupported[0]!r} is not supported. {_UNSUPPORTED[unsupported[0]]}"
        )
    if unknown := sorted(set(hyperparams) - set(known)):
        raise MlflowException.invalid_parameter_value(
            f"{algo} has no hyperparameter {', '.join(map(repr, unknown))}. "
            f"{_suggest_algorithms(unknown[0]) or f'{suggest(unknown[0], known).lstrip()} '}"
            f"Use {', '.join(sorted(known))}."
        )
    policies = get_algorithm_class(algo).policy_aliases
    policy = hyperparams.get("policy")
    if policy is not None and policy not in list(policies):
        raise MlflowException.invalid_parameter_value(
            f"{algo} has no policy {policy!r}. Use {', '.join(sorted(policies))}."
        )


def get_policy(algo: str, hyperparams: dict[str, Any], observation_space: Space[Any]) -> str:
    """Return the policy name from the hyperparameters, or else the default for the space."""
    return str(hyperparams.get("policy") or get_default_policy(algo, observation_space))


def resolve_hyperparams(
    algo: str, hyperparams: dict[str, Any], observation_space: Space[Any]
) -> dict[str, str]:
    """Complete hyperparameters with SB3's defaults.

    Returns:
        The hyperparameters as text, for MLflow's parameters. Defaults that are None are left out.
    """
    defaults = {key: value for key, value in list_defaults(algo).items() if value is not None}
    resolved = defaults | hyperparams
    resolved["policy"] = get_policy(algo, hyperparams, observation_space)
    if hyperparams.get("noise_type") is not None:
        resolved.setdefault("noise_std", DEFAULT_NOISE_STD)
    return {key: _to_text(value) for key, value in sorted(resolved.items())}


def list_defaults(algo: str) -> dict[str, Any]:
    """Return the hyperparameters of an algorithm with their defaults."""
    parameters = inspect.signature(get_algorithm_class(algo)).parameters
    defaults = {
        name: parameter.default
        for name, parameter in parameters.items()
        if name not in OTHER_ARGUMENTS
    }
    noise = {"noise_type": None, "noise_std": None} if "action_noise" in parameters else {}
    return defaults | {"policy": None, "n_envs": 1, "normalize": None} | noise


def _suggest_algorithms(hyperparam: str) -> str:
    """Return a sentence with the algorithms that have a hyperparameter, or an empty text."""
    algos = [algo for algo in ALGORITHMS if hyperparam in list_defaults(algo)]
    return f"It is a hyperparameter of {', '.join(algos)}. " if algos else ""


def _to_text(value: Any) -> str:
    return json.dumps(value) if isinstance(value, (dict, list, tuple)) else str(value)
