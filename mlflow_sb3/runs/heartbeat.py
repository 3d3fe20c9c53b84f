"""Detect runs that have no process any more, and mark them as failed.

On the same machine, the lock file of a run shows whether its process is alive, see ``run_lock``.
For other machines, the process sends heartbeats: it writes the time to a tag of the run.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.mlflow_tags import (
    MLFLOW_PARENT_RUN_ID,
    MLFLOW_PROJECT_ENTRY_POINT,
    MLFLOW_USER,
)
from mlflow.utils.rest_utils import http_request, verify_rest_response

from mlflow_sb3.client import connection
from mlflow_sb3.runs import parent_process, run_lock, signals

HEARTBEAT_TAG = "mlflow.sb3.heartbeat"
"""Tag of a run: time of its last heartbeat, in seconds since 1970 by the clock of its machine.

MLflow's pages hide tags that begin with ``mlflow.``.
"""
PRESUMED_DEAD_TAG = "mlflow_sb3.presumed_dead"
"""Tag of a run that another process marked as failed. The next heartbeat removes it."""
HEARTBEAT_INTERVAL = 30.0
"""Seconds between two heartbeats."""
RETRY_INTERVAL = 2.0
"""Seconds until the next attempt after a heartbeat that the server did not receive."""
STALE_AFTER = 900.0
"""Seconds without a heartbeat after which a run is stale.

It exceeds the usual difference between the clocks of two machines.
"""
WATCH_TIMEOUT = 3 * HEARTBEAT_INTERVAL
"""How long to watch a run on another machine for a new heartbeat, in seconds."""
RECONNECT_TIMEOUT = RETRY_INTERVAL + connection.ANSWER_TIMEOUT
"""How long to watch a stale run for a new heartbeat, in seconds.

