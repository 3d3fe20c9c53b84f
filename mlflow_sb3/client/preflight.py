"""Check before a long training that artifacts can be written and a model can be registered."""

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
"""Seconds to wait until an artifact store without HTTP timeout has written one small file."""
PREFLIGHT_FILE = "preflight.txt"
"""Artifact that ``check_artifacts`` writes."""


class ArtifactStoreError(MlflowException):
    """The artifact store of a run cannot be written to."""


def check_artifacts(run_id: str) -> None:
    """Write a small file to the artifact store of a run, and give up after some seconds.

    Raises:
        ArtifactStoreError: The store rejects the file, or does not answer in time.
    """
    run = connection.call_with_short_timeout(lambda: mlflow.get_run(run_id))
    uri = run.info.artifact_uri
    try:
        connection.call_with_short_timeout(lambda: _write_file(uri))
    # Every artifact store raises exceptions of its own.
    except Exception as error:
        experiment = f"experiment {run.info.experiment_id}"
        reason = permissions.explain_denial(error, "EDIT", experiment) or (
            f"{error}. Ask the administrator of the tracking server for a working artifact store."
        )
        raise ArtifactStoreError(
            f"artifacts cannot be written to {connection.redact_uri(uri)}: {reason}"
        ) from error


def check_registry(name: str, permission: Permission) -> None:
    """Check that the user may register versions of a model, and give up after some seconds.

    Args:
        name: Name of the registered model, which need not exist yet.
        permission: ``EDIT`` to register versions, ``MANAGE`` to promote them as well.

    Raises:
        MissingPermissionError: The user lacks the permission. See
            ``permissions.check_registration`` for a case that the server does not report.
    """
    connection.call_with_short_timeout(
        lambda: permissions.check_registration(name, permission), retries=1
    )


def _write_file(artifact_uri: str) -> None:
    repository = get_artifact_repository(artifact_uri)
    with TemporaryDirectory() as folder:
        path = Path(folder, PREFLIGHT_FILE)
        path.write_text("The artifacts of this run can be written.\n")
        if isinstance(repository, HttpArtifactRepository):
            repository.log_artifact(str(path))  # type: ignore[no-untyped-call]
        else:
            _call_with_timeout(
                lambda: repository.log_artifact(str(path))  # type: ignore[no-untyped-call]
            )


def _call_with_timeout(function: Callable[[], object]) -> None:
    """Call a function in a thread, and wait at most ``ARTIFACT_TIMEOUT`` seconds for it.

    After a timeout, the daemon thread continues, because the client of an object store may retry
    for minutes.

    Raises:
        TimeoutError: The function has not returned in time.
    """
    results: queue.Queue[Exception | None] = queue.Queue()

    def run() -> None:
        try:
            function()
        except Exception as error:  # noqa: BLE001  # the calling thread raises it
            results.put(error)
        else:
            results.put(None)

    threading.Thread(target=run, name="preflight", daemon=True).start()
    try:
        error = results.get(timeout=ARTIFACT_TIMEOUT)
    except queue.Empty:
        raise TimeoutError(f"no answer in {ARTIFACT_TIMEOUT:.0f} s") from None
    if error is not None:
        raise error
