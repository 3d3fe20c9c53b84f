"""A simulator that steps all environments at once, and functions that make its environments."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

MAX_STEPS = 12


class Walks(VecEnv):
    """Random walks to ``goal``. Action 1 is a step towards it, but fails with a probability.

    The only seed is that of the simulator. Each step costs 1, and the goal is a success.
    """

    render_mode = None

    def __init__(self, n_envs: int, seed: int, goal: int, failure: float) -> None:
        super().__init__(
            n_envs, spaces.Box(-MAX_STEPS, MAX_STEPS, (2,), np.float32), spaces.Discrete(2)
        )
        self.rng = np.random.default_rng(seed)
        self.goal, self.failure = goal, failure
        self.position = np.zeros(n_envs)
        self.steps = np.zeros(n_envs)
        self.actions = np.zeros(n_envs)
        self.is_closed = False

    def reset(self) -> NDArray[np.float32]:
        self.position[:] = self.rng.integers(-1, 2, self.num_envs)
        self.steps[:] = 0
        return self.observe()

    def step_async(self, actions: NDArray[Any]) -> None:
        self.actions = actions

    def step_wait(self) -> tuple[Any, NDArray[Any], NDArray[Any], list[dict[str, Any]]]:
        forward = (self.actions == 1) & (self.rng.random(self.num_envs) >= self.failure)
        self.position += np.where(forward, 1, -1)
        self.steps += 1
        arrived = self.position >= self.goal
        dones = arrived | (self.steps >= MAX_STEPS)
        observations = self.observe()
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for index in np.flatnonzero(dones):
            infos[index] = {
                "terminal_observation": observations[index].copy(),
                "TimeLimit.truncated": not arrived[index],
                "is_success": bool(arrived[index]),
            }
        self.position[dones] = self.rng.integers(-1, 2, int(dones.sum()))
        self.steps[dones] = 0
        return self.observe(), np.full(self.num_envs, -1.0, np.float32), dones, infos

    def observe(self) -> NDArray[np.float32]:
        return np.stack([self.position, self.steps], axis=1).astype(np.float32)

    def close(self) -> None:
        self.is_closed = True

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise NotImplementedError

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> Any:
        raise NotImplementedError

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:  # noqa: ARG002
        return [False] * len(list(self._get_indices(indices)))


def make_walks(n_envs: int, seed: int, goal: int = 4, failure: float = 0.2) -> VecEnv:
    return Walks(n_envs, seed, goal, failure)


def make_one_env(n_envs: int, seed: int) -> VecEnv:
    return Walks(n_envs + 1, seed, 4, 0.0)


def make_normalized(n_envs: int, seed: int) -> VecEnv:
    return VecNormalize(Walks(n_envs, seed, 4, 0.0))


def make_nothing(n_envs: int, seed: int) -> None:
    """Return nothing, as a function without ``return`` does."""


def make_late_start(n_envs: int, seed: int) -> VecEnv:
    env = Walks(n_envs, seed, 4, 0.0)
    env.action_space = spaces.Discrete(2, start=1)
    return env
