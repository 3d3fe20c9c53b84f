"""What can be read of a snapshot without unpickling it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from mlflow.exceptions import MlflowException

SNAPSHOT_SCHEMA = 3

FIRST_LINE = b"mlflow-sb3 snapshot\n"


@dataclass(frozen=True)
class SnapshotHeader:
    """What can be read of a snapshot without unpickling it."""

    step: int
    learned: bool
    """Whether only the choice among the candidates is left to do."""
    context: dict[str, Any]
    """JSON values of whoever takes the snapshots, such as how the agent is trained."""
    n_envs: int
    inexact: str | None = None
    """Why the environments are not part of it, if they are not."""
    statistics: dict[str, Any] | None = None
    """What VecNormalize had learned, where the environments are not part."""
    schema: int = SNAPSHOT_SCHEMA


def read_header(path: Path) -> SnapshotHeader:
    """Read what a snapshot says of itself.

    Raises:
        MlflowException: It is none, or of another version of this package.
    """
    with path.open("rb") as file:
        return parse_header(file, path)


def parse_header(file: BinaryIO, path: Path) -> SnapshotHeader:
    """Read the header at the beginning of an open snapshot."""
    if file.readline() != FIRST_LINE:
        raise MlflowException.invalid_parameter_value(f"{path} is no snapshot of a training.")
    written = json.loads(file.readline())
    if written["schema"] != SNAPSHOT_SCHEMA:
        raise MlflowException.invalid_parameter_value(
            f"{path} has the schema {written['schema']}, and this version reads {SNAPSHOT_SCHEMA}; go on with the version that wrote it."
        )
    return SnapshotHeader(**written)
