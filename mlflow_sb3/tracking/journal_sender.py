"""A journal's entries to the tracking server, in its own batches and with their own timestamps.

Everything may be sent twice: the server ignores a point that it has already, and parameters, tags, files and the status become
what they are.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from mlflow_sb3.client.retry import now_ms
from mlflow_sb3.tracking.journal import Entry, Journal

MAX_METRICS, MAX_PARAMS = 1000, 100
_MOST = {"metrics": MAX_METRICS, "params": MAX_PARAMS, "tags": 100}
"""What one call of MLflow's ``log_batch`` takes."""
REFUSED_TAG = "mlflow_sb3.refused"
"""Tag of a run: when the server last refused something that was said of it, in milliseconds since 1970."""
_REFUSALS = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")
"""What the server will never take, however often it is asked, or takes nothing of for a while."""

_logger = logging.getLogger(__name__)

Item = Metric | Param | RunTag


@dataclass
class JournalSender:
    """Delivers a journal, and remembers what was refused for good."""

    journal: Journal
    refusals: list[str] = field(default_factory=list)
    """What will never arrive, as under a name that the server does not allow."""

    def __post_init__(self) -> None:
        """Make the client that all is sent by."""
        self.client = MlflowClient(self.journal.tracking_uri)

    def deliver(self) -> None:
        """Send everything that waits.

        Raises:
            MlflowException, OSError, RequestException: The server does not answer; what it has is marked.
        """
        for batch in _batches(self.journal.waiting()):
            self._send(batch)
            self.journal.delivered(batch[-1]["n"])

    def _send(self, batch: list[Entry]) -> None:
        run_id, first = self.journal.run_id, batch[0]
        if "file" in first:
            path = self.journal.folder / first["file"]
            if path.exists():
                self.client.log_artifact(run_id, str(path), first["to"] or None)
            else:
                self.refusals.append(f"{path} is gone")
        elif "status" in first:
            self.client.set_terminated(run_id, first["status"], first["time"])
        else:
            self._log([item for entry in batch for item in _items(entry)])

    def _log(self, items: Sequence[Item]) -> None:
        """Send in one call; what is refused is looked for by halves, so that it takes nothing else with it."""
        try:
            self.client.log_batch(
                self.journal.run_id,
                metrics=[item for item in items if isinstance(item, Metric)],
                params=[item for item in items if isinstance(item, Param)],
                tags=[item for item in items if isinstance(item, RunTag)],
            )
        except MlflowException as error:
            if error.error_code not in _REFUSALS:
                raise
            self._check_takes_anything()
            if len(items) == 1:
                self.refusals.append(f"{items[0].key}: {error.message}")
                return
            half = len(items) // 2
            self._log(items[:half])
            self._log(items[half:])

    def _check_takes_anything(self) -> None:
        """Raise what MLflow says of all that a run says when that lies in the trash, or the database can only be read: it may end."""
        self.client.set_tag(
            self.journal.run_id, REFUSED_TAG, str(now_ms())
        )  # never what it was: that would be no change, and be taken


def _batches(entries: Sequence[Entry]) -> Iterator[list[Entry]]:
    """Entries that go into one call, in their order; a file and a status have one of their own."""
    batch: list[Entry] = []
    room = dict(_MOST)
    for entry in entries:
        sizes = {kind: len(entry.get(kind, ())) for kind in _MOST}
        if batch and (not any(sizes.values()) or any(sizes[kind] > room[kind] for kind in _MOST)):
            yield batch
            batch, room = [], dict(_MOST)
        batch.append(entry)
        room = (
            {kind: room[kind] - sizes[kind] for kind in _MOST}
            if any(sizes.values())
            else dict.fromkeys(_MOST, -1)
        )
    if batch:
        yield batch


def _items(entry: Entry) -> list[Item]:
    metrics: list[Item] = [Metric(*point) for point in entry.get("metrics", ())]
    params: list[Item] = [Param(*pair) for pair in entry.get("params", {}).items()]
    tags: list[Item] = [RunTag(*pair) for pair in entry.get("tags", {}).items()]
    return metrics + params + tags
