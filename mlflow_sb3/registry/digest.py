"""Compute the SHA-256 digests of a folder and of its files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
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
    return combine_digests(hash_files(folder))


def hash_files(folder: Path) -> dict[Path, str]:
    """Return the SHA-256 digest of each file of a model, by relative path."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {path: hash_file(folder / path) for path in paths if path != _MLFLOW_METADATA}


def hash_file(path: Path) -> str:
    """Return the SHA-256 digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def combine_digests(digests: Mapping[Path, str]) -> str:
    """Return the digest of a folder, given the digests of its files; see ``hash_folder``."""
    lines = (f"{_escape_path(path)} {digests[path]}\n" for path in sorted(digests))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _escape_path(path: Path) -> str:
    """Escape line breaks, so that one file name cannot look like two lines."""
    return path.as_posix().replace("\\", r"\\").replace("\n", r"\n")
