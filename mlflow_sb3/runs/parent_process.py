"""Identify the processes that started this process.

Every step imports this module first, before a parent can exit. The module imports nothing slow.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_SHELLS = frozenset({"bash", "sh", "dash"})


def get_parent_pids() -> tuple[int, ...]:
    """Return the id of the parent process.

    ``mlflow run`` starts a step through a shell. If the parent is a shell, the id of the shell's
    parent comes second.
    """
    parent = os.getppid()
    with suppress(OSError, ValueError):  # there is no /proc on macOS
        # The name stands in parentheses and may contain parentheses itself, see proc_pid_stat(5).
        status = Path(f"/proc/{parent}/stat").read_text()
        name = status[status.index("(") + 1 : status.rindex(")")]
        _state, grandparent, *_rest = status[status.rindex(")") + 2 :].split()
        if name in _SHELLS:
            return parent, int(grandparent)
    return (parent,)


INITIAL_PARENT_PIDS = get_parent_pids()
"""Result of ``get_parent_pids`` at the start of this process."""
