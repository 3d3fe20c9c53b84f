"""Convert hyperparameters from JSON in rl_zoo3's notation to arguments of SB3's classes."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import stable_baselines3
import torch
from gymnasium import Space
from stable_baselines3.common import buffers, torch_layers
from stable_baselines3.common.noise import (
    ActionNoise,
    NormalActionNoise,
    OrnsteinUhlenbeckActionNoise,
)
from stable_baselines3.common.sb2_compat import rmsprop_tf_like
from stable_baselines3.common.utils import LinearSchedule

from mlflow_sb3.algorithms.class_names import is_class_name

DEFAULT_NOISE_STD = 0.1
"""Standard deviation of the action noise, if only ``noise_type`` is set."""
VEC_ENV_HYPERPARAMS = frozenset({"n_envs", "normalize"})
"""Hyperparameters of the ``VecEnv``. The others are arguments of the algorithm."""
_SCHEDULES = ("learning_rate", "clip_range", "clip_range_vf", "delta_std")
_LINEAR_PREFIX = "lin_"
_NOISE_TYPES: dict[str, type[NormalActionNoise | OrnsteinUhlenbeckActionNoise]] = {
    "normal": NormalActionNoise,
    "ornstein-uhlenbeck": OrnsteinUhlenbeckActionNoise,
}
_CLASS_MODULES = (torch.nn, torch.optim, torch_layers, rmsprop_tf_like, buffers, stable_baselines3)
"""Modules to search for a class that is named without its module."""
_CLASS_BASES = (torch.nn.Module, torch.optim.Optimizer, buffers.BaseBuffer)
"""Base classes of all classes that a hyperparameter can name."""


def to_algorithm_kwargs(hyperparams: dict[str, Any], action_space: Space[Any]) -> dict[str, Any]:
    """Return the keyword arguments for the constructor of an algorithm.

    Args:
        hyperparams: JSON values. They are not changed.
        action_space: Gives the shape of the action noise.

    Raises:
        ValueError: A value is invalid, or a class does not exist.
        ImportError: The module of a class cannot be imported.
    """
    own = {key: value for key, value in hyperparams.items() if key not in VEC_ENV_HYPERPARAMS}
    noise_type = own.pop("noise_type", None)
    noise_std = own.pop("noise_std", DEFAULT_NOISE_STD)
    kwargs = {key: _convert(key, value) for key, value in _import_classes(own).items()}
    if noise_type is not None:
        kwargs["action_noise"] = _make_noise(noise_type, noise_std, action_space)
    return kwargs


def to_vec_normalize_kwargs(hyperparams: dict[str, Any]) -> dict[str, Any] | None:
    """Return the keyword arguments for ``VecNormalize``.

    If ``hyperparams`` contains ``gamma``, ``VecNormalize`` gets the same value, unless
    ``normalize`` contains a ``gamma`` of its own.

    Returns:
        None if ``normalize`` is missing or false.

    Raises:
        ValueError: ``normalize`` is neither a Boolean nor a dict.
    """
    normalize = hyperparams.get("normalize")
    if not isinstance(normalize, (bool, dict, type(None))):
        raise ValueError(
            f"normalize is {normalize!r}. Use true, false, or arguments of VecNormalize such as "
            '{"norm_reward": false}.'
        )
    if normalize is None or normalize is False:
        return None
    discount = {"gamma": hyperparams["gamma"]} if "gamma" in hyperparams else {}
    return discount | (normalize if isinstance(normalize, dict) else {})


def find_class(name: str) -> type:
    """Import a class by name.

    Args:
        name: Class of PyTorch or SB3, such as ``"nn.ReLU"``, ``"Adam"`` or ``"HerReplayBuffer"``.
            For all other classes, ``"module:Class"``.

    Raises:
        ValueError: There is no such class, or it is neither a network module, nor an optimizer, nor
            a buffer.
        ImportError: The module cannot be imported.
    """
    module_name, colon, class_name = name.partition(":")
    if not colon:
        class_name = name.rpartition(".")[2]
    for module in [importlib.import_module(module_name)] if colon else _CLASS_MODULES:
        candidate = getattr(module, class_name, None)
        if isinstance(candidate, type) and issubclass(candidate, _CLASS_BASES):
            return candidate
        if colon and candidate is not None:
            raise ValueError(
                f"{name!r} is not a subclass of torch.nn.Module, torch.optim.Optimizer or SB3's "
                "BaseBuffer. Use a class that is."
            )
    raise ValueError(
        f"There is no class {name!r}. Use the name of a class of torch.nn, torch.optim or SB3, or "
        "'module:Class' for a class of another module."
    )


def _import_classes(values: dict[str, Any]) -> dict[str, Any]:
    """Replace class names by classes, in nested dicts too.

    Text is a class name if its key ends with ``_fn`` or ``_class``, as in ``activation_fn``.
    """
    return {key: _import_class(key, value) for key, value in values.items()}


def _import_class(key: str, value: Any) -> Any:
    if isinstance(value, dict):
        return _import_classes(value)
    if is_class_name(key, value):
        return find_class(value)
    return value


def _convert(key: str, value: Any) -> Any:
    """Convert a schedule such as ``"lin_0.001"``, and ``train_freq`` from a list to a tuple."""
    if key in _SCHEDULES and isinstance(value, str):
        if not value.startswith(_LINEAR_PREFIX):
            raise ValueError(
                f"{key} is {value!r}. Use a number, or a schedule such as 'lin_0.001', which "
                "decreases linearly from 0.001 to 0."
            )
        start = float(value.removeprefix(_LINEAR_PREFIX))
        return LinearSchedule(start=start, end=0.0, end_fraction=1.0)
    if key == "train_freq" and isinstance(value, list):
        return tuple(value)
    return value


def _make_noise(noise_type: str, noise_std: float, action_space: Space[Any]) -> ActionNoise:
    if noise_type not in _NOISE_TYPES:
        raise ValueError(f"noise_type is {noise_type!r}. Use {' or '.join(_NOISE_TYPES)}.")
    shape = action_space.shape or ()
    return _NOISE_TYPES[noise_type](mean=np.zeros(shape), sigma=np.full(shape, noise_std))
