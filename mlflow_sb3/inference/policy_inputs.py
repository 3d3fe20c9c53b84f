"""Check and convert the inputs of a policy: observations, LSTM state and action masks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

OBSERVATION = "observation"
STATE_NAMES = ("hidden", "cell")
ACTION_MASKS = "action_masks"

_MAX_FLOAT = float(np.finfo(np.float32).max)
"""Largest absolute value of an observation, because policies compute with float32."""

LstmState = tuple[NDArray[Any], ...]


@dataclass(frozen=True)
class SpaceInfo:
    """A Gymnasium space in JSON values. A Dict space has only ``text`` and ``spaces``."""

    text: str
    """``str(space)``."""
    shape: tuple[int, ...] = ()
    dtype: str = "object"
    low: int | list[int] | None = None
    """Smallest integers of a discrete space. None for a Box."""
    high: int | list[int] | None = None
    """Largest integers of a discrete space. None for a Box."""
    spaces: dict[str, SpaceInfo] | None = None
    """Spaces of a Dict space by key. None for other spaces."""

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Read the values that ``dataclasses.asdict`` returned."""
        spaces = values.get("spaces")
        if spaces is not None:
            spaces = {key: SpaceInfo.from_json(space) for key, space in spaces.items()}
        return cls(**values | {"shape": tuple(values["shape"]), "spaces": spaces})

    @property
    def inputs(self) -> dict[str, SpaceInfo]:
        """Spaces of the observation arrays, by the names of the graph's inputs."""
        if self.spaces is None:
            return {OBSERVATION: self}
        return {f"{OBSERVATION}.{key}": space for key, space in self.spaces.items()}

    def __str__(self) -> str:
        if self.spaces is not None:
            return "a dict of " + ", ".join(f"{key}: {space}" for key, space in self.spaces.items())
        sizes = ", ".join(map(str, self.shape))
        batch = f"(n, {sizes})" if sizes else "(n)"
        bounds = "" if self.low is None else f" between {self.low} and {self.high}"
        return f"shape ({sizes}) or {batch}, dtype {self.dtype}{bounds}"


@dataclass(frozen=True)
class PolicyInputs:
    """The inputs of a policy: observations, and an LSTM state or action masks if it needs them."""

    space: SpaceInfo
    """Observation space."""
    state_shape: tuple[int, int] | None = None
    """Numbers of layers and units of the LSTM. None for a policy without an LSTM."""
    action_sizes: tuple[int, ...] | None = None
    """Number of values of each integer of an action. None for a policy without action masks."""

    @property
    def mask_size(self) -> int | None:
        """Number of columns of ``action_masks``."""
        return None if self.action_sizes is None else sum(self.action_sizes)

    @property
    def has_only_observations(self) -> bool:
        """Whether the policy needs neither a state nor action masks."""
        return self.state_shape is None and self.action_sizes is None

    @cached_property
    def _arrays(self) -> list[tuple[str, SpaceInfo, np.dtype[Any]]]:
        return [
            (name, space, get_array_dtype(space.dtype)) for name, space in self.space.inputs.items()
        ]

    def to_observation_arrays(self, observation: Any) -> tuple[dict[str, NDArray[Any]], bool]:
        """Return the arrays of an observation by name, with the batch dimension.

        Returns:
            The arrays, and whether ``observation`` was a single observation, without the batch
            dimension.

        Raises:
            ValueError: A key, a shape, a dtype or a value does not fit the observation space.
        """
        if self.space.spaces is None:
            ((name, space, dtype),) = self._arrays
            batch, is_single = _to_array(name, observation, space, dtype)
            return {name: batch}, is_single
        self._check_keys(observation)
        arrays, lengths = {}, set()
        for (name, space, dtype), key in zip(self._arrays, self.space.spaces, strict=True):
            arrays[name], is_single = _to_array(name, observation[key], space, dtype)
            lengths.add((is_single, len(arrays[name])))
        if len(lengths) > 1:
            raise ValueError(
                f"The arrays of the observation have different lengths. Expected {self.space}."
            )
        return arrays, is_single

    def _check_keys(self, observation: Any) -> None:
        if not isinstance(observation, Mapping):
            raise ValueError(
                f"observation is a {type(observation).__name__}. Expected {self.space}."
            )
        if set(observation) != set(self.space.spaces or {}):
            keys = sorted(map(str, observation))
            raise ValueError(f"observation has the keys {keys}. Expected {self.space}.")

    def build_extra_inputs(
        self, count: int, state: LstmState | None, episode_start: Any, action_masks: Any
    ) -> dict[str, NDArray[Any]]:
        """Return the LSTM state and the action masks for a batch, if the policy needs them.

        Args:
            count: Number of observations in the batch.
            state: As in ``OnnxPolicy.predict``.
            episode_start: As in ``OnnxPolicy.predict``.
            action_masks: As in ``OnnxPolicy.predict``.

        Raises:
            ValueError: A shape or a value does not fit, masks are missing or not needed, or the
                batch of a recurrent policy is empty.
        """
        arrays = {}
        if self.state_shape is not None:
            arrays = dict(
                zip(STATE_NAMES, self._check_state(count, state, episode_start), strict=True)
            )
        if self.action_sizes is not None:
            arrays[ACTION_MASKS] = self._check_masks(count, action_masks)
        elif action_masks is not None:
            raise ValueError(
                "action_masks was passed, but the agent was trained without masks. Leave it out."
            )
        return arrays

    def _check_state(self, count: int, state: LstmState | None, episode_start: Any) -> LstmState:
        """Return the state with zeros where an episode starts."""
        if count == 0:
            raise ValueError(
                "The batch is empty. A recurrent policy needs at least one observation."
            )
        shape = ((self.state_shape or (0, 0))[0], count, (self.state_shape or (0, 0))[1])
        if state is None:
            return tuple(np.zeros(shape, np.float32) for _ in STATE_NAMES)
        expected = f"Expected {len(STATE_NAMES)} arrays of shape {shape}, or None to begin"
        try:
            state = tuple(np.asarray(part, np.float32) for part in state)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"state cannot be converted to arrays ({error}). {expected}."
            ) from error
        shapes = [part.shape for part in state]
        if shapes != [shape] * len(STATE_NAMES):
            raise ValueError(f"state has the shapes {shapes}. {expected}.")
        if not all(np.isfinite(part).all() for part in state):
            raise ValueError(
                "state contains NaN or infinity. Pass the state that predict returned, or None."
            )
        starts = np.zeros(count, bool) if episode_start is None else np.asarray(episode_start, bool)
        if starts.shape != (count,):
            raise ValueError(f"episode_start has the shape {starts.shape}. Expected ({count},).")
        return tuple(np.where(starts[:, np.newaxis], 0, part).astype(np.float32) for part in state)

    def _check_masks(self, count: int, action_masks: Any) -> NDArray[np.bool_]:
        expected = f"Expected booleans of shape ({count}, {self.mask_size}), true if allowed"
        if action_masks is None:
            raise ValueError(
                f"action_masks is missing, but the agent was trained with masks. {expected}."
            )
        try:
            masks = np.asarray(action_masks)
        except ValueError as error:
            raise ValueError(
                f"action_masks cannot be converted to an array ({error}). {expected}."
            ) from error
        if masks.dtype.kind not in "biu":
            raise ValueError(f"action_masks has the dtype {masks.dtype}. {expected}.")
        masks = masks.astype(bool)
        if masks.shape == (self.mask_size,) and count == 1:
            masks = masks[np.newaxis]
        if masks.shape != (count, self.mask_size):
            raise ValueError(f"action_masks has the shape {masks.shape}. {expected}.")
        parts = np.split(masks, np.cumsum(self.action_sizes or ())[:-1], axis=1)
        has_action = np.stack([part.any(axis=1) for part in parts]).all(axis=0)
        if not has_action.all():
            raise ValueError(
                f"action_masks forbids all actions in row {int(np.argmin(has_action))}. "
                f"Allow at least one value of every integer of the action. {expected}."
            )
        return masks


