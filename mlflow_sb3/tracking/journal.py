"""Append the metrics, parameters, tags and files that a run logs to a journal file.

The training thread appends entries, and another thread sends them to the tracking server. The
file stays on disk until the run has finished and everything was sent. If an entry cannot be
written, as on a full disk, it stays in memory.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow

from mlflow_sb3.tracking import atomic_file

JournalEntry = dict[str, Any]
"""One line of the journal, as JSON values.

``n`` is the number of the entry. The other keys depend on its kind:

- ``metrics``: list of [key, value, timestamp in ms, step].
- ``params``, ``tags``: dict of strings.
- ``file`` and ``to``: path of the file, absolute or relative to the journal's folder, and the
  artifact folder that it is logged to.
- ``status`` and ``time``: status that ends the run, and its end time in ms.
"""
RUN_FILE = "run.json"
"""File with the run id and the tracking URI of a journal."""
_ENTRIES_FILE = "journal.jsonl"
_DELIVERED_FILE = "delivered"
"""File with the number of the last entry that the tracking server has."""

_logger = logging.getLogger(__name__)


class Journal:
    """Journal of one run in a folder. It is thread-safe."""

    def __init__(self, folder: Path, run_id: str, tracking_uri: str) -> None:
        """Open the journal of a run. An existing journal keeps its entries.

        Args:
            folder: Folder of this run alone. It is created if it does not exist.
            run_id: Run that the entries belong to.
            tracking_uri: Tracking server of the run.
        """
        self.folder = folder
        self.run_id = run_id
        self.tracking_uri = tracking_uri
        self._lock = threading.Lock()
        self._pending: deque[JournalEntry] = deque()
        self._unwritten: deque[JournalEntry] = deque()
        self._last_number = 0
        self._file: int | None = None
        self._has_warned = False
        self._try_to_write(self._open)

    @classmethod
    def reopen(cls, folder: Path, tracking_uri: str | None = None) -> Journal:
        """Open the journal that exists in a folder.

        Args:
            folder: Folder of a run.
            tracking_uri: New tracking URI, if the server has moved. By default, the stored URI.

        Raises:
            FileNotFoundError: The folder has no journal.
        """
        stored = json.loads((folder / RUN_FILE).read_text())
        return cls(folder, stored["run_id"], tracking_uri or stored["tracking_uri"])

    def append(self, **entry: Any) -> None:
        """Append an entry.

        When this returns, the operating system has the entry, or the entry stays in memory because
        it cannot be written. Call ``sync`` to write the file to the disk.
        """
        with self._lock:
            self._last_number += 1
            numbered = {"n": self._last_number} | entry
            self._pending.append(numbered)
            self._unwritten.append(numbered)
            self._try_to_write(self._write_entries)

    def get_pending_entries(self) -> list[JournalEntry]:
        """Return the entries that the tracking server does not have yet, in order."""
        with self._lock:
            return list(self._pending)

    def is_written(self) -> bool:
        """Return whether the file has every pending entry."""
        with self._lock:
            return not self._unwritten

    def mark_delivered(self, number: int) -> None:
        """Record that the tracking server has all entries up to a number."""
        with self._lock:
            for entries in (self._pending, self._unwritten):
                while entries and entries[0]["n"] <= number:
                    entries.popleft()
        self._try_to_write(lambda: self._write_delivered(number))

    def sync(self) -> None:
        """Write the file to the disk."""
        if self._file is not None:
            os.fsync(self._file)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _open(self) -> None:
        entries = read_entries(self.folder)
        delivered = _read_delivered(self.folder / _DELIVERED_FILE)
        self._last_number = max([delivered, *(entry["n"] for entry in entries)])
        self._pending.extend(entry for entry in entries if entry["n"] > delivered)
        self._open_file()

    def _open_file(self) -> None:
        # 0o700, because the tracking URI in RUN_FILE may contain a password
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not (self.folder / RUN_FILE).exists():
            about = {"run_id": self.run_id, "tracking_uri": self.tracking_uri}
            atomic_file.write_file(self.folder / RUN_FILE, json.dumps(about).encode())
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self._file = os.open(self.folder / _ENTRIES_FILE, flags, 0o644)

    def _write_entries(self) -> None:
        """Write all unwritten entries, including entries of earlier failed attempts."""
        if self._file is None:
            self._open_file()
        while self._file is not None and self._unwritten:
            # the leading line feed ends a line that a crash cut short
            line = f"\n{json.dumps(self._unwritten[0])}\n".encode()
            if os.write(self._file, line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._unwritten.popleft()

    def _write_delivered(self, number: int) -> None:
        draft = self.folder / f"{_DELIVERED_FILE}.draft"
        draft.write_text(str(number))
        draft.replace(self.folder / _DELIVERED_FILE)

    def _try_to_write(self, write: Callable[[], None]) -> None:
        """Call ``write``. If the file cannot be written, log one warning and go on."""
        try:
            write()
        except OSError as error:  # training must not stop: the entries stay in memory
            if not self._has_warned:
                self._has_warned = True
                _logger.warning(
                    "The journal in %s cannot be written: %s. "
                    "Metrics that the tracking server does not have yet are kept in memory only. "
                    "Free some disk space, or make the folder writable.",
                    self.folder,
                    error.strerror,
                )


def open_journal(run_id: str, folder: Path) -> Journal:
    """Open the journal of a run of the current tracking server."""
    return Journal(folder, run_id, mlflow.get_tracking_uri())


def read_entries(folder: Path) -> list[JournalEntry]:
    """Return all entries of a folder's journal, delivered or not. Skip incomplete lines."""
    path = folder / _ENTRIES_FILE
    if not path.exists():
        return []
    parsed = (_parse_entry(line) for line in path.read_bytes().splitlines())
    return [entry for entry in parsed if entry is not None]


def _read_delivered(path: Path) -> int:
    """Return the number of the last delivered entry.

    If the file is missing or incomplete, return 0: everything is sent again, which does no harm.
    """
    try:
        return int(path.read_text())
    except (FileNotFoundError, ValueError):
        return 0


def _parse_entry(line: bytes) -> JournalEntry | None:
    """Parse one line. Return None for an empty line, and for a line that a crash cut short."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and "n" in entry else None
