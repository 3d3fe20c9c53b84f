"""Deliver the logged data of a run that the tracking server did not receive in time."""

from __future__ import annotations

import shlex
import shutil
from contextlib import suppress
from pathlib import Path

from mlflow.exceptions import MlflowException

from mlflow_sb3.client import connection
from mlflow_sb3.client.retry import CONNECTION_ERRORS
from mlflow_sb3.runs.step_run import ERROR_TAG
from mlflow_sb3.tracking import atomic_file, snapshot_uploader
from mlflow_sb3.tracking.file_trust import FileTrust
from mlflow_sb3.tracking.journal import Journal, JournalEntry, read_entries
from mlflow_sb3.tracking.journal_sender import JournalSender
from mlflow_sb3.tracking.snapshot_uploader import SNAPSHOT_DIR, SNAPSHOT_NAMES

_REJECTIONS_FILE = "refused.txt"
"""File in a run's folder: items that the tracking server never accepts."""


class UndeliveredError(MlflowException):
    """The tracking server does not have everything that a run logged. The rest is on disk."""


class RejectedError(MlflowException):
    """The tracking server never accepts an item of a run, such as an invalid metric name."""


def explain_undelivered(journal: Journal, cause: Exception | None = None) -> str:
    """Return an error message with the location of the entries and the command to deliver them.

    Args:
        journal: Journal with entries that were not delivered.
        cause: Error of the last attempt.
    """
    folder = journal.folder
    if journal.is_written():
        location = f"The rest is safe in {folder}."
    else:
        location = (
            f"The rest is in {folder}, except for the entries logged while its disk was full, "
            "which are lost."
        )
    return (
        f"Tracking server {connection.redact_uri(journal.tracking_uri)} did not receive "
        f"everything that run {journal.run_id} logged{_describe_cause(cause)}. {location} "
        "When the server answers again, run: "
        f"python -m mlflow_sb3 deliver {shlex.quote(str(folder))}"
    )


def _describe_cause(cause: Exception | None) -> str:
    """Describe an error of a local artifact store, such as a full disk.

    Other errors are left out, because their messages may contain passwords or signed URLs.
    """
    if isinstance(cause, OSError) and cause.strerror:
        return f", because a file cannot be stored in {cause.filename} ({cause.strerror})"
    return ""


def deliver_journal(
    folder: Path, *, tracking_uri: str | None = None, upload_snapshots: bool = True
) -> tuple[str, bool]:
    """Send the journal of a run after its process has ended. Remove the folder if the run finished.

    Args:
        folder: Local folder of the run.
        tracking_uri: New tracking URI, if the server has moved. By default, the stored URI.
        upload_snapshots: Also upload the snapshots of a run that did not finish.

    Returns:
        The run id, and whether the run finished.

    Raises:
        FileNotFoundError: The folder has no journal.
        RejectedError: The server rejects some items for good. It has all others.
        MlflowException, OSError, RequestException: The server does not answer.
    """
    journal = Journal.reopen(folder, tracking_uri)
    sender = JournalSender(journal)
    sender.send_pending()
    journal.close()
    entries = read_entries(folder)
    is_finished = any(entry.get("status") == "FINISHED" for entry in entries)
    if upload_snapshots and not is_finished:
        _upload_snapshots(folder, sender)
    _raise_if_rejected(folder, sender)
    if is_finished:
        _clean_up(folder, sender, entries)
    return journal.run_id, is_finished


def _upload_snapshots(folder: Path, sender: JournalSender) -> None:
    for path in (folder / SNAPSHOT_DIR / name for name in SNAPSHOT_NAMES):
        if atomic_file.has_valid_digest(path):
            snapshot_uploader.upload_snapshot(
                sender.client, sender.journal.run_id, path, name=path.name, trust=FileTrust()
            )


def _raise_if_rejected(folder: Path, sender: JournalSender) -> None:
    """Raise an error for rejected items of this delivery or of an earlier delivery.

    A file in the folder stores the rejected items.
    """
    stored = folder / _REJECTIONS_FILE
    if sender.rejections:
        atomic_file.write_file(stored, "; ".join(sender.rejections).encode())
    if stored.exists():
        raise RejectedError.invalid_parameter_value(
            f"The tracking server rejected some items: {stored.read_text()}. "
            f"They stay in {folder}; everything else was delivered. "
            "Delete the folder if you do not need them."
        )


def _clean_up(folder: Path, sender: JournalSender, entries: list[JournalEntry]) -> None:
    """Remove the error tag and the snapshots of a finished run, and its local files."""
    run_id = sender.journal.run_id
    # The step failed because it could not deliver everything. Its error is a tag of the run if the
    # server answered again before the step ended. MLflow raises an error if there is no such tag.
    with suppress(*CONNECTION_ERRORS):
        sender.client.delete_tag(run_id, ERROR_TAG)
    snapshot_uploader.remove_snapshots(sender.client, run_id)
    for entry in entries:
        if "file" in entry:  # an absolute path, if the folder's disk was full
            (folder / entry["file"]).unlink(missing_ok=True)
    shutil.rmtree(folder)
