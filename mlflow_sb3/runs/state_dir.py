"""Locate the folders for local state of runs, such as snapshots and journals.

They stay on disk when the process of a run ends, so that an interrupted training can resume.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from pathlib import Path

import platformdirs
from mlflow.exceptions import MlflowException

MAX_AGE_DAYS = 30
"""Days after which the state of a run that cannot be resumed is deleted."""
_APP_NAME = "mlflow-sb3"


def get_state_dir(folder: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder for the state of all runs.

    The default is the user's state folder, such as ``~/.local/state/mlflow-sb3`` on Linux. The
    variable ``XDG_STATE_HOME`` changes it. If that folder cannot be created, as in some
    containers, a private folder for temporary files is used.

    Args:
        folder: Folder to use instead of the default.

    Raises:
        PermissionError: Another user owns the temporary folder, or others can read or write it.
    """
    if folder:
        return Path(folder).absolute()
    state_dir = platformdirs.user_state_path(_APP_NAME, appauthor=False)
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
    except OSError:
        return _create_temporary_state_dir()
    return state_dir


def get_run_dir(run_id: str, folder: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder for the state of a run. It may not exist yet.

    Args:
        run_id: Id of the run.
        folder: See ``get_state_dir``.

    Raises:
        MlflowException: ``run_id`` has other characters than letters and digits. It could name a
            folder of the user.
    """
    if re.fullmatch("[0-9A-Za-z]+", run_id) is None:
        raise MlflowException.invalid_parameter_value(f"{run_id!r} is not the id of an MLflow run.")
    return get_state_dir(folder) / run_id


def delete_old_run_dirs(resumable: str, folder: str | os.PathLike[str] | None = None) -> None:
    """Delete the folders of runs that cannot be resumed and have not changed for ``MAX_AGE_DAYS``.

    A run that was killed before its first snapshot leaves such a folder.

    Args:
        resumable: Pattern of the files that a run can be resumed from, such as ``"*.snapshot"``.
        folder: See ``get_state_dir``.
    """
    oldest = time.time() - MAX_AGE_DAYS * 24 * 60 * 60
    for run_dir in get_state_dir(folder).glob("*/"):
        if re.fullmatch("[0-9a-f]{32}", run_dir.name) is None or any(run_dir.rglob(resumable)):
            continue
        if max(path.stat().st_mtime for path in [run_dir, *run_dir.rglob("*")]) < oldest:
            shutil.rmtree(run_dir, ignore_errors=True)


def _create_temporary_state_dir() -> Path:
    state_dir = Path(tempfile.gettempdir()) / f"{_APP_NAME}-{os.getuid()}"
    state_dir.mkdir(mode=0o700, exist_ok=True)
    status = state_dir.stat()
    if status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise PermissionError(
            f"Other users can read or write {state_dir}, so it cannot hold the state of runs. "
            "Set XDG_STATE_HOME to a folder of your own."
        )
    return state_dir
