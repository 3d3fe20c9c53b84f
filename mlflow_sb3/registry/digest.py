"""Compute the SHA-256 digests of a folder and of its files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from mlflow.models import Model

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
    lines = (f"{_escape_path(path)} {_hash(folder / path)}\n" for path in _list_files(folder))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def hash_model_files(folder: Path) -> dict[str, str]:
    """Return the SHA-256 digest of each file of a model, by path.

    Of the file MLmodel, only the flavors count, because MLflow adds keys to it when it is logged.
    """
    digests = {path.as_posix(): _hash(folder / path) for path in _list_files(folder)}
    flavors = json.dumps(Model.load(str(folder)).flavors, sort_keys=True)
    return digests | {"MLmodel": hashlib.sha256(flavors.encode()).hexdigest()}


def _list_files(folder: Path) -> list[Path]:
    """Return the relative paths of the files of a model, sorted."""
    paths = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return [path for path in paths if path != _MLFLOW_METADATA]


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _escape_path(path: Path) -> str:
    """Escape line breaks, so that one file name cannot look like two lines."""
    return path.as_posix().replace("\\", r"\\").replace("\n", r"\n")
