"""Snapshots of a run among its artifacts, from which another machine can go on: the last one, now and then, in the background."""

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
from mlflow_sb3.tracking import atomic_file

SLOTS = ("0.snapshot", "1.snapshot")
"""Names of a run's snapshots, of which the older one is replaced."""
SNAPSHOT_DIR = "snapshots"
"""Folder of the snapshots, in that of the run and among its artifacts."""
SNAPSHOT_TAG = "mlflow_sb3.snapshot."
"""Tag of a run: step and digest, as JSON, of an uploaded snapshot, by the name of its file."""
INTERVAL = 2.0
"""Seconds between two looks whether there is something to upload."""
UPLOAD = 60.0
"""Seconds between the end of an upload and the next one."""
PATIENCE = 10.0
"""Seconds to wait for an upload that nobody needs any more."""


class SnapshotUploader:
    """Uploads the last snapshot of a run in a thread of its own: it may hold gigabytes, and nothing else is to wait for it."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        """Upload nothing yet."""
        self._client = client
        self._run_id = run_id
        self._offered: Path | None = None
        self._count, self._tried = 0, time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name="mlflow-uploads", daemon=True)

    def start(self) -> None:
        """Begin to look for something to upload."""
        self._thread.start()

    def offer(self, path: Path) -> None:
        """There is a newer snapshot, sealed."""
        self._offered = path

    def stop(self) -> None:
        """Begin no other upload in the background."""
        self._over.set()

    def finish(self) -> bool:
        """Upload the last snapshot, after the one that is under way; whether it is there."""
        self.stop()
        self._thread.join()
        return self._upload()

    def remove(self) -> None:
        """Remove what was uploaded, and wait a little for what is under way."""
        self.stop()
        self._thread.join(PATIENCE)
        if self._count:
            remove_snapshots(self._client, self._run_id)

    def _work(self) -> None:
        while not self._over.wait(INTERVAL):
            if time.monotonic() - self._tried > UPLOAD:
                self._upload()

    def _upload(self) -> bool:
        path = self._offered
        if path is None:
            return True
        # not under the name that it has here: it would replace the only one there, and be cut short
        done = retry.attempt(
            lambda: upload_snapshot(self._client, self._run_id, path, SLOTS[self._count % 2])
        )
        self._tried = time.monotonic()
        self._count += done
        if done and self._offered is path:
            self._offered = None
        return done


def upload_snapshot(client: MlflowClient, run_id: str, path: Path, name: str) -> None:
    """Put a snapshot among the artifacts of a run, under this name; its tag, which comes last, says that it is there.

    Training may replace the file meanwhile, so that another name of the same content is uploaded.

    Raises:
        ValueError: The file is not as it was sealed.
        MlflowException, OSError, RequestException: It cannot be uploaded.
    """
    from mlflow_sb3.tracking import snapshot_header

    with TemporaryDirectory(dir=path.parent, prefix="upload-") as folder:
        draft = Path(folder) / name
        try:
            os.link(path, draft)
        except OSError:  # a file system without such links
            shutil.copyfile(path, draft)
        digest = atomic_file.seal_of(draft)
        if digest is None:
            raise ValueError(f"{path} was cut short.")
        header = snapshot_header.read_header(draft)
        client.log_artifact(run_id, str(draft), SNAPSHOT_DIR)
    place = {"step": header.step, "learned": header.learned, "digest": digest}
    client.set_tag(run_id, f"{SNAPSHOT_TAG}{name}", json.dumps(place))


def remove_snapshots(client: MlflowClient, run_id: str) -> None:
    """Remove the snapshots of a run from its artifacts; what cannot be removed stays, and is no harm."""
    with suppress(Exception):  # every kind of artifact store raises errors of its own
        run = client.get_run(run_id)
        get_artifact_repository(run.info.artifact_uri).delete_artifacts(SNAPSHOT_DIR)  # type: ignore[no-untyped-call]
        for name in SLOTS:
            if f"{SNAPSHOT_TAG}{name}" in run.data.tags:
                client.delete_tag(run.info.run_id, f"{SNAPSHOT_TAG}{name}")
