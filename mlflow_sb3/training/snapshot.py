"""Write and load snapshots: the complete state of a training between two rollouts.

The state comprises the algorithm with its environments and buffers, the attributes of the
callbacks, the global random generators, and the values that ``learn`` resets. A training that
continues from a snapshot ends with the same weights, to the bit. This does not hold if the
environments cannot be pickled: the snapshot then leaves them out, and ``inexact`` is set.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvWrapper

from mlflow_sb3.algorithms import builder
from mlflow_sb3.flavor import sb3_internals, vec_normalize
from mlflow_sb3.tracking.snapshot_header import FIRST_LINE, SnapshotHeader, parse_header
from mlflow_sb3.training import snapshot_pickle
from mlflow_sb3.training.learn_state import LearnState
from mlflow_sb3.training.rng_state import RngState, get_rng_state

_SET_BY_SB3 = frozenset({"model", "parent", "locals", "globals"})
"""Attributes of a callback that SB3 sets when ``learn`` starts."""


@dataclass(frozen=True)
class SnapshotState:
    """State of a training that was loaded from a snapshot."""

    model: BaseAlgorithm
    is_learned: bool
    """Whether learning has ended, so that only the selection of a checkpoint remains."""
    callbacks: list[dict[str, Any]]
    """Attributes of each callback."""
    rng_state: RngState
    learn_state: LearnState
    extra: dict[str, Any]
    """Other picklable values; see ``write_snapshot``."""


def write_snapshot(
    file: BinaryIO,
    header: SnapshotHeader,
    model: BaseAlgorithm,
    callbacks: Sequence[BaseCallback],
    *,
    rng_state: RngState | None = None,
    extra: dict[str, Any] | None = None,
) -> None:
    """Write the state of a training to a file.

    Args:
        file: Binary file to write to.
        header: Header of the snapshot. If ``header.inexact`` is set, the environments are left out.
            If ``header.learned`` is set, the replay buffer is left out.
        model: Algorithm between two rollouts.
        callbacks: Callbacks whose attributes belong to the state.
        rng_state: State of the random generators to store; by default, the current state.
        extra: Other picklable values to store.

    Raises:
        PicklingError: A part of the state cannot be pickled. The original error is the cause.
        OSError: The file cannot be written.
    """
    left_out = {sb3_internals.LOGGER_ATTRIBUTE}
    if header.learned:
        left_out.add("replay_buffer")
    state = {
        "algorithm": (type(model).__module__, type(model).__name__),
        "attributes": {key: value for key, value in vars(model).items() if key not in left_out},
        "callbacks": [_get_attributes(callback) for callback in callbacks],
        "rng_state": rng_state or get_rng_state(),
        "learn_state": LearnState.from_model(model),
        "extra": extra or {},
    }
    file.write(FIRST_LINE + json.dumps(asdict(header)).encode() + b"\n")
    external = list_layers(model.env) if header.inexact else []
    snapshot_pickle.dump_state(state, file, external=external)


def load_snapshot(path: Path, env: VecEnv | None = None) -> SnapshotState:
    """Load a snapshot. Loading unpickles: load only snapshots that you trust.

    Args:
        path: The file.
        env: New environments for a snapshot without environments; see ``rebuild_envs``.

    Returns:
        The state. Its model is ready for ``learn``. Call ``restore_training`` at the start of the
        first rollout.

    Raises:
        MlflowException: The file is not a snapshot, its format has another version, or the
            environments were left out and ``env`` does not have the same VecEnv wrappers as them.
    """
    with path.open("rb") as file:
        header = parse_header(file, path)
        state = snapshot_pickle.load_state(file, external=list_layers(env))
    module, name = state["algorithm"]
    cls: type[BaseAlgorithm] = getattr(importlib.import_module(module), name)
    model = cls.__new__(cls)
    vars(model).update(state["attributes"])
    if header.inexact:
        sb3_internals.clear_last_observation(model)  # learn then resets the environments
    return SnapshotState(
        model,
        header.learned,
        state["callbacks"],
        state["rng_state"],
        state["learn_state"],
        state["extra"],
    )


def restore_training(
    model: BaseAlgorithm, callbacks: Sequence[BaseCallback], state: SnapshotState
) -> None:
    """Restore the callbacks and the values that ``learn`` has reset.

    Call it at the start of the first rollout. It does not set the random generators.
    """
    for callback, attributes in zip(callbacks, state.callbacks, strict=True):
        vars(callback).update(attributes)
    state.learn_state.restore(model)


def rebuild_envs(env_spec_json: str, header: SnapshotHeader, *, seed: int) -> VecEnv | None:
    """Return new environments for a snapshot without environments. None if it contains them.

    Args:
        env_spec_json: The environment, as ``EnvSpec`` JSON.
        header: Header of the snapshot.
        seed: Seed of the environments.
    """
    if not header.inexact:
        return None
    vec_env: VecEnv = builder.build_vec_env(env_spec_json, {"n_envs": header.n_envs}, seed=seed)
    if header.statistics is not None:
        vec_env = vec_normalize.wrap_vec_env(vec_env, header.statistics)
    return sb3_internals.wrap_env(vec_env)


def list_layers(vec_env: VecEnv | None) -> list[Any]:
    """Return a VecEnv and the VecEnvs inside it, from the outermost to the innermost."""
    layers: list[Any] = []
    while vec_env is not None:
        layers.append(vec_env)
        vec_env = vec_env.venv if isinstance(vec_env, VecEnvWrapper) else None
    return layers


def _get_attributes(callback: BaseCallback) -> dict[str, Any]:
    return {key: value for key, value in vars(callback).items() if key not in _SET_BY_SB3}
