"""SHA-256 over all files of a model."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass

_WRITTEN_BY_MLFLOW = Path("registered_model_meta")
"""MLflow writes this file into a model that it downloads; it is no part of the model, and nothing is read from it."""


def model_digest(folder: Path) -> str:
    """SHA-256, as 64 hexadecimal digits, over the sorted paths and SHA-256 of every file of a model, MLmodel and code included."""
    paths = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    kept = (path for path in paths if path != _WRITTEN_BY_MLFLOW)
    lines = (
        f"{_one_line(path)} {hashlib.sha256((folder / path).read_bytes()).hexdigest()}\n"
        for path in kept
    )
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _one_line(path: Path) -> str:
    """A path as no other is written: a line break in the name of one file must not look like the line of another."""
    return path.as_posix().replace("\\", r"\\").replace("\n", r"\n")
