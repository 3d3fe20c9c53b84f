"""Environment wrappers of our own: they need numpy and Gymnasium alone, so that what serves and judges can use them too."""

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

from mlflow_sb3.envs.spaces import space_start

Env = gymnasium.Env[Any, Any]
Order = Literal["first", "last"]
_COLOURS = 255
_IMAGE_DIMENSIONS = 3


class FrameStack(gymnasium.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """The last observations in one, as SB3's ``VecFrameStack`` stacks them, but inside the environment, where it is recorded.

    Vectors and images with the channels last are stacked along the last axis, images with the channels first along the
    first; those of a Dict, each by itself. An episode begins with zeros in place of what was before it.
    """

    def __init__(
        self,
        env: Env,
        n_stack: int,
        channels_order: Order | Mapping[str, Order | None] | None = None,
    ) -> None:
        """Stack ``n_stack`` observations.

        Args:
            env: Gives observations of a Box, or of a Dict of Boxes.
            n_stack: At least 1.
            channels_order: The axis, where the shape alone is not to decide; for a Dict, also one for every key.

        Raises:
            TypeError: The observations cannot be stacked.
            ValueError: The arguments make no sense.
        """
        RecordConstructorArgs.__init__(self, n_stack=n_stack, channels_order=channels_order)
        gymnasium.Wrapper.__init__(self, env)
        if not isinstance(n_stack, int) or n_stack < 1:
            raise ValueError(
                f"n_stack={n_stack!r}: give the number of observations to stack, at least 1."
            )
        space = env.observation_space
        self._stacks = {
            key: _Stack(box, n_stack, order) for key, box, order in _boxes(space, channels_order)
        }
        self.observation_space = (
            spaces.Dict({key: stack.space for key, stack in self._stacks.items()})
            if isinstance(space, spaces.Dict)
            else self._stacks[""].space
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode: zeros, and its first observation behind them."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self._each(_Stack.begin, observation), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take a step; the oldest observation makes room for the new one."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return self._each(_Stack.push, observation), reward, terminated, truncated, info

    def _each(self, put: Callable[[_Stack, Any], NDArray[Any]], observation: Any) -> Any:
        if isinstance(self.observation_space, spaces.Dict):
            return {key: put(stack, observation[key]) for key, stack in self._stacks.items()}
        return put(self._stacks[""], observation)


class _Stack:
    """The last observations of one Box."""

    def __init__(self, box: spaces.Box, count: int, order: Order | None) -> None:
        if order not in (None, "first", "last"):
            raise ValueError(f"channels_order={order!r}: give 'first' or 'last'.")
        self._axis = (
            0
            if order == "first" or (order is None and _is_image(box) and np.argmin(box.shape) == 0)
            else -1
        )
        # SB3 2.9 repeats each bound in its place, which is not where the values come to lie; its spaces are what agents are made for
        low, high = (np.repeat(bound, count, axis=self._axis) for bound in (box.low, box.high))
        self.space = spaces.Box(low, high, dtype=box.dtype)
        self._zeros = np.zeros(box.shape, box.dtype)
        self._last: deque[NDArray[Any]] = deque(maxlen=count)

    def begin(self, observation: Any) -> NDArray[Any]:
        self._last.extend([self._zeros] * (self._last.maxlen or 0))
        return self.push(observation)

    def push(self, observation: Any) -> NDArray[Any]:
        self._last.append(np.array(observation, self._zeros.dtype))
        return np.concatenate(self._last, axis=self._axis)


def _boxes(
    space: Space[Any], channels_order: Order | Mapping[str, Order | None] | None
) -> list[tuple[str, spaces.Box, Order | None]]:
    """The Boxes of a space by their keys, ``""`` for the one that stands alone, and the order of their channels."""
    subspaces = space.spaces if isinstance(space, spaces.Dict) else {"": space}
    if isinstance(channels_order, Mapping) and set(channels_order) != set(subspaces):
        raise ValueError(
            f"channels_order={dict(channels_order)}: give one for all observations, or one for every key of {space}."
        )
    boxes = [
        (key, box) for key, box in subspaces.items() if isinstance(box, spaces.Box) and box.shape
    ]
    if len(boxes) < len(subspaces):
        raise TypeError(
            f"observations of {space} cannot be stacked; that takes a Box, or a Dict of Boxes."
        )
    orders = (
        channels_order
        if isinstance(channels_order, Mapping)
        else dict.fromkeys(subspaces, channels_order)
    )
    return [(key, box, orders[key]) for key, box in boxes]


def _is_image(box: spaces.Box) -> bool:
    """What SB3's ``is_image_space`` says, without SB3."""
    shown = len(box.shape) == _IMAGE_DIMENSIONS and box.dtype == np.uint8
    return shown and bool(np.all(box.low == 0) and np.all(box.high == _COLOURS))


class ActionMasks(gymnasium.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """The masks of MaskablePPO, from a method of the environment that has another name.

    The ``ActionMasker`` of sb3-contrib 2.9 does not find that method behind the wrappers of ``gymnasium.make``, and needs torch.
    """

    def __init__(self, env: Env, method: str) -> None:
        """Take masks from ``method``, which takes no arguments, of the environment or a wrapper in it.

        Raises:
            AttributeError: There is no such method.
        """
        RecordConstructorArgs.__init__(self, method=method)
        gymnasium.Wrapper.__init__(self, env)
        self._masks: Callable[[], NDArray[Any]] = env.get_wrapper_attr(method)

    def action_masks(self) -> NDArray[Any]:
        """True where an action is valid, of shape ``(actions,)``."""
        return self._masks()


class ZeroStart(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Discrete and MultiDiscrete values that count from 0, whatever those of the environment start at: SB3 knows no other."""

    def __init__(self, env: Env) -> None:
        """Wrap an environment; its other spaces stay as they are."""
        super().__init__(env)
        self.observation_space = zero_start(env.observation_space)
        self.action_space = zero_start(env.action_space)

    @property
    def spec(self) -> EnvSpec | None:  # type: ignore[override]  # as gymnasium.Wrapper has it
        """That of the environment inside: this wrapper is for training, and no part of what is recorded."""
        return self.env.spec

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        observation, info = self.env.reset(seed=seed, options=options)
        return shift(observation, self.env.observation_space, operator.sub), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take a step with an action that counts from 0."""
        observation, *rest = self.env.step(shift(action, self.env.action_space, operator.add))
        return (shift(observation, self.env.observation_space, operator.sub), *rest)

    def compute_reward(self, achieved_goal: Any, desired_goal: Any, info: Any) -> Any:
        """The reward of goals that count from 0, for SB3's ``HerReplayBuffer``."""
        goals = self.env.observation_space
        achieved, desired = (
            shift(goal, goals[key], operator.add)  # type: ignore[index]  # of a goal environment
            for key, goal in (("achieved_goal", achieved_goal), ("desired_goal", desired_goal))
        )
        return self.env.get_wrapper_attr("compute_reward")(achieved, desired, info)


def zero_start(space: Space[Any]) -> Space[Any]:
    """The same space with every Discrete and MultiDiscrete in it starting at 0; itself, if they all do."""
    if not _starts_elsewhere(space):
        return space
    zeroed = deepcopy(space)
    if isinstance(zeroed, spaces.Dict):
        zeroed.spaces = {key: zero_start(subspace) for key, subspace in zeroed.spaces.items()}
    elif isinstance(zeroed, (spaces.Discrete, spaces.MultiDiscrete)):
        zeroed.start = zeroed.start * 0
    return zeroed


def _starts_elsewhere(space: Space[Any]) -> bool:
    if isinstance(space, spaces.Dict):
        return any(map(_starts_elsewhere, space.spaces.values()))
    return space_start(space) is not None


def shift(value: Any, space: Space[Any], by: Callable[[Any, Any], Any]) -> Any:
    """Add the start of a space to a value of it, or to a batch of them, or subtract it."""
    if isinstance(space, spaces.Dict):
        return {key: shift(value[key], subspace, by) for key, subspace in space.spaces.items()}
    return (
        by(value, space.start)
        if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete))
        else value
    )
