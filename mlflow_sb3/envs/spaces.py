"""Gymnasium's spaces: what a policy has to know of them, and how SB3 shows them to its networks."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import Space as GymSpace
from gymnasium import spaces
from numpy.typing import NDArray

from mlflow_sb3.inference.policy_inputs import OBSERVATION, SpaceInfo

_IMAGE_DIMENSIONS = 3


def describe_space(space: GymSpace[Any]) -> SpaceInfo:
    """A space in plain values."""
    if isinstance(space, spaces.Dict):
        return SpaceInfo(
            str(space), spaces={key: describe_space(inner) for key, inner in space.spaces.items()}
        )
    low, high = _limits(space)
    return SpaceInfo(str(space), tuple(space.shape or ()), str(space.dtype), low, high)


def rebuild_space(space: SpaceInfo) -> GymSpace[Any]:
    """A space of Gymnasium again, with no other bounds than those of integers."""
    if space.spaces is not None:
        return spaces.Dict({key: rebuild_space(inner) for key, inner in space.spaces.items()})
    if isinstance(space.low, list) and isinstance(space.high, list):
        first = np.array(space.low)
        return spaces.MultiDiscrete(np.array(space.high) - first + 1, start=first)
    if isinstance(space.low, int) and isinstance(space.high, int):
        return (
            spaces.MultiBinary(space.shape if len(space.shape) > 1 else space.shape[0])
            if space.shape
            else spaces.Discrete(space.high - space.low + 1, start=space.low)
        )
    dtype = np.dtype(space.dtype)
    bounds = (-np.inf, np.inf) if dtype.kind == "f" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    low, high = (np.full(space.shape, bound, dtype) for bound in bounds)
    return spaces.Box(low, high, dtype=dtype.type)


def _limits(space: GymSpace[Any]) -> tuple[Any, Any]:
    """The smallest and the largest integers of an element; nothing for Box spaces, of which SB3 takes any number."""
    if isinstance(space, spaces.Discrete):
        return int(space.start), int(space.start + space.n - 1)
    if isinstance(space, spaces.MultiDiscrete):
        return space.start.tolist(), (space.start + space.nvec - 1).tolist()
    return (0, 1) if isinstance(space, spaces.MultiBinary) else (None, None)


def space_start(space: GymSpace[Any]) -> NDArray[np.int64] | None:
    """The smallest value of a Discrete or MultiDiscrete space where that is not 0, which SB3 takes for granted."""
    if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)) and np.any(space.start):
        return np.asarray(space.start, np.int64)
    return None


def action_sizes(action_space: GymSpace[Any]) -> list[int]:
    """How many values each of the integers of an action may take."""
    if isinstance(action_space, spaces.Discrete):
        return [int(action_space.n)]
    if isinstance(action_space, spaces.MultiDiscrete):
        return [int(n) for n in action_space.nvec.ravel()]
    return [2] * int(np.prod(action_space.shape or ()))


def input_spaces(observation_space: GymSpace[Any]) -> dict[str, GymSpace[Any]]:
    """The spaces of the arrays that an observation consists of, by the names that the graph has for them."""
    if isinstance(observation_space, spaces.Dict):
        return {f"{OBSERVATION}.{key}": space for key, space in observation_space.spaces.items()}
    return {OBSERVATION: observation_space}


def is_compatible(raw: GymSpace[Any], seen: GymSpace[Any]) -> bool:
    """Whether SB3 shows its policy ``seen`` for the environment's ``raw``: images transposed or normalized, integers counted from 0."""
    if isinstance(raw, spaces.Dict) and isinstance(seen, spaces.Dict):
        return raw.spaces.keys() == seen.spaces.keys() and all(
            is_compatible(raw[key], seen[key]) for key in raw.spaces
        )
    if (
        isinstance(raw, spaces.Box)
        and isinstance(seen, spaces.Box)
        and len(raw.shape) == _IMAGE_DIMENSIONS
    ):
        return seen.shape in (raw.shape, (raw.shape[2], *raw.shape[:2]))
    if isinstance(raw, spaces.Discrete) and isinstance(seen, spaces.Discrete):
        return bool(raw.n == seen.n)
    if isinstance(raw, spaces.MultiDiscrete) and isinstance(seen, spaces.MultiDiscrete):
        return np.array_equal(raw.nvec, seen.nvec)
    return bool(raw == seen)
