"""Describe Gymnasium spaces as JSON, and return the properties that a policy needs."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import Space as GymSpace
from gymnasium import spaces
from numpy.typing import NDArray

from mlflow_sb3.inference.policy_inputs import OBSERVATION, SpaceInfo

_IMAGE_DIMENSIONS = 3


def describe_space(space: GymSpace[Any]) -> SpaceInfo:
    """Convert a space into a ``SpaceInfo``, which can be saved as JSON."""
    if isinstance(space, spaces.Dict):
        return SpaceInfo(
            str(space), spaces={key: describe_space(inner) for key, inner in space.spaces.items()}
        )
    low, high = _get_integer_limits(space)
    return SpaceInfo(str(space), tuple(space.shape or ()), str(space.dtype), low, high)


def rebuild_space(space: SpaceInfo) -> GymSpace[Any]:
    """Convert a ``SpaceInfo`` back into a space.

    The bounds of a ``Box`` are lost: the new ``Box`` has the widest bounds of its dtype.
    """
    if space.spaces is not None:
        return spaces.Dict({key: rebuild_space(inner) for key, inner in space.spaces.items()})
    if isinstance(space.low, list) and isinstance(space.high, list):
        start = np.array(space.low)
        return spaces.MultiDiscrete(np.array(space.high) - start + 1, start=start)
    if isinstance(space.low, int) and isinstance(space.high, int):
        if not space.shape:
            return spaces.Discrete(space.high - space.low + 1, start=space.low)
        return spaces.MultiBinary(space.shape if len(space.shape) > 1 else space.shape[0])
    return _make_unbounded_box(space.shape, np.dtype(space.dtype))


def list_subspaces(space: GymSpace[Any]) -> list[GymSpace[Any]]:
    """Return the spaces inside a Dict space, or a list with another space itself."""
    return list(space.spaces.values()) if isinstance(space, spaces.Dict) else [space]


def get_space_start(space: GymSpace[Any]) -> NDArray[np.int64] | None:
    """Return the smallest values of a Discrete or MultiDiscrete space.

    Returns:
        None if all values start at 0, as SB3 assumes, and for other spaces.
    """
    if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)) and np.any(space.start):
        return np.asarray(space.start, np.int64)
    return None


def get_action_sizes(action_space: GymSpace[Any]) -> list[int]:
    """Return the number of values of each integer in an action."""
    if isinstance(action_space, spaces.Discrete):
        return [int(action_space.n)]
    if isinstance(action_space, spaces.MultiDiscrete):
        return [int(n) for n in action_space.nvec.ravel()]
    return [2] * int(np.prod(action_space.shape or ()))


def get_input_spaces(observation_space: GymSpace[Any]) -> dict[str, GymSpace[Any]]:
    """Return the spaces of the observation arrays, by the input names of the ONNX graph.

    A Dict space has one array for each key. Every other space has one array.
    """
    if isinstance(observation_space, spaces.Dict):
        return {f"{OBSERVATION}.{key}": space for key, space in observation_space.spaces.items()}
    return {OBSERVATION: observation_space}


def is_compatible(env_space: GymSpace[Any], policy_space: GymSpace[Any]) -> bool:
    """Return whether SB3 turns a space of the environment into this space of the policy.

    Of an image, only the shape is compared, because SB3 transposes images, and ``VecNormalize``
    changes their bounds and dtype. The integers of SB3's policies start at 0.

    Args:
        env_space: Space of the environment.
        policy_space: Space of SB3's policy.
    """
    if isinstance(env_space, spaces.Dict) and isinstance(policy_space, spaces.Dict):
        return env_space.spaces.keys() == policy_space.spaces.keys() and all(
            is_compatible(env_space[key], policy_space[key]) for key in env_space.spaces
        )
    if isinstance(env_space, spaces.Box) and isinstance(policy_space, spaces.Box):
        if len(env_space.shape) != _IMAGE_DIMENSIONS:
            return bool(env_space == policy_space)
        height, width, channels = env_space.shape
        return policy_space.shape in (env_space.shape, (channels, height, width))
    if isinstance(env_space, spaces.Discrete) and isinstance(policy_space, spaces.Discrete):
        return bool(env_space.n == policy_space.n)
    if isinstance(env_space, spaces.MultiDiscrete) and isinstance(
        policy_space, spaces.MultiDiscrete
    ):
        return np.array_equal(env_space.nvec, policy_space.nvec)
    return bool(env_space == policy_space)


def has_same_layout(first: SpaceInfo, second: SpaceInfo) -> bool:
    """Return whether a policy for one space fits the other. The bounds of a Box may differ."""
    return bool(_describe_layout(first) == _describe_layout(second))


def _describe_layout(space: SpaceInfo) -> Any:
    if space.spaces is not None:
        return {key: _describe_layout(inner) for key, inner in space.spaces.items()}
    return space.shape, space.dtype, space.low, space.high


def _get_integer_limits(space: GymSpace[Any]) -> tuple[Any, Any]:
    """Return the smallest and the largest integers of a space.

    Returns:
        ``(None, None)`` for a ``Box``, because SB3's policies do not check its bounds.
    """
    if isinstance(space, spaces.Discrete):
        return int(space.start), int(space.start + space.n - 1)
    if isinstance(space, spaces.MultiDiscrete):
        return space.start.tolist(), (space.start + space.nvec - 1).tolist()
    return (0, 1) if isinstance(space, spaces.MultiBinary) else (None, None)


def _make_unbounded_box(shape: tuple[int, ...], dtype: np.dtype[Any]) -> spaces.Box:
    is_float = dtype.kind == "f"
    bounds = (-np.inf, np.inf) if is_float else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    low, high = (np.full(shape, bound, dtype) for bound in bounds)
    return spaces.Box(low, high, dtype=dtype.type)
