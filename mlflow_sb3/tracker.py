"""What a training says of itself: journal first, network second, so that it neither waits for the tracking server nor loses anything."""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from mlflow_sb3 import delivery, durable, journal, server, settings
from mlflow_sb3.delivery import AWAY, Delivery
from mlflow_sb3.interruption import Interrupted
from mlflow_sb3.journal import Journal

INTERVAL = 2.0
"""Seconds between two deliveries."""
UPLOAD = 60.0
"""Seconds between two uploads of a snapshot at the least."""
PATIENCE = 60.0
"""Seconds to wait in the end for a server that is away."""
HURRY = 10.0
"""The same, when the training was interrupted or failed."""
SLOTS = ("0.snapshot", "1.snapshot")
"""Names of a run's snapshots, of which the older one is replaced."""
_ONE_TRY = 5.0
"""Seconds that a delivery in the end may take at the least."""
SNAPSHOTS = "snapshots"
"""Folder of the snapshots, in that of the run and among its artifacts."""
SNAPSHOT = "mlflow_sb3.snapshot."
"""Tag of a run: step and digest, as JSON, of an uploaded snapshot, by the name of its file."""

_logger = logging.getLogger(__name__)

Point = tuple[str, float, int, int]
"""Key, value, timestamp in ms, step."""


class UndeliveredError(MlflowException):
    """The server did not take everything; what it does not have is safe on disk."""


class Tracker:
    """Says what a run has to say, through a journal in the run's folder, which a thread delivers.

    No method but leaving the context waits for the server. Leaving it ends the run: FINISHED, KILLED after a signal, or FAILED.
    """

    def __init__(self, run_id: str, folder: Path, *, patience: float = PATIENCE) -> None:
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
        self._delivery = Delivery(self._journal)
        self._patience = patience
        self._counts: dict[str, int] = defaultdict(int)
        self._snapshot: Path | None = None
        self._spare: Path | None = None
        self._uploads, self._uploaded = 0, 0.0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="mlflow-delivery", daemon=True)

    def __enter__(self) -> Self:
        self._settings = settings.during(delivery.SHORT)
        self._settings.__enter__()
        self._uploaded = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        status = "FINISHED" if error is None else "KILLED" if isinstance(error, Interrupted) else "FAILED"
        self._journal.append(status=status, time=delivery.now())
        try:
            left = self._close(self._patience if error is None else HURRY, uploading=error is not None)
            if error is None and not left:
                self._clear()
        finally:
            self._settings.__exit__(None, None, None)
        if left and error is None:
            raise UndeliveredError(undelivered(self._journal))
        if left:
            _logger.warning(undelivered(self._journal))
        elif self._delivery.refusals:
            _logger.warning("the tracking server will not take: %s", "; ".join(self._delivery.refusals))

    def points(self, points: Iterable[Point]) -> None:
        """Log metrics; NaN and infinities too."""
        listed = list(points)
        for start in range(0, len(listed), delivery.MOST_METRICS):
            self._append(metrics=listed[start : start + delivery.MOST_METRICS])
        for key, *_ in listed:
            self._counts[key] += 1

    def params(self, params: dict[str, Any]) -> None:
        """Log parameters as text."""
        items = [(key, str(value)) for key, value in params.items()]
        for start in range(0, len(items), delivery.MOST_PARAMS):
            self._append(params=dict(items[start : start + delivery.MOST_PARAMS]))

    def tags(self, tags: dict[str, str]) -> None:
        """Set tags."""
        self._append(tags=tags)

    def file(self, path: str, content: bytes | str) -> None:
        """Log a file under a path among the artifacts; it is whole on disk when this returns.

        Where the run's folder is full, it goes into that for temporary files.
        """
        name, written = Path("files", path), content.encode() if isinstance(content, str) else content
        try:
            durable.write(self.folder / name, written)
        except OSError:
            self._spare = self._spare or Path(tempfile.mkdtemp(prefix="mlflow-sb3-"))
            name = self._spare / path
            durable.write(name, written)
        self._append(file=str(name), to=str(Path(path).parent) if Path(path).parent.name else "")

    def snapshot(self, path: Path) -> None:
        """Upload a sealed file in the background, when there was no upload for a while, or the run does not finish."""
        self._snapshot = path

    def state(self) -> dict[str, Any]:
        """What a snapshot has to know: how many points of each key there were, and those of them that are not delivered."""
        waiting = [tuple(point) for entry in self._journal.waiting() for point in entry.get("metrics", ())]
        return {"counts": dict(self._counts), "waiting": waiting}

    def _append(self, **entry: Any) -> None:
        start = time.monotonic()
        self._journal.append(**entry)
        took = time.monotonic() - start
        self.seconds, self.longest = self.seconds + took, max(self.longest, took)

    def _work(self) -> None:
        """Deliver until closed; a server that is away is asked again and again."""
        while not self._closing.wait(INTERVAL):
            self._pass()
            if time.monotonic() - self._uploaded > UPLOAD:
                self._upload()

    def _pass(self) -> bool:
        """One try to deliver; whether all went through."""
        with suppress(OSError):
            self._journal.sync()
        return self._try(self._delivery.deliver)

    def _upload(self) -> bool:
        """One try to upload the last snapshot, if it was not; whether it is there."""
        path = self._snapshot
        if path is None:
            return True
        # not the name that it has here: it would replace the only one there, and be cut short
        if not self._try(lambda: upload_snapshot(self._delivery, path, SLOTS[self._uploads % 2])):
            return False
        self._uploads, self._uploaded = self._uploads + 1, time.monotonic()
        if self._snapshot is path:
            self._snapshot = None
        return True

    def _try(self, work: Callable[[], None]) -> bool:
        try:
            work()
        except AWAY as error:
            _logger.debug("not delivered yet: %s", error)
            return False
        except Exception as error:  # noqa: BLE001 every kind of artifact store raises errors of its own, and this thread has to go on
            _logger.warning("not delivered yet: %s: %s", type(error).__name__, error)
            return False
        return True

    def _close(self, patience: float, *, uploading: bool) -> bool:
        """Deliver what is left, as long as it gets less; true if some of it is."""
        self._closing.set()
        left, deadline = len(self._journal.waiting()), time.monotonic() + max(patience, _ONE_TRY)
        while True:
            self._thread.join(_ONE_TRY / 5)
            if not self._thread.is_alive() and self._pass():
                break
            if (now := len(self._journal.waiting())) < left:
                left, deadline = now, time.monotonic() + max(patience, _ONE_TRY)
            if time.monotonic() > deadline:
                return True
            if not self._thread.is_alive():
                time.sleep(min(INTERVAL, patience))
        if uploading and not self._upload():
            _logger.warning("the last snapshot could not be uploaded; it is in %s, and can be resumed on this machine.", self.folder)
        self._journal.close()
        return False

    def _clear(self) -> None:
        """Remove what a finished run needs no more, here and among its artifacts."""
        if self._uploads:
            remove_uploads(self._delivery)
        for folder in filter(None, (self.folder, self._spare)):
            shutil.rmtree(folder, ignore_errors=True)


