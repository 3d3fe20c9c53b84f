"""Read the header of a snapshot: JSON at the start of the file, readable without unpickling."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from mlflow.exceptions import MlflowException

SNAPSHOT_SCHEMA = 4
"""Version of the file format. Other versions are rejected."""
FIRST_LINE = b"mlflow-sb3 snapshot\n"


@dataclass(frozen=True)
class SnapshotHeader:
    """Facts about a snapshot. The attributes are the keys of the stored JSON."""

    step: int
    """Environment steps that the training had taken."""
    learned: bool
    """Whether learning was complete, so that only the checkpoint selection is left."""
    context: dict[str, Any]
    """JSON values of the caller, such as the training configuration."""
    n_envs: int
    """Number of environments in the ``VecEnv``."""
    inexact: str | None = None
    """Why the snapshot lacks the environments. None if it contains them."""
    statistics: dict[str, Any] | None = None
    """Settings and statistics of ``VecNormalize``, if the snapshot lacks the environments."""
    schema: int = SNAPSHOT_SCHEMA


def read_header(path: Path) -> SnapshotHeader:
    """Read the header of a snapshot file.

    Raises:
        MlflowException: The file is not a snapshot, or it has another schema.
    """
    with path.open("rb") as file:
        return parse_header(file, path)


def parse_header(file: BinaryIO, path: Path) -> SnapshotHeader:
    """Read the header from an open snapshot, and leave the file at the start of the pickle.

    Args:
        file: Snapshot, opened at its start.
        path: Path for error messages.

    Raises:
        MlflowException: The file is not a snapshot, or it has another schema.
    """
    if file.readline() != FIRST_LINE:
        raise MlflowException.invalid_parameter_value(
            f"{path} is not a training snapshot. "
            "Use a file that the entry point train wrote to its snapshots folder."
        )
    try:
        header = json.loads(file.readline())
        schema = header["schema"]
        if schema == SNAPSHOT_SCHEMA:
            return SnapshotHeader(**header)
    except (KeyError, TypeError, ValueError) as error:
        raise MlflowException.invalid_parameter_value(
            f"The header of snapshot {path} is damaged ({error}). Resume from another snapshot."
        ) from error
    raise MlflowException.invalid_parameter_value(
        f"Snapshot {path} has schema {schema}, but this version of mlflow-sb3 "
        f"reads schema {SNAPSHOT_SCHEMA}. Resume with the version that wrote it."
    )
