"""Find the last snapshot of an interrupted run, on this machine or among its artifacts."""

from __future__ import annotations

import json
import logging
import re
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from mlflow_sb3.client.retry import CONNECTION_ERRORS
from mlflow_sb3.inference import agent_files
from mlflow_sb3.runs import heartbeat, state_dir
from mlflow_sb3.tracking import atomic_file, journal, snapshot_header, snapshot_uploader
from mlflow_sb3.tracking.delivery import RejectedError, deliver_journal
from mlflow_sb3.tracking.file_trust import FileTrust
from mlflow_sb3.tracking.snapshot_uploader import SNAPSHOT_DIR, SNAPSHOT_NAMES, SNAPSHOT_TAG
from mlflow_sb3.training.resume_point import ResumePoint

RESUMED_FROM_TAG = "mlflow_sb3.resumed_from"
"""Tag of a resumed run: id of the interrupted run."""

_logger = logging.getLogger(__name__)


@contextmanager
def find_snapshot(
    run_id: str, state_folder: str | None = None, *, trust: FileTrust | None = None
) -> Iterator[ResumePoint]:
    """Find the newest snapshot of an interrupted run that may be unpickled.

    A snapshot in the state folder of this machine is trusted. A snapshot among the artifacts must
    be signed.

    If the run has none, but itself resumed an earlier run, use the snapshot of that run, and so on.
    If this machine has a journal of the run, deliver it first.

    Args:
        run_id: Id of a run of the entry point ``train``.
        state_folder: See ``state_dir.get_state_dir``.
        trust: Keys that may have signed an uploaded snapshot. By default, the key of this machine.

    Yields:
        The snapshot. Its path is valid only inside the ``with`` block.

    Raises:
        MlflowException: The run finished, is still running, or has no snapshot, or its snapshots
            cannot be downloaded or are not trusted.
    """
    run = MlflowClient().get_run(run_id)
    if run.info.status == "RUNNING" and heartbeat.is_alive_after_watching(run):
        raise MlflowException.invalid_parameter_value(
            f"Run {run_id} is still running. Stop it with SIGTERM, which takes a snapshot, "
            "or wait until it finishes."
        )
    run = flush_journal(run, state_folder)
    if run.info.status == "FINISHED":
        raise MlflowException.invalid_parameter_value(
            f"Run {run_id} has finished, so there is nothing to resume. "
            "Use log_model to register its agent."
        )
    with TemporaryDirectory() as downloads:
        yield _find_resume_point(run, state_folder, Path(downloads), trust or FileTrust())


def flush_journal(run: Run, state_folder: str | None = None) -> Run:
    """Deliver the journal of a run whose process has ended, and return the updated run.

    Snapshots are not uploaded. If the run finished, its local folder is deleted.
    """
    folder = state_dir.get_run_dir(run.info.run_id, state_folder)
    if not (folder / journal.RUN_FILE).exists():
        return run
    try:
        deliver_journal(folder, tracking_uri=mlflow.get_tracking_uri(), upload_snapshots=False)
    except RejectedError as error:
        _logger.warning("Run %s: %s", run.info.run_id, error)
    return MlflowClient().get_run(run.info.run_id)


def delete_training_state(run_ids: Sequence[str], state_folder: str | None = None) -> None:
    """Delete the state of interrupted runs after the run that resumed them has finished.

    The state is the local folder of a run, with its journal and its snapshots, and the snapshots
    among its artifacts. If the server does not answer, the remaining files stay.

    Args:
        run_ids: The interrupted runs. Do not take them from tags, which other users can set.
        state_folder: See ``state_dir.get_state_dir``.
    """
    client = MlflowClient()
    for run_id in run_ids:
        shutil.rmtree(state_dir.get_run_dir(run_id, state_folder), ignore_errors=True)
    with suppress(*CONNECTION_ERRORS):
        for run_id in run_ids:
            if _list_uploaded(client.get_run(run_id)):
                snapshot_uploader.remove_snapshots(client, run_id)


def format_resume_command(run_id: str, state_folder: Path) -> str:
    """Return the shell command that resumes a run."""
    command = f"mlflow run . -e train -P resume={run_id}"
    if not _is_environment_of_mlflow():
        command += " --env-manager local"
    if state_folder != state_dir.get_state_dir():
        command += f" -P state_folder={shlex.quote(str(state_folder))}"
    return command


def _is_environment_of_mlflow() -> bool:
    """Return whether ``mlflow run`` made the environment of this process, by conda or virtualenv.

    MLflow names these environments ``mlflow-`` and a digest.
    """
    return re.fullmatch("mlflow-[0-9a-f]{40}", Path(sys.prefix).name) is not None


