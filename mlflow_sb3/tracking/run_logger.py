"""Log a training run to MLflow without waiting for the tracking server.

Entries go to a journal on disk first. Threads send them to the tracking server.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from mlflow_sb3.client import env_vars, retry
from mlflow_sb3.client.timestamps import now_ms
from mlflow_sb3.runs.signals import Interrupted
from mlflow_sb3.tracking import journal
from mlflow_sb3.tracking.delivery import UndeliveredError, explain_undelivered
from mlflow_sb3.tracking.delivery_thread import DeliveryThread
from mlflow_sb3.tracking.file_trust import FileTrust
from mlflow_sb3.tracking.journal_sender import MAX_METRICS, MAX_PARAMS, JournalSender
from mlflow_sb3.tracking.run_files import RunFiles
from mlflow_sb3.tracking.snapshot_uploader import SnapshotUploader

DELIVERY_TIMEOUT = 60.0
"""Seconds without progress after which the exit stops waiting for the server, by default."""
FAILED_RUN_DELIVERY_TIMEOUT = 10.0
"""Such seconds if the training failed or was interrupted."""

_logger = logging.getLogger(__name__)


class MetricPoint(NamedTuple):
    """One value of a metric."""

    key: str
    value: float
    timestamp: int
    """Milliseconds since 1970."""
    step: int


class RunLogger:
    """Context manager that logs to an existing run, and by default ends the run on exit.

    Only the exit waits for the tracking server. The run ends as FINISHED; after an exception as
    FAILED, and after a signal as KILLED.
    """

    def __init__(
        self,
        run_id: str,
        folder: Path,
        *,
        delivery_timeout: float = DELIVERY_TIMEOUT,
        trust: FileTrust | None = None,
        ends_run: bool = True,
    ) -> None:
        """Open the journal of a run.

        Args:
            run_id: Existing run.
            folder: Local folder of this run alone. It is removed when the run has finished and
                everything was delivered.
            delivery_timeout: Seconds without progress after which the exit stops waiting for the
                tracking server. After an exception or a signal, ``FAILED_RUN_DELIVERY_TIMEOUT``.
            trust: Signs the uploaded snapshots. By default, with the key of this machine.
            ends_run: Whether the exit ends the run.
        """
        self.folder = folder
        self.total_call_seconds = 0.0
        """Seconds that the callers of all methods spent appending to the journal."""
        self.longest_call_seconds = 0.0
        """Seconds of the longest append to the journal."""
        self._journal = journal.open_journal(run_id, folder)
        self._sender = JournalSender(self._journal)
        self._delivery_thread = DeliveryThread(self._sender)
        self._uploader = SnapshotUploader(self._sender.client, run_id, trust=trust or FileTrust())
        self._files = RunFiles(folder)
        self._delivery_timeout = delivery_timeout
        self._ends_run = ends_run
        self._metric_counts: Counter[str] = Counter()
        self._latest_snapshot: Path | None = None

    def __enter__(self) -> Self:
        """Start the threads."""
        self._fail_fast = env_vars.override_env(retry.FAIL_FAST_ENV)
        self._fail_fast.__enter__()
        self._delivery_thread.start()
        self._uploader.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the run if this logger does, and wait until everything is delivered.

        Raises:
            UndeliveredError: Training succeeded, but the tracking server did not receive
                everything in time. The message has the command that delivers the rest.
        """
        if self._ends_run:
            self._journal.append(status=_get_final_status(error), time=now_ms())
        try:
            is_delivered = self._finish_delivery(error)
        finally:
            self._fail_fast.__exit__(None, None, None)
        if not is_delivered and error is None:
            raise UndeliveredError(self._explain_undelivered())
        if not is_delivered:
            _logger.warning(self._explain_undelivered())
        elif self._sender.rejections:
            _logger.warning("The tracking server rejected: %s", "; ".join(self._sender.rejections))

    def log_metrics(self, points: Iterable[MetricPoint]) -> None:
        """Log metric points. NaN and infinite values are allowed."""
        listed = list(points)
        for start in range(0, len(listed), MAX_METRICS):
            self._append(metrics=listed[start : start + MAX_METRICS])
        self._metric_counts.update(point.key for point in listed)

    def log_params(self, params: dict[str, Any]) -> None:
        """Log parameters. Values are converted to strings."""
        items = [(key, str(value)) for key, value in params.items()]
        for start in range(0, len(items), MAX_PARAMS):
            self._append(params=dict(items[start : start + MAX_PARAMS]))

    def set_tags(self, tags: dict[str, str]) -> None:
        """Set tags of the run."""
        self._append(tags=tags)

    def log_file(self, path: str, content: bytes | str) -> None:
        """Log a file as an artifact. The complete file is on disk when this returns.

        If no disk has space for it, snapshots older than the latest one are deleted.

        Args:
            path: Path among the artifacts, such as ``"agent/agent.zip"``.
            content: Content of the file. Text is encoded as UTF-8.

        Raises:
            OSError: Neither the folder of the run nor the folder for temporary files has space,
                even after that.
        """
        encoded = content.encode() if isinstance(content, str) else content
        local = self._files.write(Path(path), encoded, latest_snapshot=self._latest_snapshot)
        artifact_dir = Path(path).parent
        self._append(file=str(local), to=str(artifact_dir) if artifact_dir.name else "")

    def offer_snapshot(self, path: Path) -> None:
        """Set the latest snapshot.

        A background thread uploads the latest snapshot from time to time. If the run fails or is
        interrupted, the exit uploads it once more after the journal was delivered.
        """
        self._latest_snapshot = path
        self._uploader.offer(path)

    def get_metric_state(self) -> dict[str, Any]:
        """Return the state of the metrics, for a snapshot.

        A resumed run uses it to copy the metric points of the interrupted run up to the snapshot,
        each point once.

        Returns:
            ``counts``: number of points logged so far, by key. ``waiting``: points that the
            tracking server does not have yet, as tuples (key, value, timestamp in ms, step).
        """
        pending = self._journal.get_pending_entries()
        waiting = [tuple(point) for entry in pending for point in entry.get("metrics", ())]
        return {"counts": dict(self._metric_counts), "waiting": waiting}

    def has_pending_entries(self) -> bool:
        """Return whether the tracking server does not have everything yet."""
        return bool(self._journal.get_pending_entries())

    def _append(self, **entry: Any) -> None:
        start = time.monotonic()
        self._journal.append(**entry)
        seconds = time.monotonic() - start
        self.total_call_seconds += seconds
        self.longest_call_seconds = max(self.longest_call_seconds, seconds)

    def _explain_undelivered(self) -> str:
        return explain_undelivered(self._journal, self._delivery_thread.last_error)

    def _finish_delivery(self, error: BaseException | None) -> bool:
        """Deliver the rest, then remove the local files or upload the last snapshot.

        Returns:
            Whether the whole journal was delivered.
        """
        self._uploader.stop()
        is_delivered = self._delivery_thread.finish(
            self._delivery_timeout if error is None else FAILED_RUN_DELIVERY_TIMEOUT
        )
        if is_delivered and error is None:
            self._uploader.remove_uploads()
            self._files.remove()
        elif is_delivered and not self._uploader.upload_last():
            _logger.warning(
                "The last snapshot could not be uploaded. It is in %s, "
                "so only this machine can resume from it.",
                self.folder,
            )
        return is_delivered


def _get_final_status(error: BaseException | None) -> str:
    """Return the MLflow status of a run that ends with this exception, if any."""
    if error is None:
        return "FINISHED"
    return "KILLED" if isinstance(error, Interrupted) else "FAILED"
