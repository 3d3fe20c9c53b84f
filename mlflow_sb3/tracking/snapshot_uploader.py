"""Upload the latest snapshot of a run in the background, so that another machine can resume it."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow import MlflowClient
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from mlflow_sb3.client import retry
from mlflow_sb3.tracking import atomic_file, snapshot_header
from mlflow_sb3.tracking.file_trust import FileTrust

SNAPSHOT_NAMES = ("0.snapshot", "1.snapshot")
"""File names of a run's two snapshots. A new snapshot replaces the older file."""
SNAPSHOT_DIR = "snapshots"
"""Folder of the snapshots, both in the local folder of the run and in its artifacts."""
SNAPSHOT_TAG = "mlflow_sb3.snapshot."
"""Prefix of the tags of uploaded snapshots. The file name of the snapshot follows.

The value of the tag is a JSON object with the step, the digest and its signature, and whether
learning has ended.
"""
CHECK_INTERVAL = 2.0
"""Seconds between two checks for a new snapshot."""
UPLOAD_INTERVAL = 60.0
"""Seconds between the end of an upload and the start of the next."""
OBSOLETE_UPLOAD_TIMEOUT = 10.0
"""Seconds to wait for an upload when the run has finished and needs no snapshot any more."""


class SnapshotUploader:
    """Upload the latest snapshot of a run in a thread.

    A snapshot may have gigabytes. Therefore neither the training nor the delivery of metrics waits
    for it.
    """

    def __init__(self, client: MlflowClient, run_id: str, *, trust: FileTrust) -> None:
        """Prepare the thread. Call ``start`` to start it."""
        self._client = client
        self._run_id = run_id
        self._trust = trust
        self._offered: Path | None = None
        self._upload_count = 0
        self._last_attempt = time.monotonic()
        self._is_stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="mlflow-uploads", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def offer(self, path: Path) -> None:
        """Set the snapshot to upload next. It replaces a snapshot that still waits."""
        self._offered = path

    def stop(self) -> None:
        """Start no further uploads in the background."""
        self._is_stopping.set()

    def upload_last(self) -> bool:
        """Wait for the current upload, then upload the last snapshot.

        Returns:
            False if the last snapshot could not be uploaded. True if it is among the artifacts, or
            if there is none.
        """
        self.stop()
        self._thread.join()
        return self._upload()

    def remove_uploads(self) -> None:
        """Remove all uploaded snapshots, after a short wait for the current upload."""
        self.stop()
        self._thread.join(OBSOLETE_UPLOAD_TIMEOUT)
        if self._upload_count:
            remove_snapshots(self._client, self._run_id)

    def _work(self) -> None:
        while not self._is_stopping.wait(CHECK_INTERVAL):
            if time.monotonic() - self._last_attempt > UPLOAD_INTERVAL:
                self._upload()

    def _upload(self) -> bool:
        path = self._offered
        if path is None:
            return True
        # Alternate between the two names. An interrupted upload then leaves the previous snapshot.
        name = SNAPSHOT_NAMES[self._upload_count % 2]
        is_uploaded = retry.try_call(
            lambda: upload_snapshot(self._client, self._run_id, path, name=name, trust=self._trust)
        )
        self._last_attempt = time.monotonic()
        self._upload_count += is_uploaded
        if is_uploaded and self._offered is path:
            self._offered = None
        return is_uploaded


def upload_snapshot(
    client: MlflowClient, run_id: str, path: Path, *, name: str, trust: FileTrust
) -> None:
    """Upload a snapshot to the artifacts of a run, then set the tag that records and signs it.

    Training may replace the file during the upload. Therefore a hard link to it, or a copy, is
    uploaded.

    Args:
        client: Client of the tracking server.
        run_id: Run that gets the artifact.
        path: Snapshot on this machine.
        name: File name among the artifacts, one of ``SNAPSHOT_NAMES``.
        trust: Signs the digest of the snapshot.

    Raises:
        ValueError: The snapshot is incomplete.
        MlflowException, OSError, RequestException: The upload failed.
    """
    with TemporaryDirectory(dir=path.parent, prefix="upload-") as folder:
        copy = Path(folder) / name
        _link_or_copy(path, copy)
        digest = atomic_file.read_valid_digest(copy)
        if digest is None:
            raise ValueError(
                f"Snapshot {path} is incomplete, so it is not uploaded. Wait for the next snapshot."
            )
        header = snapshot_header.read_header(copy)
        client.log_artifact(run_id, str(copy), SNAPSHOT_DIR)
    about = {
        "step": header.step,
        "learned": header.learned,
        "digest": digest,
        "signature": trust.sign(digest),
    }
    client.set_tag(run_id, f"{SNAPSHOT_TAG}{name}", json.dumps(about))


def remove_snapshots(client: MlflowClient, run_id: str) -> None:
    """Remove the uploaded snapshots and their tags from a run. Ignore all errors."""
    # Each artifact store raises its own exception types, and a snapshot that stays does no harm.
    with suppress(Exception):
        run = client.get_run(run_id)
        repository = get_artifact_repository(run.info.artifact_uri)
        repository.delete_artifacts(SNAPSHOT_DIR)  # type: ignore[no-untyped-call]
        for name in SNAPSHOT_NAMES:
            if f"{SNAPSHOT_TAG}{name}" in run.data.tags:
                client.delete_tag(run.info.run_id, f"{SNAPSHOT_TAG}{name}")


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # the file system has no hard links
        shutil.copyfile(source, target)