def get_array_dtype(dtype: Any) -> np.dtype[Any]:
    """Return the dtype of a policy's input for the dtype of a space.

    The graph takes float32 for float16, and int8 for Booleans.
    """
    space_dtype = np.dtype(dtype)
    if space_dtype == np.float16:
        return np.dtype(np.float32)
    return np.dtype(np.int8) if space_dtype.kind == "b" else space_dtype


def _to_array(
    name: str, value: Any, space: SpaceInfo, dtype: np.dtype[Any]
) -> tuple[NDArray[Any], bool]:
    """Return a batch, and whether ``value`` was a single observation."""
    try:
        batch = np.asarray(value)
    except ValueError as error:
        raise ValueError(
            f"{name} cannot be converted to an array ({error}). Expected {space}."
        ) from error
    is_single = batch.shape == space.shape
    if not is_single and (batch.ndim == 0 or batch.shape[1:] != space.shape):
        raise ValueError(f"{name} has the shape {batch.shape}. Expected {space}.")
    if batch.dtype != dtype:
        batch = _cast(name, batch, space, dtype)
    if dtype.kind == "f":
        # The dot product takes a quarter of the time of np.isfinite, and is small if all numbers
        # are. It may overflow, so the numbers are only then compared one by one.
        if not np.vdot(batch, batch) <= _MAX_FLOAT and not (np.abs(batch) <= _MAX_FLOAT).all():
            raise ValueError(
                f"{name} contains NaN, infinity, or a number that float32 cannot hold. "
                f"Expected {space}, with finite numbers."
            )
    elif space.low is not None and ((batch < space.low).any() or (batch > space.high).any()):
        raise ValueError(f"{name} has values outside of the space. Expected {space}.")
    return (batch[np.newaxis] if is_single else batch), is_single


def _cast(name: str, batch: NDArray[Any], space: SpaceInfo, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Convert numbers to another dtype. A conversion to integers must not change the values."""
    if batch.dtype.kind not in ("fiu" if dtype.kind == "f" else "fiub"):
        raise ValueError(f"{name} has the dtype {batch.dtype}. Expected {space}.")
    # A number that the dtype cannot hold becomes infinite, and is refused later.
    with np.errstate(invalid="ignore", over="ignore"):
        cast = batch.astype(dtype)
    if dtype.kind != "f" and not np.array_equal(cast, batch):
        raise ValueError(f"{name} has values that {dtype} cannot hold. Expected {space}.")
    return cast