def has_trusted_snapshot(run: Run, state_folder: str | None, trust: FileTrust) -> bool:
    """Return whether a run has a snapshot on this machine, or a trusted one in its artifacts."""
    folder = state_dir.get_run_dir(run.info.run_id, state_folder) / SNAPSHOT_DIR
    is_local = any(atomic_file.has_valid_digest(folder / name) for name in SNAPSHOT_NAMES)
    return is_local or any(snapshot.is_trusted(trust) for snapshot in _list_uploaded(run))


@dataclass(frozen=True)
class _UploadedSnapshot:
    """A snapshot among the artifacts of a run. All attributes but the name are in its tag."""

    name: str
    step: int
    learned: bool
    digest: str
    signature: str = ""

    @classmethod
    def parse(cls, name: str, tag: str) -> Self | None:
        """Parse the tag of a snapshot. None if it has other keys or types."""
        try:
            snapshot = cls(name, **json.loads(tag))
        except (TypeError, ValueError):
            return None
        has_types = (
            isinstance(snapshot.step, int)
            and isinstance(snapshot.learned, bool)
            and isinstance(snapshot.digest, str)
            and isinstance(snapshot.signature, str)
        )
        return snapshot if has_types else None

    @property
    def progress(self) -> tuple[bool, int]:
        return self.learned, self.step

    def is_trusted(self, trust: FileTrust) -> bool:
        return trust.is_trusted(self.digest, self.signature)


def _find_resume_point(
    run: Run, state_folder: str | None, downloads: Path, trust: FileTrust
) -> ResumePoint:
    """Return the snapshot of a run, or else of the run that it resumed, and so on."""
    visited: set[str] = set()
    current: Run | None = run
    while current is not None and current.info.run_id not in visited:
        visited.add(current.info.run_id)
        folder = state_dir.get_run_dir(current.info.run_id, state_folder) / SNAPSHOT_DIR
        if (resume_point := _find_newest(current, folder, downloads, trust)) is not None:
            return resume_point
        previous = current.data.tags.get(RESUMED_FROM_TAG)
        current = None if previous is None else MlflowClient().get_run(previous)
    raise MlflowException.invalid_parameter_value(
        f"Run {run.info.run_id} has no complete snapshot, neither in "
        f"{state_dir.get_state_dir(state_folder)} nor among its artifacts. Train again."
    )


def _find_newest(run: Run, folder: Path, downloads: Path, trust: FileTrust) -> ResumePoint | None:
    """Return the newest complete snapshot of one run, from its folder or its artifacts."""
    local = _find_local(run.info.run_id, folder)
    failure: Exception | None = None
    is_untrusted = False
    for uploaded in _list_uploaded(run):
        if local is not None and uploaded.progress <= (local.header.learned, local.header.step):
            break
        if not uploaded.is_trusted(trust):
            is_untrusted = True
            continue
        try:
            path = _download(run.info.run_id, uploaded.name, downloads)
        except Exception as error:  # noqa: BLE001 each artifact store has its own errors
            _logger.warning(
                "Snapshot %s of run %s cannot be downloaded: %s",
                uploaded.name,
                run.info.run_id,
                error,
            )
            failure = error
            continue
        if atomic_file.read_valid_digest(path) == uploaded.digest:
            return ResumePoint(run.info.run_id, path, snapshot_header.read_header(path))
    if local is None and failure is not None:
        raise MlflowException(
            f"The snapshots of run {run.info.run_id} are among its artifacts and cannot be "
            f"downloaded: {failure}. Resume when the artifact store answers, or train again."
        ) from failure
    if local is None and is_untrusted:
        agent_files.check_unpickling_allowed(
            f"Resuming run {run.info.run_id}, whose snapshot no trusted key has signed,",
            is_trusted=False,
        )
    return local


def _find_local(run_id: str, folder: Path) -> ResumePoint | None:
    from mlflow_sb3.training.snapshot_writer import list_valid_snapshots

    path = next(list_valid_snapshots(folder), None)
    return None if path is None else ResumePoint(run_id, path, snapshot_header.read_header(path))


def _list_uploaded(run: Run) -> list[_UploadedSnapshot]:
    """Return the snapshots among the artifacts of a run, the newest first."""
    tags = run.data.tags
    parsed = [
        _UploadedSnapshot.parse(name, tags.get(f"{SNAPSHOT_TAG}{name}", ""))
        for name in SNAPSHOT_NAMES
    ]
    snapshots = [snapshot for snapshot in parsed if snapshot is not None]
    return sorted(snapshots, key=lambda snapshot: snapshot.progress, reverse=True)


def _download(run_id: str, name: str, folder: Path) -> Path:
    return Path(
        mlflow.artifacts.download_artifacts(
            run_id=run_id, artifact_path=f"{SNAPSHOT_DIR}/{name}", dst_path=str(folder)
        )
    )