def undelivered(left: Journal) -> str:
    """What to say, and to do, when a server did not take everything."""
    return (
        f"the tracking server {server.shown(left.tracking_uri)} did not take everything of run {left.run_id}; it is safe in {left.folder}. "
        f"When it answers again: python -m steps.deliver {left.folder}"
    )


def deliver(folder: Path) -> tuple[str, bool]:
    """Deliver what a run left in its folder, which is gone then if the run finished.

    Returns:
        The id of the run, and whether it finished.

    Raises:
        FileNotFoundError: The folder holds no journal.
        MlflowException, OSError, RequestException: The server does not take everything.
    """
    left = Journal.reopen(folder)
    sender = Delivery(left)
    sender.deliver()
    left.close()
    if sender.refusals:
        raise MlflowException.invalid_parameter_value(f"some of it will never arrive, and stays in {folder}: {'; '.join(sender.refusals)}.")
    entries = journal.read(folder)
    finished = any(entry.get("status") == "FINISHED" for entry in entries)
    if finished:
        with suppress(*AWAY):  # that the server was away, which a server may have heard that came back
            sender.client.delete_tag(left.run_id, "error")
        remove_uploads(sender)
        for name in (entry["file"] for entry in entries if "file" in entry):
            (folder / name).unlink(missing_ok=True)  # some lie elsewhere, when the folder was full
        shutil.rmtree(folder)
    else:
        for name in SLOTS:
            if (folder / SNAPSHOTS / name).exists():
                upload_snapshot(sender, folder / SNAPSHOTS / name, name)
    return left.run_id, finished


def upload_snapshot(sender: Delivery, path: Path, name: str) -> None:
    """Put a snapshot among the artifacts of a run, under this name; its tag, which comes last, says that it is there.

    Training may replace the file meanwhile, so that another name of the same content is uploaded.
    """
    from mlflow_sb3 import snapshot

    draft = path.parent / "upload" / name
    draft.parent.mkdir(exist_ok=True)
    draft.unlink(missing_ok=True)
    try:
        os.link(path, draft)
    except OSError:  # a file system without such links
        shutil.copyfile(path, draft)
    try:
        run_id = sender.journal.run_id
        header, digest = snapshot.read_header(draft), durable.seal_of(draft)
        sender.client.log_artifact(run_id, str(draft), SNAPSHOTS)
        place = {"step": header.step, "learned": header.learned, "digest": digest}
        sender.client.set_tag(run_id, f"{SNAPSHOT}{name}", json.dumps(place))
    finally:
        draft.unlink(missing_ok=True)


def remove_uploads(sender: Delivery) -> None:
    """Remove the snapshots of a run from its artifacts; what cannot be removed stays, and is no harm."""
    with suppress(Exception):  # every kind of artifact store raises errors of its own
        run = sender.client.get_run(sender.journal.run_id)
        get_artifact_repository(run.info.artifact_uri).delete_artifacts(SNAPSHOTS)  # type: ignore[no-untyped-call]
        for name in SLOTS:
            if f"{SNAPSHOT}{name}" in run.data.tags:
                sender.client.delete_tag(run.info.run_id, f"{SNAPSHOT}{name}")
