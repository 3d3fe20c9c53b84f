"""Store the files of a run on the local disk until they are uploaded."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from mlflow_sb3.tracking import atomic_file
from mlflow_sb3.tracking.snapshot_uploader import SNAPSHOT_DIR, SNAPSHOT_NAMES


class RunFiles:
    """Local files of a run, with fallbacks for a full disk."""

    def __init__(self, folder: Path) -> None:
        """Write to the subfolder ``files`` of the run's folder."""
        self._folder = folder
        self._fallback_folder: Path | None = None

    def write(self, path: Path, content: bytes, *, latest_snapshot: Path | None) -> Path:
        """Write a file atomically.

        If the run's folder has no space left, write to the folder for temporary files. If that is
        full too, delete the older snapshot and write to the run's folder.

        Args:
            path: Path among the artifacts.
            content: Content of the file.
            latest_snapshot: Snapshot that is never deleted.

        Returns:
            The path relative to the run's folder, or an absolute path outside of it.

        Raises:
            OSError: There is no space even without the older snapshot.
        """
        inside = Path("files", path)
        with suppress(OSError):  # full: try the next location
            atomic_file.write_file(self._folder / inside, content)
            return inside
        with suppress(OSError):  # full: try the next location
            outside = self._get_fallback_folder() / path
            atomic_file.write_file(outside, content)
            return outside
        for name in SNAPSHOT_NAMES:
            if self._folder / SNAPSHOT_DIR / name != latest_snapshot:
                (self._folder / SNAPSHOT_DIR / name).unlink(missing_ok=True)
        atomic_file.write_file(self._folder / inside, content)
        return inside

    def remove(self) -> None:
        """Remove the run's folder and the files outside of it."""
        shutil.rmtree(self._folder, ignore_errors=True)
        if self._fallback_folder is not None:
            shutil.rmtree(self._fallback_folder, ignore_errors=True)

    def _get_fallback_folder(self) -> Path:
        if self._fallback_folder is None:
            self._fallback_folder = Path(tempfile.mkdtemp(prefix="mlflow-sb3-"))
        return self._fallback_folder
