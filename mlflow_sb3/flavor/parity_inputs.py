"""Make the inputs on which an exported graph is compared with SB3."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Dict
from gymnasium.spaces import Space as GymSpace
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm

from mlflow_sb3.envs import env_spec, rollout
from mlflow_sb3.flavor.sb3_policy import SB3Policy
from mlflow_sb3.flavor.source_env import SourceEnv
from mlflow_sb3.inference import batching
from mlflow_sb3.inference.batching import Observations
from mlflow_sb3.inference.onnx_policy import OnnxPolicy
from mlflow_sb3.inference.policy_inputs import STATE_NAMES, LstmState

N_SAMPLED = 256
"""Number of observations that are sampled from the observation space."""
N_VISITED = 256
"""Number of observations from episodes of the agent."""
MAX_BOUND = 1e6
"""Largest bound of sampled floats. Rounding errors of larger floats exceed the tolerance."""
_EPISODE_START_FRACTION = 0.25
_ALLOWED_FRACTION = 0.5


@dataclass(frozen=True)
class ParityInputs:
    """A batch of inputs for a graph and for SB3."""

    observations: Observations
    from_episodes: int
    """Number of observations from episodes. They are the first rows."""
    state: LstmState | None = None
    """LSTM state of a recurrent policy."""
    episode_start: NDArray[np.bool_] | None = None
    masks: NDArray[np.bool_] | None = None
    """Action masks of a masked policy."""

    def split(self, sizes: tuple[int, ...]) -> list[ParityInputs]:
        """Split the batch into parts of these sizes, and a last part with the remaining rows.

        ``from_episodes`` of every part is that of the whole batch.
        """
        edges = [0, *np.cumsum(sizes).tolist(), batching.get_batch_size(self.observations)]
        return [self._take_rows(slice(*edge)) for edge in pairwise(edges)]

    def _take_rows(self, rows: slice) -> ParityInputs:
        return ParityInputs(
            batching.take_rows(self.observations, rows),
            self.from_episodes,
            None if self.state is None else tuple(part[:, rows] for part in self.state),
            None if self.episode_start is None else self.episode_start[rows],
            None if self.masks is None else self.masks[rows],
        )


def make_parity_inputs(model: BaseAlgorithm, policy: OnnxPolicy, source: SourceEnv) -> ParityInputs:
    """Return observations from episodes and from the whole space, with random states and masks.

    Args:
        model: Algorithm that plays the episodes.
        policy: Exported policy.
        source: Training environment. Without an ``EnvSpec``, there are no episodes.
    """
    visited = _visit_observations(model, source)
    sampled = sample_observations(source.observation_space, N_SAMPLED)
    observations = sampled if visited is None else batching.concatenate([visited, sampled])
    count = batching.get_batch_size(observations)
    rng = np.random.default_rng(0)
    state = episode_start = masks = None
    if policy.inputs.state_shape is not None:
        layers, units = policy.inputs.state_shape
        shape = (layers, count, units)
        state = tuple(rng.uniform(-1, 1, shape).astype(np.float32) for _ in STATE_NAMES)
        episode_start = rng.random(count) < _EPISODE_START_FRACTION
    if policy.inputs.action_sizes is not None:
        masks = _sample_masks(rng, count, policy.inputs.action_sizes)
    return ParityInputs(observations, count - N_SAMPLED, state, episode_start, masks)


def sample_observations(observation_space: GymSpace[Any], count: int) -> Observations:
    """Sample a batch of observations with seed 0. The random state of the space is not changed."""
    space = _limit_bounds(observation_space)
    space.seed(0)
    return batching.stack_observations([space.sample() for _ in range(count)])


def _limit_bounds(space: GymSpace[Any]) -> GymSpace[Any]:
    """Return a copy of a space. Finite bounds of floats are clipped to ``MAX_BOUND``."""
    if isinstance(space, Dict):
        return Dict({key: _limit_bounds(subspace) for key, subspace in space.spaces.items()})
    if isinstance(space, Box) and space.dtype.kind == "f":
        low, high = (
            np.where(np.isfinite(bound), np.clip(bound, -MAX_BOUND, MAX_BOUND), bound)
            for bound in (space.low, space.high)
        )
        return Box(low.astype(space.dtype), high.astype(space.dtype), dtype=space.dtype)
    return copy.deepcopy(space)


def _sample_masks(
    rng: np.random.Generator, count: int, action_sizes: tuple[int, ...]
) -> NDArray[np.bool_]:
    """Return random masks that allow at least one value of every integer of an action."""
    masks = []
    for size in action_sizes:
        mask = rng.random((count, size)) < _ALLOWED_FRACTION
        mask[np.arange(count), rng.integers(size, size=count)] = True
        masks.append(mask)
    return np.concatenate(masks, axis=1)


def _visit_observations(model: BaseAlgorithm, source: SourceEnv) -> Observations | None:
    """Return ``N_VISITED`` observations of episodes. None if the environment has no ``EnvSpec``."""
    if source.description is None:
        return None
    policy = SB3Policy.from_algorithm(model, source.observation_space, source.action_space)
    observations: list[Any] = []
    with env_spec.make_from_spec(source.description) as env:
        observation, _ = env.reset(seed=0)
        state, episode_start = None, np.ones(1, bool)
        while len(observations) < N_VISITED:
            observations.append(copy.deepcopy(observation))
            actions, state = policy.predict(
                batching.stack_observations([observation]),
                state,
                episode_start,
                action_masks=rollout.get_action_masks(policy, [env]),
            )
            observation, _, terminated, truncated, _ = env.step(actions[0])
            episode_start = np.array([terminated or truncated])
            if episode_start[0]:
                observation, _ = env.reset()
    return batching.stack_observations(observations)
