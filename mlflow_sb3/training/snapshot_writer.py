"""Write snapshots of a training to a folder at regular intervals, and keep the last two."""

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
from mlflow_sb3.tracking.snapshot_uploader import SNAPSHOT_NAMES
from mlflow_sb3.training import snapshot
from mlflow_sb3.training.rng_state import RngState

MAX_TIME_SHARE = 0.02
"""Share of the training time that snapshots may take, unless ``every`` is set."""
MIN_INTERVAL = 2.0
"""Minimum seconds between two snapshots, unless ``every`` is set."""
_DRAFT_NAME = "snapshot.draft"

_logger = logging.getLogger(__name__)


class SnapshotWriter:
    """Write snapshots of a training to a folder.

    The training thread pickles the state into a draft file. A second thread appends the digest,
    syncs the draft to disk and renames it. If a snapshot cannot be written, training continues and
    the previous snapshots stay.
    """

    def __init__(
        self,
        folder: Path,
        *,
        every: int | None = None,
        context: dict[str, Any] | None = None,
        get_extra: Callable[[], dict[str, Any]] = dict,
        on_written: Callable[[Path], object] = lambda path: None,  # noqa: ARG005
    ) -> None:
        """Create a writer.

        Args:
            folder: Folder for the snapshots. It may contain some already.
            every: Timesteps between two snapshots. By default, the interval keeps the cost below
                ``MAX_TIME_SHARE``.
            context: JSON values for the header of each snapshot.
            get_extra: Returns picklable values to store in a snapshot. Called for each snapshot.
            on_written: Called with the path of each complete snapshot, in the second thread.
        """
        self.folder = folder
        self.inexact_reason: str | None = None
        """Reason why snapshots leave the environments out. None if they contain them."""
        self.seconds = 0.0
        """Seconds that the training thread has spent on snapshots."""
        self.count = 0
        """Number of snapshots taken."""
        self._every = every
        self._context = context or {}
        self._get_extra = get_extra
        self._on_written = on_written
        newest = next(list_valid_snapshots(folder), None)
        self._next_index = 0 if newest is None else 1 - SNAPSHOT_NAMES.index(newest.name)
        self._next_step = 0
        self._next_time = 0.0
        self._thread: threading.Thread | None = None
        self._warnings: set[str] = set()
        self._is_unpicklable = False

    def start(self, step: int) -> None:
        """Start the first interval at the timestep at which learning starts."""
        self._next_step = step + (self._every or 0)
        self._next_time = time.monotonic() + MIN_INTERVAL

    def is_due(self, step: int) -> bool:
        """Return whether the interval since the last snapshot is over.

        Without ``every``, no snapshot is due while the second thread completes the last one.
        """
        if self._every is not None:
            return step >= self._next_step
        return time.monotonic() >= self._next_time and not self._is_publishing()

    def take(
        self,
        model: BaseAlgorithm,
        callbacks: Sequence[BaseCallback],
        *,
        is_learned: bool = False,
        rng_state: RngState | None = None,
    ) -> None:
        """Take a snapshot. If that fails, log a warning.

        Args:
            model: Algorithm between two rollouts.
            callbacks: See ``snapshot.write_snapshot``.
            is_learned: Whether learning has ended.
            rng_state: See ``snapshot.write_snapshot``.
        """
        if self._is_unpicklable:
            return
        start = time.monotonic()
        self.wait()
        draft = self.folder / _DRAFT_NAME
        is_written = self._try_to(
            partial(
                self._write_draft,
                draft,
                model,
                callbacks,
                is_learned=is_learned,
                rng_state=rng_state,
            )
        )
        seconds = time.monotonic() - start
        self.seconds += seconds
        self._next_step = model.num_timesteps + (self._every or 0)
        self._next_time = time.monotonic() + max(MIN_INTERVAL, seconds / MAX_TIME_SHARE)
        if is_written:
            self.count += 1
            self._start_publishing(draft)

    def wait(self) -> None:
        """Wait until the last snapshot is complete."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _is_publishing(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _write_draft(
        self, draft: Path, model: BaseAlgorithm, callbacks: Sequence[BaseCallback], **options: Any
    ) -> None:
        """Write a draft. If the environments cannot be pickled, leave them out."""
        try:
            self._dump(draft, model, callbacks, **options)
        except PicklingError as error:
            if self.inexact_reason is not None:
                raise
            self.inexact_reason = f"{_describe_env(model)} cannot be pickled ({error})"
            self._dump(draft, model, callbacks, **options)
            self._warn(
                f"{self.inexact_reason}: a resumed training starts new episodes and is not exact."
            )

    def _dump(
        self,
        draft: Path,
        model: BaseAlgorithm,
        callbacks: Sequence[BaseCallback],
        *,
        is_learned: bool,
        rng_state: RngState | None,
    ) -> None:
        reason = self.inexact_reason
        statistics = vec_normalize.read_statistics(model) if reason else None
        header = SnapshotHeader(
            model.num_timesteps, is_learned, self._context, model.n_envs, reason, statistics
        )
        extra = self._get_extra()
        atomic_file.write_draft(
            draft,
            lambda file: snapshot.write_snapshot(
                file, header, model, callbacks, rng_state=rng_state, extra=extra
            ),
        )

    def _start_publishing(self, draft: Path) -> None:
        self._thread = threading.Thread(
            target=self._try_to, args=[partial(self._publish, draft)], name="snapshot"
        )
        self._thread.start()

    def _publish(self, draft: Path) -> None:
        """Complete a draft, and replace the older of the two snapshots with it."""
        start = time.monotonic()
        try:
            atomic_file.append_digest(draft)
            path = self.folder / SNAPSHOT_NAMES[self._next_index]
            atomic_file.publish_draft(draft, path)
            self._next_index = 1 - self._next_index
            self._on_written(path)
        finally:
            self._next_time += (time.monotonic() - start) / MAX_TIME_SHARE

    def _try_to(self, write: Callable[[], None]) -> bool:
        """Call ``write`` and return whether it succeeded. If it fails, log a warning."""
        try:
            write()
        except OSError as error:
            self._warn(
                f"Could not write a snapshot to {self.folder}: {error.strerror}. "
                "Training continues, and the previous snapshot stays."
            )
            with suppress(OSError):
                (self.folder / _DRAFT_NAME).unlink()
            return False
        except PicklingError as error:
            self._is_unpicklable = True
            self._warn(
                f"The state of this training cannot be pickled ({error}). "
                "Training continues without snapshots and cannot be resumed."
            )
            return False
        return True

    def _warn(self, message: str) -> None:
        """Log a warning, unless the same message was logged before."""
        if message not in self._warnings:
            self._warnings.add(message)
            _logger.warning(message)


def list_valid_snapshots(folder: Path) -> Iterator[Path]:
    """Yield the complete snapshots of a folder, the newest first."""
    paths = [folder / name for name in SNAPSHOT_NAMES]
    valid = [path for path in paths if atomic_file.has_valid_digest(path)]
    yield from sorted(valid, key=_get_progress, reverse=True)


def _get_progress(path: Path) -> tuple[bool, int]:
    header = snapshot_header.read_header(path)
    return header.learned, header.step


def _describe_env(model: BaseAlgorithm) -> str:
    vec_env = model.get_env()
    spec = None if vec_env is None else vec_env.get_attr("spec")[0]
    return "the environment" if spec is None else f"environment {spec.id}"
