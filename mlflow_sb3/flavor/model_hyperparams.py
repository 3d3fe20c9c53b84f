"""Read the hyperparameters of an SB3 algorithm that exists already."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.type_aliases import TrainFreq, TrainFrequencyUnit
from stable_baselines3.common.utils import ConstantSchedule, FloatSchedule, LinearSchedule

from mlflow_sb3.flavor import vec_normalize

OTHER_ARGUMENTS = frozenset(
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
"""Arguments of SB3's constructors that are not hyperparameters."""


def read_hyperparams(model: BaseAlgorithm) -> dict[str, str]:
    """Return the hyperparameters of an algorithm as text, by the names of SB3's arguments.

    Classes and functions have their names, and constant schedules their value. Arguments that are
    None or empty are left out. ``n_envs`` and ``normalize`` describe the environments.
    """
    values = {name: getattr(model, name, None) for name in _list_arguments(type(model))}
    values["policy"] = _get_policy_name(model)
    values["n_envs"] = model.n_envs
    values["normalize"] = _read_normalization(model)
    values["action_noise"] = getattr(model, "action_noise", None)
    plain = {name: _to_json(value) for name, value in sorted(values.items())}
    return {
        name: json.dumps(value) if isinstance(value, (dict, list)) else str(value)
        for name, value in plain.items()
        if value is not None and value != {}
    }


def _list_arguments(cls: type[BaseAlgorithm]) -> list[str]:
    """Return the arguments of the first constructor that has no ``**kwargs``."""
    for base in cls.__mro__:
        parameters = inspect.signature(base).parameters
        if all(one.kind is not inspect.Parameter.VAR_KEYWORD for one in parameters.values()):
            return [name for name in parameters if name not in OTHER_ARGUMENTS]
    return []


def _get_policy_name(model: BaseAlgorithm) -> str:
    aliases = type(model).policy_aliases
    return next(
        (name for name, cls in aliases.items() if cls is model.policy_class),
        model.policy_class.__name__,
    )


def _read_normalization(model: BaseAlgorithm) -> dict[str, Any] | None:
    statistics = vec_normalize.read_statistics(model)
    if statistics is None:
        return None
    return {name: value for name, value in statistics.items() if name in vec_normalize.SETTINGS}


def _to_json(value: Any) -> Any:
    """Return a hyperparameter as JSON value, with a readable text where JSON has no value."""
    if isinstance(value, (bool, int, float, str, type(None))):
        return value
    if isinstance(value, TrainFreq):
        is_steps = value.unit is TrainFrequencyUnit.STEP
        return value.frequency if is_steps else [value.frequency, value.unit.value]
    if isinstance(value, dict):
        return {str(key): _to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_to_json(item) for item in value]
    return _describe_callable(value) if callable(value) else str(value)


def _describe_callable(value: Callable[..., Any]) -> Any:
    """Return a schedule in the notation of ``train``, or the name of a class or function."""
    if isinstance(value, ActionNoise):
        return repr(value)
    if isinstance(value, FloatSchedule):
        return _describe_callable(value.value_schedule)
    if isinstance(value, ConstantSchedule):
        return value.val
    if isinstance(value, LinearSchedule):
        is_plain = value.end == 0 and value.end_fraction == 1
        return f"lin_{value.start}" if is_plain else repr(value)
    return getattr(value, "__name__", type(value).__name__)
