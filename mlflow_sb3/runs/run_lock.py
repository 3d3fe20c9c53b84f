"""Lock a file for each run, so that other processes of the machine see whether the run is alive.

The operating system releases the lock when the process of the run ends, even if it is killed.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from mlflow_sb3.runs import state_dir

_ACQUIRE_TIMEOUT = 0.1
"""How long to wait for a lock, in seconds.

It is not 0, because ``is_run_locked`` of another process may hold the lock for a moment.
"""
_POLL_INTERVAL = 0.02
"""Seconds between two attempts to get a lock."""


def get_lock_path(run_id: str) -> Path:
    """Return the lock file of a run.

    Several machines may share the state folder, but file locks do not always work across machines.
    Each machine therefore has its own subfolder, and a new one after each boot.
    """
    boot_id_file = Path("/proc/sys/kernel/random/boot_id")
    boot_id = boot_id_file.read_text().strip() if boot_id_file.exists() else ""
    machine = hashlib.sha256(f"{platform.node()} {boot_id}".encode()).hexdigest()[:16]
    return state_dir.get_state_dir() / "alive" / machine / f"{run_id}.lock"


@contextmanager
def hold_run_lock(run_id: str) -> Iterator[None]:
    """Lock the file of a run inside the context, and delete the file afterwards.

    If the file cannot be locked, for example because the disk is full, the context has no lock.
    """
    path = get_lock_path(run_id)
    lock = FileLock(path)
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=_ACQUIRE_TIMEOUT, poll_interval=_POLL_INTERVAL)
    try:
        yield
    finally:
        if lock.is_locked:
            delete_lock_file(run_id)
            lock.release()


def is_run_locked(run_id: str) -> bool | None:
    """Return whether a process of this machine locks the file of a run.

    Returns:
        True or False. None if there is no such file, for example because the run is on another
        machine, or if the file cannot be opened.
    """
    path = get_lock_path(run_id)
    if not path.exists():
        return None
    try:
        with FileLock(path).acquire(timeout=_ACQUIRE_TIMEOUT, poll_interval=_POLL_INTERVAL):
            return False
    except Timeout:
        return True
    except OSError:
        return None


def delete_lock_file(run_id: str) -> None:
    """Delete the lock file of a run if there is one."""
    with suppress(OSError):
        get_lock_path(run_id).unlink(missing_ok=True)
