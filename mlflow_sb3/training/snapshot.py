"""The whole state of a training between two rollouts, and back: what goes on from it ends as if nothing had happened, to the bit.

Beside the algorithm's own attributes, with its environments and buffers, these are the global generators and what SB3 begins
anew in every ``learn``: the action noise, the exploration matrices of gSDE, the clock, the logger's values.
"""

from __future__ import annotations

import copyreg
import importlib
import inspect
import json
import pickle
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import cloudpickle
import numpy as np
from gymnasium.utils import EzPickle
from mlflow.exceptions import MlflowException
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.distributions import StateDependentNoiseDistribution
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvWrapper

from mlflow_sb3.algorithms import algorithms
from mlflow_sb3.flavor import vec_normalize
from mlflow_sb3.tracking.snapshot_header import FIRST_LINE, SnapshotHeader, parse_header
from mlflow_sb3.training.rng_state import get_rng_state

ITERATIONS = "time/iterations"
"""What on-policy algorithms count in a variable of ``learn``."""
_OF_SB3 = frozenset({"model", "parent", "locals", "globals"})
"""Attributes of a callback that SB3 sets when learning begins."""
_OF_THE_CLASS = "class_attributes"
"""What a VecEnvWrapper keeps of its class; it cannot be pickled."""

SnapshotState = dict[str, Any]


def write_snapshot(
    model: BaseAlgorithm,
    callbacks: Sequence[BaseCallback],
    header: SnapshotHeader,
    file: BinaryIO,
    *,
    early: SnapshotState | None = None,
    **more: Any,
) -> None:
    """Write the state of a training.

    Args:
        model: Between two rollouts.
        callbacks: Whose attributes belong to the state; those that SB3 sets do not.
        header: With ``inexact``, environments are left out.
        file: To write to.
        early: The ``generators``, where they were to be read earlier.
        more: Picklable values that ``load`` gives back beside.

    Raises:
        PicklingError: Something in the state cannot be pickled, whatever it raised itself.
        OSError: The file cannot be written.
    """
    file.write(FIRST_LINE + json.dumps(asdict(header)).encode() + b"\n")
    sink = _Sink(file)
    pickler = _Pickler(sink, apart=_layers(model.env) if header.inexact else [])
    try:
        pickler.dump(_state(model, callbacks, header, early, more))
    except Exception as error:  # objects raise what they like when they cannot be pickled
        if error is sink.error:
            raise
        raise pickle.PicklingError(f"{type(error).__name__}: {error}") from error


def load_snapshot(path: Path, env: VecEnv | None = None) -> SnapshotState:
    """Read a snapshot; this unpickles.

    Args:
        path: Its file.
        env: New environments, for a snapshot that holds none, in the wrappers that were around them; see ``rebuilt``.

    Returns:
        What ``dump`` wrote, with the algorithm ready to learn as ``"model"``; ``put_back`` takes the rest when learning goes on.

    Raises:
        MlflowException: It is none, or the environments are wrapped otherwise.
    """
    with path.open("rb") as file:
        header = parse_header(file, path)
        state: SnapshotState = _Unpickler(file, _layers(env)).load()
    module, name = state["algorithm"]
    cls: type[BaseAlgorithm] = getattr(importlib.import_module(module), name)
    model = cls.__new__(cls)
    vars(model).update(state["model"])
    if header.inexact:
        model._last_obs = None  # so that learn resets the environments
    return state | {"model": model}


def restore_learning_state(
    model: BaseAlgorithm, callbacks: Sequence[BaseCallback], state: SnapshotState
) -> None:
    """Set what ``learn`` has begun anew as it was; call it when the first rollout starts."""
    for callback, attributes in zip(callbacks, state["callbacks"], strict=True):
        vars(callback).update(attributes)
    for found, saved in (
        (_noise(model), state["noise"]),
        (_exploration(model), state["exploration"]),
    ):
        if saved is not None:
            vars(found).update(pickle.loads(saved))  # noqa: S301 a part of the snapshot
    for name, values in state["logger"].items():
        getattr(model.logger, name).update(values)
    model.logger.go_on(state["iterations"])  # type: ignore[attr-defined]
    model.start_time = time.time_ns() - state["elapsed"]
    model._num_timesteps_at_start = state["at_start"]


def rebuild_envs(description: str, header: SnapshotHeader) -> VecEnv | None:
    """New environments for a snapshot without them; None for one that has them."""
    if not header.inexact:
        return None
    vec_env = algorithms.vec_env(description, {"n_envs": header.n_envs})
    normalized = (
        vec_env
        if header.statistics is None
        else vec_normalize.wrap_vec_env(vec_env, header.statistics)
    )
    return BaseAlgorithm._wrap_env(
        normalized
    )  # an algorithm that is built turns images so that their channels are first


