"""JSON hyperparameters, in rl_zoo3's notation, as the arguments of SB3's algorithms and environments."""

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

NOISE_STD = 0.1
"""Of action noise that is asked for by its type alone."""
ENVIRONMENTAL = frozenset({"n_envs", "normalize"})
"""Hyperparameters that are no arguments of an algorithm, but of its vectorised environment."""
_SCHEDULES = ("learning_rate", "clip_range", "clip_range_vf", "delta_std")
_NOISES: dict[str, type[NormalActionNoise | OrnsteinUhlenbeckActionNoise]] = {
    "normal": NormalActionNoise,
    "ornstein-uhlenbeck": OrnsteinUhlenbeckActionNoise,
}
_CLASSES = (torch.nn, torch.optim, torch_layers, rmsprop_tf_like, buffers, stable_baselines3)


def of_algorithm(hyperparams: dict[str, Any], action_space: Space[Any]) -> dict[str, Any]:
    """Arguments of an algorithm; the caller's values are left as they are.

    Raises:
        ValueError: A value cannot be read.
        AttributeError, ImportError: A class is not where its name says.
    """
    own = {key: value for key, value in hyperparams.items() if key not in ENVIRONMENTAL}
    noise_type, noise_std = own.pop("noise_type", None), own.pop("noise_std", NOISE_STD)
    arguments = {key: _argument(key, value) for key, value in _with_classes(own).items()}
    if noise_type is not None:
        arguments["action_noise"] = _noise(noise_type, noise_std, action_space)
    return arguments


def of_normalization(hyperparams: dict[str, Any]) -> dict[str, Any] | None:
    """Arguments of ``VecNormalize``, which discounts as the algorithm does where that is given; None for no normalisation."""
    normalize = hyperparams.get("normalize")
    if not isinstance(normalize, (bool, dict, type(None))):
        raise ValueError(
            f"normalize is {normalize!r}; give true, false, or arguments of VecNormalize as {{'norm_reward': false}}"
        )
    if normalize is None or normalize is False:
        return None
    discount = {"gamma": hyperparams["gamma"]} if "gamma" in hyperparams else {}
    return discount | (normalize if isinstance(normalize, dict) else {})


def find_class(name: str) -> type:
    """A class by its name: ``"nn.ReLU"``, ``"Adam"``, SB3's ``"NatureCNN"`` or ``"HerReplayBuffer"``, or any ``"module:Class"``."""
    module, colon, own = name.partition(":")
    places = (importlib.import_module(module),) if colon else _CLASSES
    short = own if colon else name.rpartition(".")[2]
    found = next(
        (
            getattr(place, short)
            for place in places
            if isinstance(getattr(place, short, None), type)
        ),
        None,
    )
    if found is None:
        raise ValueError(
            f"{name!r} is no class of torch.nn, torch.optim or SB3; give 'module:Class' for one that is elsewhere"
        )
    named: type = found
    return named


def _with_classes(values: dict[str, Any]) -> dict[str, Any]:
    """Names of classes replaced by the classes: those of keys such as ``activation_fn`` and ``replay_buffer_class``."""
    return {key: _with_class(key, value) for key, value in values.items()}


def _with_class(key: str, value: Any) -> Any:
    if isinstance(value, dict):
        return _with_classes(value)
    return (
        find_class(value) if isinstance(value, str) and key.endswith(("_fn", "_class")) else value
    )


def _argument(key: str, value: Any) -> Any:
    if key in _SCHEDULES and isinstance(value, str):
        if not value.startswith("lin_"):
            raise ValueError(
                f"{key} is {value!r}; give a number, or 'lin_0.001' for one that falls linearly to 0"
            )
        return LinearSchedule(start=float(value.removeprefix("lin_")), end=0.0, end_fraction=1.0)
    if key == "train_freq" and isinstance(value, list):
        return tuple(value)
    return value


def _noise(noise_type: str, noise_std: float, action_space: Space[Any]) -> ActionNoise:
    if noise_type not in _NOISES:
        raise ValueError(f"noise_type is {noise_type!r}; give {' or '.join(_NOISES)}")
    shape = action_space.shape or ()
    return _NOISES[noise_type](mean=np.zeros(shape), sigma=np.full(shape, noise_std))
