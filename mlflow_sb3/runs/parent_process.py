"""Which processes started this one. Imported first by every step, so that nobody has gone by then; it imports nothing that takes time."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_SHELLS = frozenset({"bash", "sh", "dash"})


def parents() -> tuple[int, ...]:
    """The parent of this process, and the parent's if that is a shell, as ``mlflow run`` starts one."""
    parent = os.getppid()
    with suppress(OSError, ValueError):
        stat = Path(f"/proc/{parent}/stat").read_text()
        name, rest = (
            stat[stat.index("(") + 1 : stat.rindex(")")],
            stat[stat.rindex(")") + 2 :].split(),
        )
        if name in _SHELLS:
            return parent, int(rest[1])
    return (parent,)


FIRST = parents()
"""Those that there were when this process began."""
