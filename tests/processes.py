"""Other processes: what they have started, and waiting for what they do."""

from __future__ import annotations

import time
from collections.abc import Callable
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
    return [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]
