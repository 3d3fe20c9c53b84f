"""What a policy is asked with: observations, a state and masks, checked and as arrays of the right kind."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

OBSERVATION = "observation"
STATE_NAMES = ("hidden", "cell")
ACTION_MASKS = "action_masks"

LstmState = tuple[NDArray[Any], ...]


@dataclass(frozen=True)
class SpaceInfo:
    """One observation or action: shape, dtype, what integers may be, and Gymnasium's own words; or those of every key of a Dict."""

    text: str
    shape: tuple[int, ...] = ()
    dtype: str = "object"
    low: int | list[int] | None = None
    high: int | list[int] | None = None
    spaces: dict[str, SpaceInfo] | None = None

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Read what ``dataclasses.asdict`` wrote."""
        inner = values.get("spaces")
        spaces = (
            None
            if inner is None
            else {key: SpaceInfo.from_json(space) for key, space in inner.items()}
        )
        return cls(**values | {"shape": tuple(values["shape"]), "spaces": spaces})

    @property
    def inputs(self) -> dict[str, SpaceInfo]:
        """The arrays that an observation consists of, by the names that the graph has for them."""
        if self.spaces is None:
            return {OBSERVATION: self}
        return {f"{OBSERVATION}.{key}": space for key, space in self.spaces.items()}

    def __str__(self) -> str:
        if self.spaces is not None:
            return "a dict of " + ", ".join(f"{key}: {space}" for key, space in self.spaces.items())
        sizes = ", ".join(map(str, self.shape))
        between = "" if self.low is None else f" between {self.low} and {self.high}"
        return f"({sizes}) for one or (n{', ' if sizes else ''}{sizes}) for many, of {self.dtype}{between}"


@dataclass(frozen=True)
class PolicyInputs:
    """What a policy takes: observations of a space, and a state or masks where it has them."""

    space: SpaceInfo
    state_shape: tuple[int, int] | None = None
    """Layers and units of each array of a recurrent policy's state."""
    choices: tuple[int, ...] | None = None
    """How many values ``action_masks`` allow or forbid, for each number of an action."""

    @property
    def mask_size(self) -> int | None:
        """Columns of ``action_masks``."""
        return None if self.choices is None else sum(self.choices)

    @cached_property
    def _arrays(self) -> list[tuple[str, SpaceInfo, tuple[int, ...], np.dtype[Any]]]:
        return [
            (name, space, space.shape, array_dtype(space.dtype))
            for name, space in self.space.inputs.items()
        ]

    def observed(self, observation: Any) -> tuple[dict[str, NDArray[Any]], bool]:
        """The arrays of an observation by their names, and whether they were one observation without batch dimension.

        Raises:
            ValueError: A key, a shape, the kind of a dtype or a value does not fit.
        """
        if self.space.spaces is None:
            ((name, space, shape, dtype),) = self._arrays
            batch, single = _array(name, observation, space, shape, dtype)
            return {name: batch}, single
        self._check_keys(observation)
        feeds, singles = {}, set()
        for (name, space, shape, dtype), key in zip(self._arrays, self.space.spaces, strict=True):
            feeds[name], single = _array(name, observation[key], space, shape, dtype)
            singles.add((single, len(feeds[name])))
        if len(singles) > 1:
            raise ValueError(
                f"the arrays of the observation have different lengths; expected {self.space}."
            )
        return feeds, single

    def _check_keys(self, observation: Any) -> None:
        wanted = set(self.space.spaces or {})
        if not isinstance(observation, Mapping) or set(observation) != wanted:
            found = (
                sorted(map(str, observation))
                if isinstance(observation, Mapping)
                else type(observation).__name__
            )
            raise ValueError(f"observation is {found}; expected {self.space}.")

    @property
    def plain(self) -> bool:
        """Whether observations are all."""
        return self.state_shape is None and self.choices is None

    def beside(
        self, count: int, state: LstmState | None, episode_start: Any, action_masks: Any
    ) -> dict[str, NDArray[Any]]:
        """State and masks for so many observations, where the policy has them.

        Raises:
            ValueError: A shape does not fit, masks are missing, or the policy takes none.
        """
        feeds = {}
        if self.state_shape is not None:
            feeds = dict(zip(STATE_NAMES, self._state(count, state, episode_start), strict=True))
        if self.choices is not None:
            feeds[ACTION_MASKS] = self._masks(count, action_masks)
        elif action_masks is not None:
            raise ValueError(
                "action_masks are given, but the agent was trained without masks; leave them out."
            )
        return feeds

    def _state(self, count: int, state: LstmState | None, episode_start: Any) -> LstmState:
        if count == 0:
            raise ValueError("there are no observations; a policy with a state takes at least one.")
        layers, units = self.state_shape or (0, 0)
        shape = (layers, count, units)
        if state is None:
            return tuple(np.zeros(shape, np.float32) for _ in STATE_NAMES)
        try:
            state = tuple(np.asarray(part, np.float32) for part in state)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"state is no arrays ({error}); expected {len(STATE_NAMES)} arrays of {shape}, or None to begin."
            ) from error
        found = [part.shape for part in state]
        if found != [shape] * len(STATE_NAMES):
            raise ValueError(
                f"state has the shapes {found}; expected {len(STATE_NAMES)} arrays of {shape}, or None to begin."
            )
        if not all(np.isfinite(part).all() for part in state):
            raise ValueError(
                "state contains NaN or infinity; give what the last call returned, or None to begin."
            )
        starts = np.zeros(count, bool) if episode_start is None else np.asarray(episode_start, bool)
        if starts.shape != (count,):
            raise ValueError(f"episode_start has the shape {starts.shape}; expected ({count},).")
        return tuple(np.where(starts[:, np.newaxis], 0, part).astype(np.float32) for part in state)

    def _masks(self, count: int, action_masks: Any) -> NDArray[np.bool_]:
        expected = f"booleans of shape ({count}, {self.mask_size}), true for what is allowed"
        if action_masks is None:
            raise ValueError(
                f"action_masks are missing: the agent was trained with masks; expected {expected}."
            )
        try:
            masks = np.asarray(action_masks)
        except ValueError as error:
            raise ValueError(
                f"action_masks are no array ({error}); expected {expected}."
            ) from error
        if masks.dtype.kind not in "biu":
            raise ValueError(f"action_masks have the dtype {masks.dtype}; expected {expected}.")
        masks = masks.astype(bool)
        if masks.shape == (self.mask_size,) and count == 1:
            masks = masks[np.newaxis]
        if masks.shape != (count, self.mask_size):
            raise ValueError(f"action_masks have the shape {masks.shape}; expected {expected}.")
        allowed = np.stack(
            [
                part.any(axis=1)
                for part in np.split(masks, np.cumsum(self.choices or ())[:-1], axis=1)
            ]
        ).all(axis=0)
        if not allowed.all():
            raise ValueError(
                f"action_masks allow nothing in row {int(np.argmin(allowed))}; every choice needs a value; expected {expected}."
            )
        return masks


