"""Where a run keeps what has to outlive its process: a folder of this machine, by the id of the run."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

_NAME = "mlflow-sb3"


def state_dir(folder: str | os.PathLike[str] | None = None) -> Path:
    """The folder of all runs: the given one, else ``$XDG_STATE_HOME/mlflow-sb3``, else ``~/.local/state/mlflow-sb3``.

    Where there is no home to write to, as in some containers, it lies in the folder for temporary files.
    """
    if folder:
        return Path(folder).absolute()
    found = Path(os.environ.get("XDG_STATE_HOME") or Path("~/.local/state").expanduser()) / _NAME
    try:
        found.mkdir(parents=True, exist_ok=True)
    except OSError:
        found = Path(tempfile.gettempdir()) / f"{_NAME}-{os.getuid()}"
        found.mkdir(mode=0o700, exist_ok=True)
        if found.stat().st_uid != os.getuid() or found.stat().st_mode & 0o077:
            raise PermissionError(
                f"{found} belongs to somebody else, or others can write to it; set XDG_STATE_HOME to a folder of your own."
            ) from None
    return found


def run_dir(run_id: str, folder: str | os.PathLike[str] | None = None) -> Path:
    """The folder of a run; it need not exist."""
    return state_dir(folder) / run_id
