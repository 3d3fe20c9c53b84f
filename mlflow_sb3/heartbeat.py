"""Whether the process of a run is alive: told by a lock on its machine, and by a beat in a tag of the run elsewhere."""

from __future__ import annotations

import fcntl
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from mlflow_sb3 import state

BEAT = "mlflow_sb3.heartbeat"
"""Tag of a run: seconds since 1970, by the clock of the machine that it runs on."""
INTERVAL = 30.0
"""Seconds between two beats."""
DEAD = 900.0
"""Seconds without a beat after which a run counts as dead: more than an outage of the server, or clocks that differ."""
_SHELLS = frozenset({"bash", "sh", "dash"})
_WATCH = 1.0


@contextmanager
def beating(run_id: str, *, parents: tuple[int, ...] | None = None) -> Iterator[None]:
    """Beat while the context lasts, and end with those who started this process.

    Args:
        run_id: Of the active run.
        parents: What ``ancestors`` returned when the process began; when they are gone, this process gets SIGTERM.
    """
    path = _lock_of(run_id)
    over = threading.Event()
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        MlflowClient().set_tag(run_id, BEAT, f"{time.time():.0f}")
        threading.Thread(target=_beat, args=(run_id, over), name="heartbeat", daemon=True).start()
        if parents is not None:
            threading.Thread(target=_watch, args=(parents, over), name="parents", daemon=True).start()
        try:
            yield
        finally:
            over.set()
            path.unlink(missing_ok=True)


def ancestors() -> tuple[int, ...]:
    """The parent of this process, and the parent's if that is a shell, as ``mlflow run`` starts one."""
    parent = os.getppid()
    with suppress(OSError, ValueError):
        stat = Path(f"/proc/{parent}/stat").read_text()
        name, rest = stat[stat.index("(") + 1 : stat.rindex(")")], stat[stat.rindex(")") + 2 :].split()
        if name in _SHELLS:
            return parent, int(rest[1])
    return (parent,)


def is_alive(run: Run) -> bool:
    """Whether a run that says RUNNING has a process still, as far as can be seen from here."""
    path = _lock_of(run.info.run_id)
    if path.exists():
        with path.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False
    return time.time() - float(run.data.tags.get(BEAT, "0")) < DEAD


def bury(experiment_id: str) -> list[str]:
    """Mark the runs of an experiment whose processes are dead as FAILED, with the reason; returns their ids.

    Only runs that ever beat: those of this project.
    """
    client = MlflowClient()
    running = client.search_runs([experiment_id], f"attributes.status = 'RUNNING' and tags.`{BEAT}` != ''", max_results=100)
    dead = [run.info.run_id for run in running if not is_alive(run)]
    for run_id in dead:
        call_dead(run_id)
    return dead


def call_dead(run_id: str) -> None:
    """Mark a run as FAILED, with the reason."""
    client = MlflowClient()
    client.set_tag(run_id, "error", "the process of this run ended without a word: killed, or its machine was lost.")
    client.set_terminated(run_id, "FAILED")
    _lock_of(run_id).unlink(missing_ok=True)


def _lock_of(run_id: str) -> Path:
    folder = state.home() / "alive"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / run_id


def _beat(run_id: str, over: threading.Event) -> None:
    client = MlflowClient()
    while not over.wait(INTERVAL):
        with suppress(MlflowException, OSError):  # the next beat may come through
            client.set_tag(run_id, BEAT, f"{time.time():.0f}")


def _watch(parents: tuple[int, ...], over: threading.Event) -> None:
    while not over.wait(_WATCH):
        if ancestors() != parents:
            os.kill(os.getpid(), signal.SIGTERM)
            return
