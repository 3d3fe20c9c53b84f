"""What a training says of itself: journal first, network second, so that it neither waits for the tracking server nor loses anything."""

from __future__ import annotations

import logging
import shlex
import shutil
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mlflow.exceptions import MlflowException

from mlflow_sb3.client import connection, env_vars, retry
from mlflow_sb3.client.retry import CONNECTION_ERRORS
from mlflow_sb3.runs.signals import Interrupted
from mlflow_sb3.tracking import atomic_file, journal, journal_sender, snapshot_uploader
from mlflow_sb3.tracking.journal import Journal
from mlflow_sb3.tracking.journal_sender import JournalSender
from mlflow_sb3.tracking.snapshot_uploader import SLOTS, SNAPSHOT_DIR, SnapshotUploader

SEND_INTERVAL = 2.0
"""Seconds between two deliveries."""
DELIVERY_TIMEOUT = 60.0
"""Seconds to wait in the end for a server that is away."""
SHORT_DELIVERY_TIMEOUT = 10.0
"""The same, when the training was interrupted or failed."""
_ONE_TRY = 5.0
"""Seconds that a delivery in the end may take at the least."""
_AGAIN = 1.0
"""Seconds between two deliveries in the end."""
_REFUSED = "refused.txt"
"""What will never arrive, in the folder of a run."""

_logger = logging.getLogger(__name__)

MetricPoint = tuple[str, float, int, int]
"""Key, value, timestamp in ms, step."""


class UndeliveredError(MlflowException):
    """The server did not take everything; what it does not have is safe on disk."""


class RefusedError(MlflowException):
    """The server will never take some of it, such as a metric whose name it does not allow."""


class RunLogger:
    """Says what a run has to say, through a journal in the run's folder, which a thread delivers.

    No method but leaving the context waits for the server. Leaving it ends the run: FINISHED, KILLED after a signal, or FAILED.
    """

    def __init__(self, run_id: str, folder: Path, *, patience: float = DELIVERY_TIMEOUT) -> None:
        """Track a run.

        Args:
            run_id: Of a run that exists.
            folder: Of this run alone; it is gone when the run has finished, and everything was delivered.
            patience: Seconds to wait in the end for a server that is away.
        """
        self.folder = folder
        self.seconds, self.longest = 0.0, 0.0
        """Seconds that all calls took, and the longest of them."""
        self._journal = journal.open_for(run_id, folder)
        self._delivery = JournalSender(self._journal)
        self._patience = patience
        self._counts: dict[str, int] = defaultdict(int)
        self._uploads = SnapshotUploader(self._delivery.client, run_id)
        self._snapshot, self._spare = Path(), Path()
        self._closing, self._given_up = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name="mlflow-delivery", daemon=True)

    def __enter__(self) -> Self:
        self._settings = env_vars.temporary_env(retry.SHORT_RETRIES)
        self._settings.__enter__()
        self._thread.start()
        self._uploads.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        status = (
            "FINISHED"
            if error is None
            else "KILLED"
            if isinstance(error, Interrupted)
            else "FAILED"
        )
        self._journal.append(status=status, time=retry.now_ms())
        try:
            self._uploads.stop()
            left = self._close(self._patience if error is None else SHORT_DELIVERY_TIMEOUT)
            if error is None and not left:
                self._clear()
            elif not left and not self._uploads.finish():
                _logger.warning(
                    "the last snapshot could not be uploaded; it is in %s, and can be resumed on this machine.",
                    self.folder,
                )
        finally:
            self._settings.__exit__(None, None, None)
        if left and error is None:
            raise UndeliveredError(undelivered_message(self._journal))
        if left:
            _logger.warning(undelivered_message(self._journal))
        elif self._delivery.refusals:
            _logger.warning(
                "the tracking server will not take: %s", "; ".join(self._delivery.refusals)
            )

    def points(self, points: Iterable[MetricPoint]) -> None:
        """Log metrics; NaN and infinities too."""
        listed = list(points)
        for start in range(0, len(listed), journal_sender.MAX_METRICS):
            self._append(metrics=listed[start : start + journal_sender.MAX_METRICS])
        for key, *_ in listed:
            self._counts[key] += 1

    def params(self, params: dict[str, Any]) -> None:
        """Log parameters as text."""
        items = [(key, str(value)) for key, value in params.items()]
        for start in range(0, len(items), journal_sender.MAX_PARAMS):
            self._append(params=dict(items[start : start + journal_sender.MAX_PARAMS]))

    def tags(self, tags: dict[str, str]) -> None:
        """Set tags."""
        self._append(tags=tags)

    def file(self, path: str, content: bytes | str) -> None:
        """Log a file under a path among the artifacts; it is whole on disk when this returns.

        Where the run's folder is full, it goes into that for temporary files; where that is full too, the older snapshot makes room.

        Raises:
            OSError: There is no room anywhere.
        """
        name = self._write(Path(path), content.encode() if isinstance(content, str) else content)
        self._append(file=str(name), to=str(Path(path).parent) if Path(path).parent.name else "")

    def snapshot(self, path: Path) -> None:
        """Upload a sealed file in the background, when there was no upload for a while, or the run does not finish."""
        self._snapshot = path
        self._uploads.offer(path)

    def state(self) -> dict[str, Any]:
        """What a snapshot has to know: how many points of each key there were, and those of them that are not delivered."""
        waiting = [
            tuple(point) for entry in self._journal.waiting() for point in entry.get("metrics", ())
        ]
        return {"counts": dict(self._counts), "waiting": waiting}

    def _write(self, path: Path, content: bytes) -> Path:
        """Write a file where there is room; returns its name in the run's folder, or its path elsewhere."""
        here = Path("files", path)
        with suppress(OSError):
            atomic_file.write_file(self.folder / here, content)
            return here
        with suppress(OSError):
            self._spare = (
                self._spare if self._spare.name else Path(tempfile.mkdtemp(prefix="mlflow-sb3-"))
            )
            atomic_file.write_file(self._spare / path, content)
            return self._spare / path
        for older in {self.folder / SNAPSHOT_DIR / name for name in SLOTS} - {self._snapshot}:
            older.unlink(missing_ok=True)
        atomic_file.write_file(self.folder / here, content)
        return here

    def _append(self, **entry: Any) -> None:
        start = time.monotonic()
        self._journal.append(**entry)
        took = time.monotonic() - start
        self.seconds, self.longest = self.seconds + took, max(self.longest, took)

    def _work(self) -> None:
        """Deliver until all is said; a server that is away is asked again and again."""
        while not self._closing.wait(SEND_INTERVAL):
            self._pass()
        while not self._pass() and not self._given_up.wait(_AGAIN):
            pass

    def _pass(self) -> bool:
        """One try to deliver; whether all went through."""
        with suppress(OSError):
            self._journal.sync()
        return retry.attempt(self._delivery.deliver)

    def _close(self, patience: float) -> bool:
        """Wait until the rest is delivered, as long as it gets less; true if some of it is left.

        The thread goes on with it, which may hang in an object store's own client for minutes: nobody waits for it then.
        """
        self._closing.set()
        left, deadline = len(self._journal.waiting()), time.monotonic() + max(patience, _ONE_TRY)
        while self._thread.is_alive():
            self._thread.join(_AGAIN)
            if (now := len(self._journal.waiting())) < left:
                left, deadline = now, time.monotonic() + max(patience, _ONE_TRY)
            elif now and time.monotonic() > deadline:
                self._given_up.set()
                return True
        self._journal.close()
        return bool(self._journal.waiting())

    def _clear(self) -> None:
        """Remove what a finished run needs no more, here and among its artifacts."""
        self._uploads.remove()
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._spare.name:
            shutil.rmtree(self._spare, ignore_errors=True)


