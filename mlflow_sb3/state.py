"""Where a run keeps what has to outlive its process: a folder of this machine, by the id of the run."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

_NAME = "mlflow-sb3"


def home(folder: str | os.PathLike[str] | None = None) -> Path:
    """The folder of all runs: the given one, else ``$XDG_STATE_HOME/mlflow-sb3``, else ``~/.local/state/mlflow-sb3``.

    Where there is no home to write to, as in some containers, it lies in the folder for temporary files.
    """
    if folder:
        return Path(folder).absolute()
    found = Path(os.environ.get("XDG_STATE_HOME") or Path("~/.local/state").expanduser()) / _NAME
    try:
        found.mkdir(parents=True, exist_ok=True)
    except OSError:
        return Path(tempfile.gettempdir()) / f"{_NAME}-{os.getuid()}"
    return found


def of_run(run_id: str, folder: str | os.PathLike[str] | None = None) -> Path:
    """The folder of a run; it need not exist."""
    return home(folder) / run_id
