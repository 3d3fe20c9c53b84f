"""Environment wrappers that need only NumPy and Gymnasium, not SB3.

A policy can therefore play in wrapped environments on a machine without SB3 and PyTorch.
``EnvSpec`` JSONs refer to the classes by this module name.
"""

from __future__ import annotations

import operator
from collections import deque
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium import Space, spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils import RecordConstructorArgs
from numpy.typing import NDArray

from mlflow_sb3.envs import Env
from mlflow_sb3.envs.spaces import get_space_start

Order = Literal["first", "last"]
_MAX_PIXEL = 255
_IMAGE_DIMENSIONS = 3


class FrameStack(gymnasium.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Stack the last observations, like SB3's ``VecFrameStack``.

    ``VecFrameStack`` wraps a ``VecEnv``, which an ``EnvSpec`` does not record. This wrapper is part
    of the environment, so an ``EnvSpec`` records it.

    Vectors and channel-last images are stacked along the last axis, channel-first images along the
    first axis, and the observations of a Dict space separately. An episode starts with zeros in
    place of the missing observations.
    """

    def __init__(
        self,
        env: Env,
        n_stack: int,
        channels_order: Order | Mapping[str, Order | None] | None = None,
    ) -> None:
        """Wrap an environment.

        Args:
            env: Environment with a Box space, or a Dict of Box spaces, as its observation space.
            n_stack: Number of observations to stack, at least 1.
            channels_order: Axis to stack along: ``"first"``, ``"last"``, or None to derive it from
                the shape. For a Dict space, one value for all keys or a mapping with every key.

        Raises:
            TypeError: The observation space is neither a Box with a dimension nor a Dict of those.
            ValueError: ``n_stack`` or ``channels_order`` is invalid.
        """
        RecordConstructorArgs.__init__(self, n_stack=n_stack, channels_order=channels_order)
        gymnasium.Wrapper.__init__(self, env)
        if not isinstance(n_stack, int) or n_stack < 1:
            raise ValueError(f"n_stack={n_stack!r} is invalid. Use an integer of at least 1.")
        space = env.observation_space
        self._stacks = {
            key: _Stack(box, n_stack, order)
            for key, box, order in _list_boxes(space, channels_order)
        }
        self.observation_space = (
            spaces.Dict({key: stack.space for key, stack in self._stacks.items()})
            if isinstance(space, spaces.Dict)
            else self._stacks[""].space
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode, and return zeros followed by the first observation."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self._apply(_Stack.start, observation), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take a step, and replace the oldest observation by the new one."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return self._apply(_Stack.push, observation), reward, terminated, truncated, info

    def _apply(self, method: Callable[[_Stack, Any], NDArray[Any]], observation: Any) -> Any:
        """Call a method of each stack with its part of the observation."""
        if isinstance(self.observation_space, spaces.Dict):
            return {key: method(stack, observation[key]) for key, stack in self._stacks.items()}
        return method(self._stacks[""], observation)


class _Stack:
    """The last observations of one Box space."""

    def __init__(self, box: spaces.Box, n_stack: int, order: Order | None) -> None:
        if order not in (None, "first", "last"):
            raise ValueError(f"channels_order={order!r} is invalid. Use 'first', 'last' or None.")
        is_channel_first = order == "first" or (
            order is None and _is_image(box) and np.argmin(box.shape) == 0
        )
        self._axis = 0 if is_channel_first else -1
        # SB3 2.9 orders the bounds as a, a, b, b, although it stacks observations as a, b, a, b.
        # The space has to equal SB3's, because agents are trained for that space.
        low = np.repeat(box.low, n_stack, axis=self._axis)
        high = np.repeat(box.high, n_stack, axis=self._axis)
        self.space = spaces.Box(low, high, dtype=box.dtype)
        self._zeros = np.zeros(box.shape, box.dtype)
        self._observations: deque[NDArray[Any]] = deque(maxlen=n_stack)

    def start(self, observation: Any) -> NDArray[Any]:
        self._observations.extend([self._zeros] * (self._observations.maxlen or 0))
        return self.push(observation)

    def push(self, observation: Any) -> NDArray[Any]:
        self._observations.append(np.array(observation, self._zeros.dtype))
        return np.concatenate(self._observations, axis=self._axis)


def _list_boxes(
    space: Space[Any], channels_order: Order | Mapping[str, Order | None] | None
) -> list[tuple[str, spaces.Box, Order | None]]:
    """Return the key, the Box and the channel order of each part of a space.

    The key is ``""`` if the space is not a Dict.
    """
    subspaces = space.spaces if isinstance(space, spaces.Dict) else {"": space}
    if isinstance(channels_order, Mapping) and set(channels_order) != set(subspaces):
        raise ValueError(
            f"channels_order={dict(channels_order)} does not have the keys of {space}. "
            "Use one value for all observations, or a mapping with every key."
        )
    boxes = {
        key: box for key, box in subspaces.items() if isinstance(box, spaces.Box) and box.shape
    }
    if len(boxes) < len(subspaces):
        raise TypeError(
            f"observations of {space} cannot be stacked. Use a Box space with at least one "
            "dimension, or a Dict of such spaces."
        )
    orders = (
        channels_order
        if isinstance(channels_order, Mapping)
        else dict.fromkeys(subspaces, channels_order)
    )
    return [(key, box, orders[key]) for key, box in boxes.items()]


def _is_image(box: spaces.Box) -> bool:
    """Return the result of SB3's ``is_image_space``, without importing SB3."""
    has_image_type = len(box.shape) == _IMAGE_DIMENSIONS and box.dtype == np.uint8
    return has_image_type and bool(np.all(box.low == 0) and np.all(box.high == _MAX_PIXEL))


class ActionMasks(gymnasium.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Provide action masks for MaskablePPO from a method with another name.

    sb3-contrib has ``ActionMasker`` for this. It imports PyTorch, and in version 2.9 it does not
    reach a method behind the wrappers of ``gymnasium.make``.
    """

    def __init__(self, env: Env, method: str) -> None:
        """Wrap an environment.

        Args:
            env: Environment.
            method: Name of a method of the environment or of one of its wrappers. It has no
                arguments and returns booleans, true for a valid action.

        Raises:
            AttributeError: There is no such method.
        """
        RecordConstructorArgs.__init__(self, method=method)
        gymnasium.Wrapper.__init__(self, env)
        self._get_masks: Callable[[], NDArray[Any]] = env.get_wrapper_attr(method)

    def action_masks(self) -> NDArray[Any]:
        """Return booleans of shape ``(choices,)``, true for a valid action."""
        return self._get_masks()


class ZeroStart(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Shift the values of Discrete and MultiDiscrete spaces so that they start at 0.

    SB3 assumes that they do. This wrapper is only used in training: ``spec`` does not record it.
    """

    def __init__(self, env: Env) -> None:
        """Wrap an environment. Its other spaces do not change."""
        super().__init__(env)
        self.observation_space = to_zero_start(env.observation_space)
        self.action_space = to_zero_start(env.action_space)

    @property
    def spec(self) -> EnvSpec | None:  # type: ignore[override]  # gymnasium.Wrapper also overrides
        """``EnvSpec`` of the wrapped environment, without this wrapper."""
        return self.env.spec

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode, and return an observation of the shifted space."""
        observation, info = self.env.reset(seed=seed, options=options)
        return shift_values(observation, self.env.observation_space, operator.sub), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take a step. The action and the returned observation are values of the shifted spaces."""
        shifted = shift_values(action, self.env.action_space, operator.add)
        observation, *rest = self.env.step(shifted)
        return (shift_values(observation, self.env.observation_space, operator.sub), *rest)

    def compute_reward(self, achieved_goal: Any, desired_goal: Any, info: Any) -> Any:
        """Return the reward of goals of the shifted space, for SB3's ``HerReplayBuffer``."""
        goal_spaces: Any = self.env.observation_space
        achieved = shift_values(achieved_goal, goal_spaces["achieved_goal"], operator.add)
        desired = shift_values(desired_goal, goal_spaces["desired_goal"], operator.add)
        return self.env.get_wrapper_attr("compute_reward")(achieved, desired, info)


def to_zero_start(space: Space[Any]) -> Space[Any]:
    """Return a space whose Discrete and MultiDiscrete parts start at 0.

    Returns:
        The same object if all of its parts already start at 0, else a changed copy.
    """
    if not _has_other_start(space):
        return space
    shifted = deepcopy(space)
    if isinstance(shifted, spaces.Dict):
        shifted.spaces = {key: to_zero_start(subspace) for key, subspace in shifted.spaces.items()}
    elif isinstance(shifted, (spaces.Discrete, spaces.MultiDiscrete)):
        shifted.start = shifted.start * 0
    return shifted


def shift_values(value: Any, space: Space[Any], operation: Callable[[Any, Any], Any]) -> Any:
    """Add the start of a space to its values, or subtract it.

    Args:
        value: A value of the space, or a batch of values.
        space: Space with the start. Only Discrete and MultiDiscrete parts have one.
        operation: ``operator.add`` or ``operator.sub``.
    """
    if isinstance(space, spaces.Dict):
        return {
            key: shift_values(value[key], subspace, operation)
            for key, subspace in space.spaces.items()
        }
    if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)):
        return operation(value, space.start)
    return value


def _has_other_start(space: Space[Any]) -> bool:
    if isinstance(space, spaces.Dict):
        return any(map(_has_other_start, space.spaces.values()))
    return get_space_start(space) is not None
