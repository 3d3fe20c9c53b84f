"""Whether a call may and can do what it is about to do: asked in seconds, before hours of work for it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.artifact.http_artifact_repo import HttpArtifactRepository

from mlflow_sb3.client import connection, permissions
from mlflow_sb3.client.permissions import Permission

ARTIFACT_TIMEOUT = 9.0
"""Seconds that an artifact store has for one small file, where the tracking server is not in between."""
PREFLIGHT_FILE = "preflight.txt"
"""Artifact of a run whose artifacts were tried."""


class ArtifactStoreError(MlflowException):
    """The artifacts of a run do not take a file."""


def check_artifacts(run_id: str) -> None:
    """Write a small file to the artifacts of a run.

    Raises:
        UnwritableError: They do not take it, or not in time.
    """
    uri = connection.with_short_timeout(lambda: mlflow.get_run(run_id)).info.artifact_uri
    try:
        connection.with_short_timeout(lambda: _write(uri))
    except Exception as error:
        why = (
            permissions.explain_denial(error)
            or f"{error}. Ask who runs the tracking server for a working artifact store."
        )
        raise ArtifactStoreError(
            f"artifacts cannot be written to {connection.redact_uri(uri)}: {why}"
        ) from error


def check_registry(name: str, right: Permission, *, make: bool = True) -> None:
    """Ask whether this user may register versions of a model, and promote them.

    Args:
        name: Of the registered model, which need not exist yet.
        right: ``EDIT`` to register versions, ``MANAGE`` to promote them.
        make: See ``permissions.check_registration``.

    Raises:
        MlflowException: The user may not; the message names the right.
    """
    connection.with_short_timeout(
        lambda: permissions.check_registration(name, right, make=make), retries=1
    )


def _write(uri: str) -> None:
    repository = get_artifact_repository(uri)
    with TemporaryDirectory() as folder:
        path = Path(folder, PREFLIGHT_FILE)
        path.write_text("The artifacts of this run can be written.\n")
        if isinstance(repository, HttpArtifactRepository):
            repository.log_artifact(str(path))  # type: ignore[no-untyped-call]
        else:
            _in_time(lambda: repository.log_artifact(str(path)))  # type: ignore[no-untyped-call]


def _in_time(call: Callable[[], object]) -> None:
    """Call, and wait no longer than ``PATIENCE``; an object store's own client may try for minutes, in a thread that nobody waits for."""
    ended: queue.Queue[Exception | None] = queue.Queue()

    def run() -> None:
        try:
            call()
        except Exception as error:  # noqa: BLE001 raised below
            ended.put(error)
        else:
            ended.put(None)

    threading.Thread(target=run, name="preflight", daemon=True).start()
    try:
        error = ended.get(timeout=ARTIFACT_TIMEOUT)
    except queue.Empty:
        raise TimeoutError(f"no answer in {ARTIFACT_TIMEOUT:.0f} s") from None
    if error is not None:
        raise error
