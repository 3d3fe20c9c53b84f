"""What a run has to say and the tracking server does not have yet: numbered entries in a file, which outlives the process.

Written by one thread and delivered by another. What cannot be written, as on a full disk, is kept in memory until it can.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import threading
from collections import deque
from pathlib import Path
from typing import Any

import mlflow

from mlflow_sb3.tracking import atomic_file

Entry = dict[str, Any]
"""``n``, its number, and one of ``metrics`` (a list of [key, value, timestamp in ms, step]), ``params`` and ``tags`` (dicts of
text), ``file`` with ``to`` (a path in the journal's folder, and a folder among the artifacts), and ``status`` with ``time``."""
_ENTRIES, _MARK, RUN = "journal.jsonl", "delivered", "run.json"

_logger = logging.getLogger(__name__)


class Journal:
    """Entries of one run, in a folder. Threads may share it."""

    def __init__(self, folder: Path, run_id: str, tracking_uri: str) -> None:
        """Open the journal of a run, new or with what was left in it."""
        self.folder = folder
        self.run_id = run_id
        self.tracking_uri = tracking_uri
        self._lock = threading.Lock()
        self._waiting: deque[Entry] = deque()
        self._unwritten: deque[Entry] = deque()
        self._number = 0
        self._file: int | None = None
        self._warned = False
        self._try(self._open)

    @classmethod
    def reopen(cls, folder: Path, tracking_uri: str | None = None) -> Journal:
        """Open the journal that a folder holds.

        Args:
            folder: Of a run.
            tracking_uri: Of its server, if it is another than before.

        Raises:
            FileNotFoundError: It holds none.
        """
        about = json.loads((folder / RUN).read_text())
        return cls(folder, about["run_id"], tracking_uri or about["tracking_uri"])

    def append(self, **entry: Any) -> None:
        """Write an entry down; it is in the file, though perhaps not yet on the disk, when this returns."""
        with self._lock:
            self._number += 1
            numbered = {"n": self._number} | entry
            self._waiting.append(numbered)
            self._unwritten.append(numbered)
            self._try(self._write)

    def waiting(self) -> list[Entry]:
        """The entries that were not delivered, in their order."""
        with self._lock:
            return list(self._waiting)

    def is_written(self) -> bool:
        """Whether the file holds every entry that was not delivered."""
        with self._lock:
            return not self._unwritten

    def delivered(self, number: int) -> None:
        """Mark the entries up to a number as delivered."""
        with self._lock:
            for entries in (self._waiting, self._unwritten):
                while entries and entries[0]["n"] <= number:
                    entries.popleft()
        draft = self.folder / f"{_MARK}.draft"

        def mark() -> None:
            draft.write_text(str(number))
            draft.replace(self.folder / _MARK)

        self._try(mark)

    def sync(self) -> None:
        """Have the disk hold what was written."""
        if self._file is not None:
            os.fsync(self._file)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _open(self) -> None:
        entries = read(self.folder)
        mark = _number(self.folder / _MARK)
        self._number = max([mark, *(entry["n"] for entry in entries)])
        self._waiting.extend(entry for entry in entries if entry["n"] > mark)
        self._open_file()

    def _open_file(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # a URI may hold a password
        if not (self.folder / RUN).exists():
            atomic_file.write_file(
                self.folder / RUN,
                json.dumps({"run_id": self.run_id, "tracking_uri": self.tracking_uri}).encode(),
            )
        self._file = os.open(self.folder / _ENTRIES, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def _write(self) -> None:
        """Write what could not be written before, too."""
        if self._file is None:
            self._open_file()
        while self._file is not None and self._unwritten:
            line = (
                f"\n{json.dumps(self._unwritten[0])}\n".encode()
            )  # the first line feed ends what was cut short before it
            if os.write(self._file, line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._unwritten.popleft()

    def _try(self, work: Any) -> None:
        try:
            work()
        except OSError as error:
            if not self._warned:
                self._warned = True
                _logger.warning(
                    "%s cannot be written: %s; what is not delivered is kept in memory alone.",
                    self.folder,
                    error.strerror,
                )


def open_for(run_id: str, folder: Path) -> Journal:
    """The journal of a run of the current tracking server."""
    return Journal(folder, run_id, mlflow.get_tracking_uri())


def read(folder: Path) -> list[Entry]:
    """The whole entries in a folder, delivered or not; a line that was cut short is none."""
    path = folder / _ENTRIES
    if not path.exists():
        return []
    return [
        entry
        for line in path.read_bytes().splitlines()
        if line and (entry := _parsed(line)) is not None
    ]


def _number(path: Path) -> int:
    """What a mark says; 0, so that everything is sent again, where there is none or it was cut short."""
    try:
        return int(path.read_text())
    except (FileNotFoundError, ValueError):
        return 0


def _parsed(line: bytes) -> Entry | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and "n" in entry else None
