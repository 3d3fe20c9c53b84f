"""Other processes: what they have started, and waiting for what they do."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

PATIENCE = 600.0
"""Seconds after which what a test waits for will not happen: a machine that runs several tests at once is slow."""


def until(holds: Callable[[], object], *, otherwise: Callable[[], object] = lambda: "") -> None:
    """Wait until something holds; ``otherwise`` says what there is if it never does."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, otherwise()
        time.sleep(0.1)


def children(pid: int) -> list[int]:
    """Those that a process has started and that still are."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that has ended
            found += map(int, (task / "children").read_text().split())
    return found


def is_over(pid: int) -> bool:
    """Whether a process has ended, though nobody may have asked how."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def companions() -> list[int]:
    """The companions of this process."""
    return [int(str(process.pid)) for process in multiprocessing.active_children() if process.name == "companion"]
