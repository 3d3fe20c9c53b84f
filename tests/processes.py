"""Other processes: what they have started, and waiting for what they do."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

PATIENCE = 600.0
"""Seconds after which what a test waits for will not happen: a machine that runs several tests at once is slow."""
GONE = (FileNotFoundError, ProcessLookupError)
"""What reading of a process raises that has ended, before or after the file is open."""


def until(holds: Callable[[], object], *, otherwise: Callable[[], object] = lambda: "") -> None:
    """Wait until something holds; ``otherwise`` says what there is if it never does."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, otherwise()
        time.sleep(0.1)


def children(pid: int) -> list[int]:
    """Those that a process has started and that still are; none of a process that is gone."""
    found: list[int] = []
    with suppress(*GONE):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(*GONE):  # a thread that has ended
                found += map(int, (task / "children").read_text().split())
    return found


def command_line(pid: int | str) -> list[str]:
    """What a process was started with; nothing of one that is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except GONE:
        return []


def is_over(pid: int) -> bool:
    """Whether a process has ended, though nobody may have asked how."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except GONE:
        return True


def snapshots(folder: Path) -> set[Path]:
    """Those of all runs whose state lies in a folder; none while a run that has finished removes its own."""
    try:
        return set(folder.glob("mlflow-sb3/*/snapshots/*.snapshot"))
    except FileNotFoundError:
        return set()


def companions() -> list[int]:
    """The companions of this process."""
    return [
        int(str(process.pid))
        for process in multiprocessing.active_children()
        if process.name == "companion"
    ]
