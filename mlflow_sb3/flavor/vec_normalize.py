"""What a VecNormalize has learned, as JSON values: out of it, into another one, nothing pickled."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import Env, spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize, is_vecenv_wrapped

_SETTINGS = (
    "norm_obs",
    "norm_reward",
    "clip_obs",
    "clip_reward",
    "gamma",
    "epsilon",
    "norm_obs_keys",
)

Statistics = dict[str, Any]


def read_statistics(model: BaseAlgorithm) -> Statistics | None:
    """The settings and the statistics of the VecNormalize that a model learns in; None without one."""
    vec_normalize = model.get_vec_normalize_env()
    if vec_normalize is None:
        return None
    settings = {name: getattr(vec_normalize, name) for name in _SETTINGS}
    return settings | {
        "observations": _observations(vec_normalize),
        "returns": _numbers(vec_normalize.ret_rms),
    }


def set_statistics(vec_normalize: VecNormalize, statistics: Statistics) -> None:
    """Give a VecNormalize the statistics that ``read`` found in one of the same observation space."""
    vec_normalize.ret_rms = _moments(statistics["returns"])
    if isinstance(vec_normalize.observation_space, spaces.Dict):
        vec_normalize.obs_rms = {
            key: _moments(numbers) for key, numbers in statistics["observations"].items()
        }
    elif vec_normalize.norm_obs:
        vec_normalize.obs_rms = _moments(statistics["observations"][""])  # type: ignore[assignment]  # as SB3 does


def wrap_vec_env(vec_env: VecEnv, statistics: Statistics) -> VecNormalize:
    """Put a VecNormalize with these settings and statistics around environments; it goes on learning them."""
    vec_normalize = VecNormalize(vec_env, **{name: statistics[name] for name in _SETTINGS})
    set_statistics(vec_normalize, statistics)
    return vec_normalize


def wrap_env(env: Any, statistics: Statistics) -> VecEnv:
    """The environment, or environments, that SB3 was given, with these statistics; a VecNormalize of the caller's own stays as it is."""
    vec_env = env if isinstance(env, VecEnv) else DummyVecEnv([lambda: Monitor(env)])
    return (
        vec_env if is_vecenv_wrapped(vec_env, VecNormalize) else wrap_vec_env(vec_env, statistics)
    )


def standalone(
    statistics: Statistics, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]
) -> VecNormalize:
    """A VecNormalize of no real environment, to normalize observations with."""
    return wrap_vec_env(
        DummyVecEnv([lambda: _Nowhere(observation_space, action_space)]), statistics
    )


class _Nowhere(Env[Any, Any]):
    """Spaces without an environment."""

    def __init__(
        self, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]
    ) -> None:
        self.observation_space = observation_space
        self.action_space = action_space


def _observations(vec_normalize: VecNormalize) -> dict[str, Statistics]:
    """Mean, variance and count by the key of a Dict space, or by the empty text."""
    if not vec_normalize.norm_obs:
        return {}
    moments = (
        vec_normalize.obs_rms
        if isinstance(vec_normalize.obs_rms, dict)
        else {"": vec_normalize.obs_rms}
    )
    return {key: _numbers(one) for key, one in moments.items()}


def _numbers(moments: RunningMeanStd) -> Statistics:
    return {
        "mean": moments.mean.tolist(),
        "var": moments.var.tolist(),
        "count": float(moments.count),
    }


def _moments(numbers: Statistics) -> RunningMeanStd:
    moments = RunningMeanStd(shape=np.shape(numbers["mean"]))
    moments.mean, moments.var, moments.count = (
        np.array(numbers["mean"]),
        np.array(numbers["var"]),
        numbers["count"],
    )
    return moments
