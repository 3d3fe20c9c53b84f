"""Find and change the stored files of a version."""

from __future__ import annotations

from pathlib import Path

import mlflow

from mlflow_sb3.registry.model_version import Version


def get_folder(version: Version) -> Path:
    """Return the folder in which the artifact store keeps the files of a version."""
    location = mlflow.get_logged_model(version.model_id).artifact_location
    return Path(location.removeprefix("file://"))


def list_files(version: Version) -> list[Path]:
    """Return the files of a version, relative to their folder."""
    folder = get_folder(version)
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


def flip_bit(path: Path) -> None:
    """Flip one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
