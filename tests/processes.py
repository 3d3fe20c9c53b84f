"""Watch processes: wait for a condition, list child processes, read command lines."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from mlflow_sb3.training.forked_worker import PROCESS_NAME

PROCESS_TIMEOUT = 600.0
"""Seconds after which a wait fails. It is long, because parallel tests slow the machine down."""
PROCESS_GONE_ERRORS = (FileNotFoundError, ProcessLookupError)
"""Exceptions of reading from ``/proc`` if the process has ended before or after the open."""


def wait_until(
    condition: Callable[[], object], *, describe_failure: Callable[[], object] = lambda: ""
) -> None:
    """Wait until a condition is true.

    Args:
        condition: Called ten times a second.
        describe_failure: Returns the assertion message if the condition stays false.
    """
    deadline = time.monotonic() + PROCESS_TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, describe_failure()
        time.sleep(0.1)


def list_children(pid: int) -> list[int]:
    """Return the pids of a process's children. Return an empty list if the process has ended."""
    pids: list[int] = []
    with suppress(*PROCESS_GONE_ERRORS):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(*PROCESS_GONE_ERRORS):  # the thread has ended
                pids += map(int, (task / "children").read_text().split())
    return pids


def read_command_line(pid: int | str) -> list[str]:
    """Return the arguments of a process. Return an empty list if the process has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except PROCESS_GONE_ERRORS:
        return []


def has_ended(pid: int) -> bool:
    """Return whether a process has ended. A zombie counts as ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except PROCESS_GONE_ERRORS:
        return True


def find_snapshots(state_folder: Path) -> set[Path]:
    """Return the snapshots of all runs in a state folder.

    Return an empty set if a run removes its snapshots during the search.
    """
    try:
        return set(state_folder.glob("mlflow-sb3/*/snapshots/*.snapshot"))
    except FileNotFoundError:
        return set()


def list_forked_workers() -> list[int]:
    """Return the pids of the workers that evaluate checkpoints for this process."""
    return [
        int(str(process.pid))
        for process in multiprocessing.active_children()
        if process.name == PROCESS_NAME
    ]
