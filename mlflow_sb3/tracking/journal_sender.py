"""Send the entries of a journal to the tracking server in batches.

To send an entry twice does no harm: the server ignores a metric point that it already has, and
overwrites parameters, tags, files and the status with the same values.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from mlflow_sb3.client.timestamps import now_ms
from mlflow_sb3.tracking.journal import Journal, JournalEntry

MAX_METRICS = 1000
"""Metric points that one call of MLflow's ``log_batch`` accepts."""
MAX_PARAMS = 100
"""Parameters that one call of ``log_batch`` accepts."""
_MAX_ITEMS = {"metrics": MAX_METRICS, "params": MAX_PARAMS, "tags": 100}
REJECTED_TAG = "mlflow_sb3.refused"
"""Tag of a run: when the server last rejected an item of the run, in ms since 1970."""
_REJECTION_CODES = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")
"""MLflow error codes with which a server rejects an invalid item.

A server also uses them if it rejects every change of a run for some time.
"""

_logger = logging.getLogger(__name__)

BatchItem = Metric | Param | RunTag


@dataclass
class JournalSender:
    """Send the pending entries of a journal to its tracking server."""

    journal: Journal
    rejections: list[str] = field(default_factory=list)
    """Items that the server never accepts, with the reason. Example: an invalid metric name."""

    def __post_init__(self) -> None:
        """Create the MLflow client."""
        self.client = MlflowClient(self.journal.tracking_uri)

    def send_pending(self) -> None:
        """Send all pending entries, and mark each batch as delivered.

        Raises:
            MlflowException, OSError, RequestException: The server does not answer. Batches that
                arrived before are marked as delivered.
        """
        for batch in _split_into_batches(self.journal.get_pending_entries()):
            self._send(batch)
            self.journal.mark_delivered(batch[-1]["n"])

    def _send(self, batch: list[JournalEntry]) -> None:
        run_id, first = self.journal.run_id, batch[0]
        if "file" in first:
            self._log_file(first)
        elif "status" in first:
            self.client.set_terminated(run_id, first["status"], first["time"])
        else:
            self._log_items([item for entry in batch for item in _to_items(entry)])

    def _log_file(self, entry: JournalEntry) -> None:
        path = self.journal.folder / entry["file"]
        if not path.exists():
            self.rejections.append(f"{path} does not exist any more")
            return
        try:
            self.client.log_artifact(self.journal.run_id, str(path), entry["to"] or None)
        except OSError as error:
            if not error.strerror:  # an error of the HTTP client
                raise
            store = self.client.get_run(self.journal.run_id).info.artifact_uri
            raise OSError(error.errno, error.strerror, store) from error

    def _log_items(self, items: Sequence[BatchItem]) -> None:
        """Log all items in one call.

        MLflow rejects a batch as a whole. Therefore a rejected batch is split into halves, until
        only the invalid items are left out.
        """
        try:
            self.client.log_batch(
                self.journal.run_id,
                metrics=[item for item in items if isinstance(item, Metric)],
                params=[item for item in items if isinstance(item, Param)],
                tags=[item for item in items if isinstance(item, RunTag)],
            )
        except MlflowException as error:
            if error.error_code not in _REJECTION_CODES:
                raise
            self._check_run_is_writable()
            if len(items) == 1:
                self.rejections.append(f"{items[0].key}: {error.message}")
                return
            half = len(items) // 2
            self._log_items(items[:half])
            self._log_items(items[half:])

    def _check_run_is_writable(self) -> None:
        """Raise MLflow's error if the server rejects every change of the run for now.

        The server rejects every change while the run is deleted or the database is read-only. Both
        states may end, so the entries must stay pending.
        """
        # a new value each time, because a tag that does not change is always accepted
        self.client.set_tag(self.journal.run_id, REJECTED_TAG, str(now_ms()))


def _split_into_batches(entries: Sequence[JournalEntry]) -> Iterator[list[JournalEntry]]:
    """Split entries, in order, into batches that one call can send.

    Each file and each status gets a batch of its own.
    """
    batch: list[JournalEntry] = []
    totals = dict.fromkeys(_MAX_ITEMS, 0)
    for entry in entries:
        sizes = {kind: len(entry.get(kind, ())) for kind in _MAX_ITEMS}
        is_full = any(totals[kind] + sizes[kind] > _MAX_ITEMS[kind] for kind in _MAX_ITEMS)
        if batch and (is_full or not any(sizes.values()) or not any(totals.values())):
            yield batch
            batch, totals = [], dict.fromkeys(_MAX_ITEMS, 0)
        batch.append(entry)
        totals = {kind: totals[kind] + sizes[kind] for kind in _MAX_ITEMS}
    if batch:
        yield batch


def _to_items(entry: JournalEntry) -> list[BatchItem]:
    """Return an entry's metrics, parameters and tags as MLflow entities."""
    metrics: list[BatchItem] = [Metric(*point) for point in entry.get("metrics", ())]
    params: list[BatchItem] = [Param(*pair) for pair in entry.get("params", {}).items()]
    tags: list[BatchItem] = [RunTag(*pair) for pair in entry.get("tags", {}).items()]
    return metrics + params + tags