def array_dtype(declared: Any) -> np.dtype[Any]:
    """What a policy takes for the dtype of a space: that one, but never half floats or booleans."""
    found = np.dtype(declared)
    return (
        np.dtype(np.float32)
        if found == np.float16
        else np.dtype(np.int8)
        if found.kind == "b"
        else found
    )


def _array(
    name: str, value: Any, space: SpaceInfo, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> tuple[NDArray[Any], bool]:
    """A batch as the graph takes it, and whether it was one observation without batch dimension."""
    try:
        batch = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name} is no array ({error}); expected {space}.") from error
    single = batch.shape == shape
    if not single and (batch.ndim == 0 or batch.shape[1:] != shape):
        raise ValueError(f"{name} has the shape {batch.shape}; expected {space}.")
    if batch.dtype != dtype:
        batch = _cast(name, batch, space, dtype)
    if dtype.kind == "f":
        if math.isnan(
            np.vdot(batch, batch)
        ):  # which one NaN makes NaN, and infinity does not: a quarter of the time of isnan
            raise ValueError(f"{name} contains NaN; expected {space} without NaN.")
    elif space.low is not None and ((batch < space.low).any() or (batch > space.high).any()):
        raise ValueError(f"{name} has values outside of the space; expected {space}.")
    return (batch[np.newaxis] if single else batch), single


def _cast(name: str, batch: NDArray[Any], space: SpaceInfo, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Another kind of number, if that changes no value of an integer."""
    if batch.dtype.kind not in ("fiu" if dtype.kind == "f" else "fiub"):
        raise ValueError(f"{name} has the dtype {batch.dtype}; expected {space}.")
    if dtype.kind == "f":
        return batch.astype(dtype)
    with np.errstate(invalid="ignore"):
        cast = batch.astype(dtype)
    if not np.array_equal(cast, batch):
        raise ValueError(f"{name} has values that {dtype} cannot hold; expected {space}.")
    return cast
