"""Play episodes in the environment of an ``EnvSpec`` JSON."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from mlflow_sb3.envs import env_spec, rollout, vec_env_factory
from mlflow_sb3.envs.rollout import MAX_ENVS, Episodes
from mlflow_sb3.inference.policy_protocol import Policy

if TYPE_CHECKING:
    from stable_baselines3.common.vec_env import VecEnv


def play_episodes(
    policy: Policy,
    env_spec_json: str,
    seeds: Sequence[int],
    *,
    on_episode: Callable[[], object] = lambda: None,
) -> Episodes:
    """Play one episode for each seed.

    Environments that a function makes (see ``vec_env_factory``) cannot start an episode from a
    seed. Their simulator gets the first seed, and each result has this seed.

    Args:
        policy: Policy that chooses the actions.
        env_spec_json: The environment, as ``EnvSpec`` JSON.
        seeds: At least one seed.
        on_episode: Called at the end of each episode, for example to update a progress bar.
    """
    if not vec_env_factory.is_vec_env(env_spec_json):
        make_env = partial(env_spec.make_from_spec, env_spec_json)
        return rollout.play_episodes(policy, make_env, seeds, on_episode=on_episode)
    n_envs = min(MAX_ENVS, len(seeds))
    vec_env = vec_env_factory.make_vec_env(env_spec_json, n_envs=n_envs, seed=seeds[0])
    try:
        vec_env.seed(seeds[0])  # for functions that leave it to this method
        returns, lengths, successes = _play_vec_env(policy, vec_env, len(seeds), on_episode)
    finally:
        vec_env.close()
    return Episodes(
        np.full(len(seeds), seeds[0], np.int64),
        np.array(returns),
        np.array(lengths, np.int64),
        None if None in successes else np.array(successes, np.bool_),
    )


def _play_vec_env(
    policy: Policy, vec_env: VecEnv, n_episodes: int, on_episode: Callable[[], object]
) -> tuple[list[float], list[int], list[Any]]:
    """Return the returns, lengths and values of ``is_success`` of episodes.

    The order is that of the environments, and does not depend on which episode ends first.
    Each environment plays the same number of episodes, or one more. If the first episodes to end
    counted instead, short episodes would be too frequent. SB3's ``evaluate_policy`` does the same.
    """
    n_envs = vec_env.num_envs
    remaining = np.array([(n_episodes + index) // n_envs for index in range(n_envs)])
    played: list[list[tuple[float, int, Any]]] = [[] for _ in range(n_envs)]
    total, length = np.zeros(n_envs), np.zeros(n_envs, np.int64)
    observations, state, starts = vec_env.reset(), None, np.ones(n_envs, bool)
    while remaining.any():
        actions, state = policy.predict(observations, state, starts)
        observations, rewards, dones, infos = vec_env.step(actions)
        total += rewards
        length += 1
        starts = np.asarray(dones, bool)
        for index in np.flatnonzero(starts & (remaining > 0)):
            is_success = infos[index].get("is_success")
            played[index].append((float(total[index]), int(length[index]), is_success))
            remaining[index] -= 1
            on_episode()
        total[starts], length[starts] = 0.0, 0
    returns, lengths, successes = zip(*itertools.chain(*played), strict=True)
    return list(returns), list(lengths), list(successes)
