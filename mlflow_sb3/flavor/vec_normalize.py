"""Read the settings and statistics of a ``VecNormalize`` as JSON values, and restore them."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import Env, spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize, is_vecenv_wrapped

SETTINGS = (
    "norm_obs",
    "norm_reward",
    "clip_obs",
    "clip_reward",
    "gamma",
    "epsilon",
    "norm_obs_keys",
)

Statistics = dict[str, Any]
"""JSON values: the settings and all running statistics of a ``VecNormalize``, or the mean, the
variance and the count of one ``RunningMeanStd``."""


def read_statistics(model: BaseAlgorithm) -> Statistics | None:
    """Read the statistics of the ``VecNormalize`` around a model's environments.

    Returns:
        The statistics. None if the environments are not normalized.
    """
    vec_normalize = model.get_vec_normalize_env()
    if vec_normalize is None:
        return None
    settings = {name: getattr(vec_normalize, name) for name in SETTINGS}
    return settings | {
        "observations": _read_observation_statistics(vec_normalize),
        "returns": _to_json(vec_normalize.ret_rms),
    }


def set_statistics(vec_normalize: VecNormalize, statistics: Statistics) -> None:
    """Set the running means and variances of a ``VecNormalize``.

    It must have the observation space that the statistics were computed for.
    """
    vec_normalize.ret_rms = _from_json(statistics["returns"])
    observations = statistics["observations"]
    if isinstance(vec_normalize.observation_space, spaces.Dict):
        vec_normalize.obs_rms = {key: _from_json(values) for key, values in observations.items()}
    elif vec_normalize.norm_obs:
        # SB3 first assigns a dict to obs_rms, so mypy does not accept a RunningMeanStd.
        vec_normalize.obs_rms = _from_json(observations[""])  # type: ignore[assignment]


def wrap_vec_env(vec_env: VecEnv, statistics: Statistics) -> VecNormalize:
    """Wrap a VecEnv in a ``VecNormalize`` that starts with these statistics and updates them."""
    vec_normalize = VecNormalize(vec_env, **{name: statistics[name] for name in SETTINGS})
    set_statistics(vec_normalize, statistics)
    return vec_normalize


def wrap_env(env: Any, statistics: Statistics) -> VecEnv:
    """Wrap the ``env`` argument of SB3's ``load`` in a ``VecNormalize`` with these statistics.

    Args:
        env: A Gymnasium environment or a VecEnv. If it already has a ``VecNormalize``, it is
            returned unchanged.
        statistics: Settings and statistics of the new ``VecNormalize``.
    """
    vec_env = env if isinstance(env, VecEnv) else DummyVecEnv([lambda: Monitor(env)])
    if is_vecenv_wrapped(vec_env, VecNormalize):
        return vec_env
    return wrap_vec_env(vec_env, statistics)


def make_standalone(
    statistics: Statistics, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]
) -> VecNormalize:
    """Make a ``VecNormalize`` without a real environment, to normalize observations."""
    return wrap_vec_env(
        DummyVecEnv([lambda: _EnvWithSpaces(observation_space, action_space)]), statistics
    )


class _EnvWithSpaces(Env[Any, Any]):
    """An environment that has spaces, but cannot be reset or stepped."""

    def __init__(
        self, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]
    ) -> None:
        self.observation_space = observation_space
        self.action_space = action_space


def _read_observation_statistics(vec_normalize: VecNormalize) -> dict[str, Statistics]:
    """Return mean, variance and count by the key of a Dict space, or by ``""`` for other spaces."""
    if not vec_normalize.norm_obs:
        return {}
    moments = vec_normalize.obs_rms
    by_key = moments if isinstance(moments, dict) else {"": moments}
    return {key: _to_json(value) for key, value in by_key.items()}


def _to_json(moments: RunningMeanStd) -> Statistics:
    return {
        "mean": moments.mean.tolist(),
        "var": moments.var.tolist(),
        "count": float(moments.count),
    }


def _from_json(values: Statistics) -> RunningMeanStd:
    moments = RunningMeanStd(shape=np.shape(values["mean"]))
    moments.mean = np.array(values["mean"])
    moments.var = np.array(values["var"])
    moments.count = values["count"]
    return moments
