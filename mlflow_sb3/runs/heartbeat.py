"""Whether the process of a run is alive: told by a lock on its machine, and by a beat in a tag of the run elsewhere."""

from __future__ import annotations

import fcntl
import os
import platform
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request, verify_rest_response

from mlflow_sb3.client import connection
from mlflow_sb3.runs import parent_process, signals, state_dir

BEAT = "mlflow_sb3.heartbeat"
"""Tag of a run: seconds since 1970, by the clock of the machine that it runs on."""
PRESUMED = "mlflow_sb3.presumed_dead"
"""Tag of a run that somebody called dead; a run that beats again takes it off."""
INTERVAL = 30.0
"""Seconds between two beats."""
AGAIN = 2.0
"""Seconds after which a beat that did not come through is tried again, so that one comes as soon as a server is back."""
DEAD = 900.0
"""Seconds without a beat after which a run counts as dead for whoever passes by: more than clocks differ."""
WATCHED = 3 * INTERVAL
"""Seconds to look at a run of another machine that beat not long ago: who lives beats meanwhile."""
BACK = AGAIN + connection.ANSWER_TIMEOUT
"""Seconds to look at one that did not beat for ``DEAD``: its server may just be back, and who lives beats meanwhile."""
_LOOK = 1.0
"""Seconds between two looks at a run."""
_PARENTS = 1.0
_REASON = "the process of this run ended without a word: killed, or its machine was lost."


@contextmanager
def heartbeat(run_id: str, *, parents: tuple[int, ...] | None = None) -> Iterator[None]:
    """Beat while the context lasts, and end with those who started this process.

    Args:
        run_id: Of the active run.
        parents: Who started this process; when they are gone, it gets ``signals.ORPHANED``.
    """
    over, client = threading.Event(), MlflowClient()
    client.set_tag(run_id, BEAT, f"{time.time():.0f}")
    with _locked(run_id):
        threading.Thread(
            target=_beat, args=(client, run_id, over), name="heartbeat", daemon=True
        ).start()
        if parents is not None:
            threading.Thread(
                target=_watch_parents, args=(parents, over), name="parents", daemon=True
            ).start()
        try:
            yield
        finally:
            over.set()


def is_alive(run: Run) -> bool:
    """Whether a run that says RUNNING has a process still, as far as can be seen at once from here."""
    locked = _is_locked(run.info.run_id)
    return time.time() - _last_beat(run) < DEAD if locked is None else locked


def is_alive_after_watching(run: Run) -> bool:
    """The same, surely: a run of another machine is looked at for a while, by this machine's clock alone.

    Only the time between looks counts: in that which a look takes, the server may be away, and no beat can come through.
    """
    locked = _is_locked(run.info.run_id)
    if locked is not None or BEAT not in run.data.tags:
        return bool(locked)
    patience = WATCHED if time.time() - _last_beat(run) < DEAD else BACK
    watched = 0.0
    while True:
        found = MlflowClient().get_run(run.info.run_id)
        if found.info.status != "RUNNING":
            return False
        if found.data.tags.get(BEAT) != run.data.tags.get(BEAT):
            return True
        if watched >= patience:
            return False
        time.sleep(_LOOK)
        watched += _LOOK


def fail_stale_runs(experiment_id: str) -> list[str]:
    """Mark the runs of an experiment whose processes are dead as FAILED, with the reason; returns their ids.

    Only runs that ever beat: those of this project.
    """
    running = MlflowClient().search_runs(
        [experiment_id], f"attributes.status = 'RUNNING' and tags.`{BEAT}` != ''", max_results=100
    )
    silent = [run for run in running if not is_alive(run)]
    if any(_is_locked(run.info.run_id) is None for run in silent):
        time.sleep(BACK)
        silent = [run for run in silent if _is_as_before(run)]
    dead = [run.info.run_id for run in silent]
    for run_id in dead:
        mark_failed(run_id)
    return dead