The server may have been down. When it is back, a running process sends a heartbeat at once.
"""

_WATCH_INTERVAL = 1.0
_PARENT_CHECK_INTERVAL = 1.0
_FAILURE_REASON = (
    "The process of this run ended unexpectedly: it was killed, or its machine failed."
)
_COPY_REASON = "The request that created this run was sent twice. The other run is used."
TOO_LONG_REASON = "This step had not ended when another call of main took over its work."
_COPIED_TAGS = (MLFLOW_PROJECT_ENTRY_POINT, MLFLOW_USER, MLFLOW_PARENT_RUN_ID)


@contextmanager
def send_heartbeats(run_id: str, *, parents: tuple[int, ...] | None = None) -> Iterator[None]:
    """Send heartbeats of a run inside the context.

    Args:
        run_id: Id of the active run.
        parents: Ids of the parent processes. If they change, this process receives
            ``signals.PARENT_EXIT_SIGNAL``.
    """
    stop, client = threading.Event(), MlflowClient()
    client.set_tag(run_id, HEARTBEAT_TAG, f"{time.time():.0f}")
    with run_lock.hold_run_lock(run_id):
        threading.Thread(
            target=_send_until, args=(client, run_id, stop), name="heartbeat", daemon=True
        ).start()
        if parents is not None:
            threading.Thread(
                target=_watch_parents, args=(parents, stop), name="watch-parents", daemon=True
            ).start()
        try:
            yield
        finally:
            stop.set()


def is_alive(run: Run) -> bool:
    """Return whether the process of a RUNNING run seems to be alive, without waiting.

    A run on another machine seems alive until it is stale.
    """
    is_locked = run_lock.is_run_locked(run.info.run_id)
    return not _is_stale(run) if is_locked is None else is_locked


def is_alive_after_watching(run: Run) -> bool:
    """Return whether the process of a RUNNING run is alive, and watch the run if necessary.

    A run on another machine is watched for a new heartbeat. The clocks of the two machines may
    differ by less than ``STALE_AFTER``. Only the time between requests counts towards the timeout:
    while the server is down, a request takes long, and no heartbeat can arrive.
    """
    is_locked = run_lock.is_run_locked(run.info.run_id)
    if is_locked is not None or HEARTBEAT_TAG not in run.data.tags:
        return bool(is_locked)
    timeout = RECONNECT_TIMEOUT if _is_stale(run) else WATCH_TIMEOUT
    watched = 0.0
    while True:
        current = MlflowClient().get_run(run.info.run_id)
        if current.info.status != "RUNNING":
            return False
        if current.data.tags.get(HEARTBEAT_TAG) != run.data.tags.get(HEARTBEAT_TAG):
            return True
        if watched >= timeout:
            return False
        time.sleep(_WATCH_INTERVAL)
        watched += _WATCH_INTERVAL


def fail_stale_runs(own: Run) -> list[str]:
    """Mark RUNNING runs of an experiment as failed if their process has ended.

    Copies of the own run, which have no process, are marked too (see ``_is_copy``). All other runs
    without a heartbeat stay unchanged, because other projects may own them.

    Args:
        own: Run of this process, in the same experiment.

    Returns:
        The ids of the runs that were marked as failed.
    """
    running = MlflowClient().search_runs(
        [own.info.experiment_id], "attributes.status = 'RUNNING'", max_results=1000
    )
    copies = [run.info.run_id for run in running if _is_copy(run, own)]
    stale = [run for run in running if HEARTBEAT_TAG in run.data.tags and not is_alive(run)]
    if any(run_lock.is_run_locked(run.info.run_id) is None for run in stale):
        time.sleep(RECONNECT_TIMEOUT)
        stale = [run for run in stale if _is_unchanged(run)]
    run_ids = [run.info.run_id for run in stale]
    for run_id in run_ids:
        mark_failed(run_id)
    for run_id in copies:
        mark_failed(run_id, _COPY_REASON)
    return [*run_ids, *copies]


def mark_failed(run_id: str, reason: str = _FAILURE_REASON) -> None:
    """Set the status of a run to FAILED, and its tag ``error`` to the reason."""
    client = MlflowClient()
    client.set_tag(run_id, "error", reason)
    client.set_terminated(run_id, "FAILED")
    # Set this tag last, because a heartbeat that sees it undoes the changes above.
    client.set_tag(run_id, PRESUMED_DEAD_TAG, "true")
    run_lock.delete_lock_file(run_id)


def restore_running(run_id: str, client: MlflowClient) -> None:
    """Undo ``mark_failed`` if another process called it. Only the process of the run calls this."""
    tags = client.get_run(run_id).data.tags
    if PRESUMED_DEAD_TAG in tags:
        client.update_run(run_id, "RUNNING")
        client.delete_tag(run_id, PRESUMED_DEAD_TAG)
        if tags.get("error") in (_FAILURE_REASON, _COPY_REASON, TOO_LONG_REASON):
            client.delete_tag(run_id, "error")


def _is_stale(run: Run) -> bool:
    try:
        last = float(run.data.tags.get(HEARTBEAT_TAG, "0"))
    except ValueError:  # any user can set the tag
        return True
    return time.time() - last >= STALE_AFTER


def _is_copy(run: Run, own: Run) -> bool:
    """Return whether a run was created by the same request of ``mlflow run`` as the own run.

    If a network breaks while the server answers, MLflow sends the request again. Both runs then
    have the same start time, because the request contains it.
    """
    return (
        run.info.run_id != own.info.run_id
        and run.info.start_time == own.info.start_time
        and not run.data.params
        and HEARTBEAT_TAG not in run.data.tags
        and MLFLOW_PROJECT_ENTRY_POINT in own.data.tags
        and all(run.data.tags.get(tag) == own.data.tags.get(tag) for tag in _COPIED_TAGS)
    )


def _is_unchanged(run: Run) -> bool:
    """Return whether a run is still RUNNING and has sent no new heartbeat."""
    current = MlflowClient().get_run(run.info.run_id)
    return current.info.status == "RUNNING" and current.data.tags.get(
        HEARTBEAT_TAG
    ) == run.data.tags.get(HEARTBEAT_TAG)


def _send_until(client: MlflowClient, run_id: str, stop: threading.Event) -> None:
    interval = HEARTBEAT_INTERVAL
    while not stop.wait(interval):
        try:
            _send_heartbeat(client, run_id)
            interval = HEARTBEAT_INTERVAL
        except (KeyError, MlflowException, OSError):
            # Keep trying, because the server may be back for the next heartbeat. A KeyError means
            # that the answer has no run, so it did not come from an MLflow server.
            interval = min(RETRY_INTERVAL, HEARTBEAT_INTERVAL)


def _send_heartbeat(client: MlflowClient, run_id: str) -> None:
    """Send one heartbeat, and undo ``mark_failed`` if another process called it."""
    now = f"{time.time():.0f}"
    if not client.tracking_uri.startswith("http"):
        client.set_tag(run_id, HEARTBEAT_TAG, now)
        restore_running(run_id, client)
        return
    tag = {"run_id": run_id, "key": HEARTBEAT_TAG, "value": now}
    _request(client, "set-tag", "POST", json=tag)
    run = _request(client, "get", "GET", params={"run_id": run_id})["run"]
    if PRESUMED_DEAD_TAG in {tag["key"] for tag in run["data"].get("tags", [])}:
        restore_running(run_id, client)


def _request(client: MlflowClient, endpoint: str, method: str, **content: Any) -> dict[str, Any]:
    """Send one request about a run, without retries.

    MLflow's client retries for minutes. Environment variables could change that, but only for
    all threads of the process.
    """
    path = f"/api/2.0/mlflow/runs/{endpoint}"
    host = get_default_host_creds(client.tracking_uri)  # type: ignore[no-untyped-call]
    response = http_request(  # type: ignore[no-untyped-call]
        host, path, method, max_retries=0, timeout=connection.ANSWER_TIMEOUT, **content
    )
    answer: dict[str, Any] = verify_rest_response(response, path).json()
    return answer


def _watch_parents(parents: tuple[int, ...], stop: threading.Event) -> None:
    """Send ``signals.PARENT_EXIT_SIGNAL`` to this process after a parent has exited."""
    while not stop.is_set():
        if parent_process.get_parent_pids() != parents:
            os.kill(os.getpid(), signals.PARENT_EXIT_SIGNAL)
            return
        stop.wait(_PARENT_CHECK_INTERVAL)