def undelivered_message(left: Journal) -> str:
    """What to say, and to do, when a server did not take everything."""
    what = f"the tracking server {connection.redact_uri(left.tracking_uri)} did not take everything of run {left.run_id}"
    where = (
        f"it is safe in {left.folder}"
        if left.is_written()
        else f"what was said while {left.folder} was full is lost, the rest is safe there"
    )
    return f"{what}; {where}. When it answers again: python -m steps.deliver {shlex.quote(str(left.folder))}"


def deliver_journal(
    folder: Path, *, tracking_uri: str | None = None, uploading: bool = True
) -> tuple[str, bool]:
    """Deliver what a run left in its folder, which is gone then if the run finished.

    Args:
        folder: Of the run.
        tracking_uri: Where the server of the run is now, if not where it was.
        uploading: Deliver the snapshots too.

    Returns:
        The id of the run, and whether it finished.

    Raises:
        FileNotFoundError: The folder holds no journal.
        RefusedError: The server will never take some of it; it has the rest.
        MlflowException, OSError, RequestException: The server does not take everything now.
    """
    left = Journal.reopen(folder, tracking_uri)
    sender, refused = JournalSender(left), folder / _REFUSED
    sender.deliver()
    left.close()
    if sender.refusals:
        atomic_file.write_file(refused, "; ".join(sender.refusals).encode())
    if refused.exists():
        raise RefusedError.invalid_parameter_value(
            f"some of it will never arrive, and stays in {folder}: {refused.read_text()}."
        )
    entries = journal.read(folder)
    finished = any(entry.get("status") == "FINISHED" for entry in entries)
    if finished:
        with suppress(
            *CONNECTION_ERRORS
        ):  # that the server was away, which a server may have heard that came back
            sender.client.delete_tag(left.run_id, "error")
        snapshot_uploader.remove_snapshots(sender.client, left.run_id)
        for name in (entry["file"] for entry in entries if "file" in entry):
            (folder / name).unlink(missing_ok=True)  # some lie elsewhere, when the folder was full
        shutil.rmtree(folder)
    elif uploading:
        for path in filter(atomic_file.is_sealed, (folder / SNAPSHOT_DIR / name for name in SLOTS)):
            snapshot_uploader.upload_snapshot(sender.client, left.run_id, path, path.name)
    return left.run_id, finished