def mark_failed(run_id: str) -> None:
    """Mark a run as FAILED, with the reason."""
    client = MlflowClient()
    client.set_tag(run_id, "error", _REASON)
    client.set_terminated(run_id, "FAILED")
    client.set_tag(
        run_id, PRESUMED, "true"
    )  # last: a run that takes it back in between would take a part of it back
    _lock_of(run_id).unlink(missing_ok=True)


def restore_running(run_id: str, client: MlflowClient) -> None:
    """Take back what ``call_dead`` said of a run that was only out of sight."""
    tags = client.get_run(run_id).data.tags
    if PRESUMED in tags:
        client.update_run(run_id, "RUNNING")
        client.delete_tag(run_id, PRESUMED)
        if tags.get("error") == _REASON:
            client.delete_tag(run_id, "error")


@contextmanager
def _locked(run_id: str) -> Iterator[None]:
    """Hold the lock of a run; where files cannot be locked, the beat has to do."""
    path = _lock_of(run_id)
    with path.open(
        "wb", buffering=0
    ) as file:  # what a full disk does not take is not tried again when the file is closed
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.write(_machine().encode())
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _is_locked(run_id: str) -> bool | None:
    """Whether a process of this machine holds the lock of a run; None where that cannot be told from here."""
    path = _lock_of(run_id)
    try:
        with path.open() as file:
            if (
                file.read() != _machine()
            ):  # of another machine that shares the folder, where locks may not be shared
                return None
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            return False
    except OSError:
        return None


def _machine() -> str:
    """This machine, since it was started."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return f"{platform.node()} {boot.read_text().strip() if boot.exists() else ''}"


def _lock_of(run_id: str) -> Path:
    folder = state_dir.state_dir() / "alive"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / run_id


def _is_as_before(run: Run) -> bool:
    """Whether a run that said RUNNING has neither ended nor beaten since it was asked for."""
    now = MlflowClient().get_run(run.info.run_id)
    return now.info.status == "RUNNING" and now.data.tags.get(BEAT) == run.data.tags.get(BEAT)


def _last_beat(run: Run) -> float:
    return float(run.data.tags.get(BEAT, "0"))


def _beat(client: MlflowClient, run_id: str, over: threading.Event) -> None:
    pause = INTERVAL
    while not over.wait(pause):
        try:
            _beat_once(client, run_id)
            pause = INTERVAL
        except (
            KeyError,
            MlflowException,
            OSError,
        ):  # another beat may come through; what is no run is the answer of another server
            pause = min(AGAIN, INTERVAL)


def _beat_once(client: MlflowClient, run_id: str) -> None:
    """Beat, and take back what others said meanwhile; a server that does not answer is left in seconds."""
    now = f"{time.time():.0f}"
    if not client.tracking_uri.startswith("http"):
        client.set_tag(run_id, BEAT, now)
        restore_running(run_id, client)
        return
    _ask(client, "set-tag", "POST", json={"run_id": run_id, "key": BEAT, "value": now})
    tags = _ask(client, "get", "GET", params={"run_id": run_id})["run"]["data"].get("tags", [])
    if PRESUMED in {tag["key"] for tag in tags}:
        restore_running(run_id, client)


def _ask(client: MlflowClient, call: str, method: str, **question: Any) -> dict[str, Any]:
    """Ask a server about runs, once: how often MLflow's client tries, for minutes, stands in the environment, which is all threads'."""
    path = f"/api/2.0/mlflow/runs/{call}"
    host = get_default_host_creds(client.tracking_uri)  # type: ignore[no-untyped-call]
    answer = http_request(
        host, path, method, max_retries=0, timeout=connection.ANSWER_TIMEOUT, **question
    )  # type: ignore[no-untyped-call]
    answered: dict[str, Any] = verify_rest_response(answer, path).json()
    return answered


def _watch_parents(parents: tuple[int, ...], over: threading.Event) -> None:
    while not over.is_set():
        if parent_process.parents() != parents:
            os.kill(os.getpid(), signals.ORPHANED)
            return
        over.wait(_PARENTS)
