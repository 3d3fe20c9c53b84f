"""The last two snapshots of a training, in a folder: taken when they are due, whole or not there."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from pickle import PicklingError
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback

from mlflow_sb3.flavor import vec_normalize
from mlflow_sb3.tracking import atomic_file, snapshot_header
from mlflow_sb3.tracking.snapshot_header import SnapshotHeader
from mlflow_sb3.tracking.snapshot_uploader import SLOTS
from mlflow_sb3.training import snapshot
from mlflow_sb3.training.snapshot import SnapshotState

SHARE = 0.02
"""Of the time of training that snapshots may cost, unless their distance is given."""
SHORTEST = 2.0
"""Seconds between two snapshots at the least."""
_DRAFT = "snapshot.draft"

_logger = logging.getLogger(__name__)


class SnapshotWriter:
    """Takes snapshots of a training into a folder.

    The training thread writes the state into the page cache; a thread of the shelf seals, syncs and renames the file.
    A snapshot that cannot be written leaves the ones before it alone, and training goes on.
    """

    def __init__(
        self,
        folder: Path,
        *,
        every: int | None = None,
        context: dict[str, Any] | None = None,
        more: Callable[[], dict[str, Any]] = dict,
        on_published: Callable[[Path], object] = lambda path: None,  # noqa: ARG005
    ) -> None:
        """Keep snapshots in a folder, which may hold some already.

        Args:
            folder: Made when it is needed.
            every: Environment steps between two snapshots; by default they are as far apart as ``SHARE`` allows.
            context: JSON values for the header of every snapshot.
            more: Asked for values to pickle beside the state, at the moment of every snapshot.
            on_published: Told of every snapshot that is whole.
        """
        self.folder = folder
        self.inexact: str | None = None
        """Why the environments are not part of the snapshots, if they are not."""
        self.seconds = 0.0
        """What the training thread spent on snapshots."""
        self.taken = 0
        self._every = every
        self._context = context or {}
        self._more = more
        self._on_published = on_published
        self._slot = (
            1 - SLOTS.index(found.name) if (found := next(valid_snapshots(folder), None)) else 0
        )
        self._due_step = 0
        self._due_time = 0.0
        self._finishing: threading.Thread | None = None
        self._warned: set[str] = set()
        self._broken = False

    def begin(self, step: int) -> None:
        """Learning begins at this step: count the distance to the first snapshot from here."""
        self._due_step = step + (self._every or 0)
        self._due_time = time.monotonic() + SHORTEST

    def is_due(self, step: int) -> bool:
        """Whether it is time for a snapshot."""
        if self._every is not None:
            return step >= self._due_step
        return time.monotonic() >= self._due_time and not self._is_finishing()

    def take(
        self,
        model: BaseAlgorithm,
        callbacks: Sequence[BaseCallback],
        *,
        learned: bool = False,
        early: SnapshotState | None = None,
    ) -> None:
        """Take a snapshot now; what keeps it from being written is a warning.

        Args:
            model: Between two rollouts.
            callbacks: See ``snapshot.write_snapshot``.
            learned: Learning has ended, and only the choice is left.
            early: See ``snapshot.write_snapshot``.
        """
        if self._broken:
            return
        start = time.monotonic()
        self.wait()
        draft = self.folder / _DRAFT
        written = self._attempt(
            partial(self._write, draft, model, callbacks, learned=learned, early=early)
        )
        spent = time.monotonic() - start
        self.seconds += spent
        self._due_step = model.num_timesteps + (self._every or 0)
        self._due_time = time.monotonic() + max(SHORTEST, spent / SHARE)
        if not written:
            return
        self.taken += 1
        self._finishing = threading.Thread(
            target=self._attempt, args=[partial(self._publish, draft)], name="snapshot"
        )
        self._finishing.start()

    def wait(self) -> None:
        """Wait until the last snapshot has its name."""
        if self._finishing is not None:
            self._finishing.join()
            self._finishing = None

    def _is_finishing(self) -> bool:
        return self._finishing is not None and self._finishing.is_alive()

    def _write(
        self, draft: Path, model: BaseAlgorithm, callbacks: Sequence[BaseCallback], **kwargs: Any
    ) -> None:
        try:
            self._dump(draft, model, callbacks, **kwargs)
        except PicklingError as error:
            if self.inexact is not None:
                raise
            self.inexact = f"{_name(model)} cannot be pickled ({error})"
            self._dump(draft, model, callbacks, **kwargs)
            self._warn(
                f"{self.inexact}: a resumed training begins new episodes there, and is not exact."
            )

    def _dump(
        self,
        draft: Path,
        model: BaseAlgorithm,
        callbacks: Sequence[BaseCallback],
        *,
        learned: bool,
        early: SnapshotState | None,
    ) -> None:
        statistics = vec_normalize.read_statistics(model) if self.inexact else None
        header = SnapshotHeader(
            model.num_timesteps, learned, self._context, model.n_envs, self.inexact, statistics
        )
        dump = partial(
            snapshot.write_snapshot, model, callbacks, header, early=early, **self._more()
        )
        atomic_file.write_draft(draft, dump)

    def _publish(self, draft: Path) -> None:
        start = time.monotonic()
        try:
            atomic_file.seal(draft)
            path = self.folder / SLOTS[self._slot]
            atomic_file.publish(draft, path)
            self._slot = 1 - self._slot
            self._on_published(path)
        finally:
            self._due_time += (time.monotonic() - start) / SHARE

    def _attempt(self, work: Callable[[], None]) -> bool:
        try:
            work()
        except OSError as error:
            self._warn(
                f"no snapshot could be written to {self.folder}: {error.strerror}; training goes on, and the one before it stays."
            )
            with suppress(OSError):
                (self.folder / _DRAFT).unlink()
            return False
        except PicklingError as error:
            self._broken = True
            self._warn(f"this training cannot be resumed: its state cannot be pickled ({error}).")
            return False
        return True

    def _warn(self, message: str) -> None:
        """Say a thing once."""
        if message not in self._warned:
            self._warned.add(message)
            _logger.warning(message)


def valid_snapshots(folder: Path) -> Iterator[Path]:
    """The snapshots in a folder that are whole, the newest one first."""
    found = [path for name in SLOTS if atomic_file.is_sealed(path := folder / name)]
    yield from sorted(found, key=_age, reverse=True)


def _age(path: Path) -> tuple[bool, int]:
    header = snapshot_header.read_header(path)
    return header.learned, header.step


def _name(model: BaseAlgorithm) -> str:
    vec_env = model.get_env()
    spec = None if vec_env is None else vec_env.get_attr("spec")[0]
    return "the environment" if spec is None else f"environment {spec.id}"
