"""Compute the SHA-256 digest of a folder."""

from __future__ import annotations

import hashlib
from pathlib import Path

_MLFLOW_METADATA = Path("registered_model_meta")
"""File that MLflow adds to a downloaded model. It is not part of the model."""


def hash_folder(folder: Path) -> str:
    """Return the digest of all files of a model, including ``MLmodel`` and the code.

    It is the SHA-256 of a text with one line per file, sorted by path. A line has the path and the
    SHA-256 digest of the file.

    Args:
        folder: Folder of a model, or of a part of it.

    Returns:
        The digest as 64 hexadecimal digits.
    """
    paths = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    lines = (
        f"{_escape_path(path)} {hashlib.sha256((folder / path).read_bytes()).hexdigest()}\n"
        for path in paths
        if path != _MLFLOW_METADATA
    )
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _escape_path(path: Path) -> str:
    """Escape line breaks, so that one file name cannot look like two lines."""
    return path.as_posix().replace("\\", r"\\").replace("\n", r"\n")
