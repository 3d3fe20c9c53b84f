"""Pickle the state of a training: the filled part of replay buffers, and whole environments."""

from __future__ import annotations

import copyreg
import inspect
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import cloudpickle
import numpy as np
from gymnasium.utils import EzPickle
from mlflow.exceptions import MlflowException
from numpy.typing import NDArray
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.vec_env.base_vec_env import VecEnvWrapper

_CLASS_ATTRIBUTES = "class_attributes"
"""Attribute of a VecEnvWrapper with the members of its class, which cannot be pickled."""


def dump_state(state: dict[str, Any], file: BinaryIO, *, external: Sequence[Any]) -> None:
    """Pickle a state into a file.

    Args:
        state: Values to pickle.
        file: Binary file to write to.
        external: Objects to leave out. The file contains their positions in this list instead.

    Raises:
        PicklingError: An object cannot be pickled. The original error is the cause.
        OSError: The file cannot be written.
    """
    target = _ErrorRecorder(file)
    try:
        _Pickler(target, external).dump(state)
    except Exception as error:  # an object may raise anything when it is pickled
        if error is target.error:
            raise
        raise pickle.PicklingError(f"{type(error).__name__}: {error}") from error


def pickle_attributes(instance: Any) -> bytes | None:
    """Return the pickled attributes of an object. None if ``instance`` is None.

    Raises:
        PicklingError: An attribute cannot be pickled. The original error is the cause.
    """
    try:
        return None if instance is None else cloudpickle.dumps(vars(instance))
    except Exception as error:  # an object may raise anything when it is pickled
        raise pickle.PicklingError(f"{type(error).__name__}: {error}") from error


def load_state(file: BinaryIO, *, external: Sequence[Any]) -> dict[str, Any]:
    """Unpickle a state.

    Args:
        file: Binary file, at the position of the pickle.
        external: Objects to insert in place of the objects that were left out, in the same order.

    Raises:
        MlflowException: An external object is missing, or has another class than the object that
            was left out.
    """
    state: dict[str, Any] = _Unpickler(file, external).load()
    return state


class _ErrorRecorder:
    """File that stores the error of a failed write.

    Pickling an object may raise OSError too. ``dump_state`` compares an error with the stored one
    to find out whether the file raised it.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, content: bytes) -> int:
        try:
            return self._file.write(content)
        except OSError as error:
            self.error = error
            raise


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    """Pickler with other rules for replay buffers and environments.

    It pickles only the filled part of a replay buffer. It pickles all attributes of a VecEnvWrapper
    and of an EzPickle. By default, VecNormalize leaves out its running returns, and EzPickle keeps
    only the arguments of the constructor.
    """

    def __init__(self, file: _ErrorRecorder, external: Sequence[Any]) -> None:
        super().__init__(file, protocol=5)
        self._positions = {id(instance): position for position, instance in enumerate(external)}

    def persistent_id(self, obj: Any) -> tuple[int, str] | None:
        position = self._positions.get(id(obj))
        return None if position is None else (position, type(obj).__name__)

    def reducer_override(self, obj: Any) -> Any:
        new: Any = copyreg.__newobj__  # type: ignore[attr-defined]  # missing in typeshed
        if isinstance(obj, ReplayBuffer):
            attributes = vars(obj) if obj.full else _shorten(vars(obj), obj)
            return new, (type(obj),), attributes, None, None, _restore_buffer
        if isinstance(obj, (VecEnvWrapper, EzPickle)):
            attributes = {
                key: value for key, value in vars(obj).items() if key != _CLASS_ATTRIBUTES
            }
            return new, (type(obj),), attributes, None, None, _restore_env
        return super().reducer_override(obj)


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO, external: Sequence[Any]) -> None:
        super().__init__(file)
        self._external = external

    def persistent_load(self, pid: tuple[int, str]) -> Any:
        position, name = pid
        names = [type(instance).__name__ for instance in self._external]
        if names[position : position + 1] != [name]:
            raise MlflowException.invalid_parameter_value(
                f"The snapshot has the VecEnv {name} at position {position} (0 is the outermost), "
                f"but the new VecEnvs are: {', '.join(names) or 'none'}. "
                "Resume with the package versions that wrote the snapshot, or train again."
            )
        return self._external[position]


@dataclass(frozen=True)
class _LeadingRows:
    """First rows of an array whose other rows are zero."""

    rows: NDArray[Any]
    shape: tuple[int, ...]

    def expand(self) -> NDArray[Any]:
        array = np.zeros(self.shape, self.rows.dtype)
        array[: len(self.rows)] = self.rows
        return array


def _shorten(value: Any, buffer: ReplayBuffer) -> Any:
    """Replace the arrays of a buffer that is not full by their filled rows."""
    if isinstance(value, dict):
        return {key: _shorten(inner, buffer) for key, inner in value.items()}
    if not isinstance(value, np.ndarray) or value.ndim == 0 or value.dtype.hasobject:
        return value
    if len(value) != buffer.buffer_size:
        return value
    # Keep one more row: with optimize_memory_usage, it has the next observation.
    return _LeadingRows(value[: buffer.pos + 1], value.shape)


def _expand(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _expand(inner) for key, inner in value.items()}
    return value.expand() if isinstance(value, _LeadingRows) else value


def _restore_buffer(buffer: ReplayBuffer, attributes: dict[str, Any]) -> None:
    vars(buffer).update(_expand(attributes))


def _restore_env(env: Any, attributes: dict[str, Any]) -> None:
    vars(env).update(attributes)
    if isinstance(env, VecEnvWrapper):
        vars(env)[_CLASS_ATTRIBUTES] = dict(inspect.getmembers(type(env)))