def _state(
    model: BaseAlgorithm,
    callbacks: Sequence[BaseCallback],
    header: SnapshotHeader,
    early: SnapshotState | None,
    more: SnapshotState,
) -> SnapshotState:
    logger: Any = model.logger
    left_out = {"_logger", "replay_buffer"} if header.learned else {"_logger"}
    return {
        "algorithm": (type(model).__module__, type(model).__name__),
        "model": {key: value for key, value in vars(model).items() if key not in left_out},
        "learned": header.learned,
        "callbacks": [
            {key: value for key, value in vars(callback).items() if key not in _OF_SB3}
            for callback in callbacks
        ],
        "generators": early or get_rng_state(),
        "noise": None if _noise(model) is None else cloudpickle.dumps(vars(_noise(model))),
        "exploration": None
        if _exploration(model) is None
        else cloudpickle.dumps(vars(_exploration(model))),
        "logger": {
            name: dict(getattr(logger, name))
            for name in ("name_to_value", "name_to_count", "name_to_excluded")
        },
        "iterations": logger.iterations,
        "elapsed": time.time_ns() - model.start_time,
        "at_start": model._num_timesteps_at_start,
        "more": more,
    }


def _noise(model: BaseAlgorithm) -> Any:
    return model.action_noise


def _exploration(model: BaseAlgorithm) -> Any:
    """The distribution that holds the matrices of gSDE; SB3 samples them anew before its callbacks hear of a rollout."""
    found = getattr(getattr(model, "actor", None) or model.policy, "action_dist", None)
    return found if isinstance(found, StateDependentNoiseDistribution) else None


def _layers(vec_env: VecEnv | None) -> list[Any]:
    """Vectorised environments from the outermost to the innermost."""
    layers: list[Any] = []
    while vec_env is not None:
        layers.append(vec_env)
        vec_env = vec_env.venv if isinstance(vec_env, VecEnvWrapper) else None
    return layers


class _Sink:
    """A file that remembers why it could not be written: what is pickled into it may raise the same kind of error."""

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
    """Pickles replay buffers as far as they are filled, and whole what leaves a part of itself out."""

    def __init__(self, file: _Sink, apart: Sequence[Any]) -> None:
        super().__init__(file, protocol=5)
        self._apart = {id(layer): place for place, layer in enumerate(apart)}

    def persistent_id(self, obj: Any) -> tuple[int, str] | None:
        place = self._apart.get(id(obj))
        return None if place is None else (place, type(obj).__name__)

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, ReplayBuffer):
            filled = (
                vars(obj)
                if obj.full
                else {key: _trimmed(value, obj) for key, value in vars(obj).items()}
            )
            return copyreg.__newobj__, (type(obj),), filled, None, None, _fill  # type: ignore[attr-defined]
        if isinstance(
            obj, (VecEnvWrapper, EzPickle)
        ):  # VecNormalize forgets running returns, EzPickle all that happened
            own = {key: value for key, value in vars(obj).items() if key != _OF_THE_CLASS}
            return copyreg.__newobj__, (type(obj),), own, None, None, _set  # type: ignore[attr-defined]
        return super().reducer_override(obj)


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO, layers: Sequence[Any]) -> None:
        super().__init__(file)
        self._layers = layers

    def persistent_load(self, pid: tuple[int, str]) -> Any:
        place, name = pid
        names = [type(layer).__name__ for layer in self._layers]
        if names[place : place + 1] != [name]:
            raise MlflowException.invalid_parameter_value(
                f"the snapshot has environments with {name} at place {place}, and the new ones are {', '.join(names) or 'missing'}; "
                "go on with the versions that wrote it, or train anew."
            )
        return self._layers[place]


@dataclass(frozen=True)
class _Rows:
    """The first rows of an array, behind which there are zeros."""

    rows: NDArray[Any]
    shape: tuple[int, ...]

    def whole(self) -> NDArray[Any]:
        array = np.zeros(self.shape, self.rows.dtype)
        array[: len(self.rows)] = self.rows
        return array


def _trimmed(value: Any, buffer: ReplayBuffer) -> Any:
    if isinstance(value, dict):
        return {key: _trimmed(inner, buffer) for key, inner in value.items()}
    if (
        isinstance(value, np.ndarray)
        and value.ndim
        and len(value) == buffer.buffer_size
        and not value.dtype.hasobject
    ):
        return _Rows(
            value[: buffer.pos + 1], value.shape
        )  # one more: optimize_memory_usage writes the next observation there
    return value


def _restored(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _restored(inner) for key, inner in value.items()}
    return value.whole() if isinstance(value, _Rows) else value


def _fill(buffer: ReplayBuffer, attributes: SnapshotState) -> None:
    vars(buffer).update({key: _restored(value) for key, value in attributes.items()})


def _set(instance: Any, attributes: SnapshotState) -> None:
    vars(instance).update(attributes)
    if isinstance(instance, VecEnvWrapper):
        vars(instance)[_OF_THE_CLASS] = dict(inspect.getmembers(type(instance)))
