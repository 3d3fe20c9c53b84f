"""A training that ended before it was done: its last whole snapshot, here or among the artifacts, and its curves."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from mlflow_sb3 import delivery, durable, heartbeat, journal, settings, state
from mlflow_sb3.tracker import SLOTS, SNAPSHOT, SNAPSHOTS, Point, Tracker

if TYPE_CHECKING:
    from mlflow_sb3.snapshot import Header, State

ORIGIN = "mlflow_sb3.resumed_from"
"""Tag of a training run: the run that it goes on from."""
AT = "mlflow_sb3.resumed_at"
"""Tag of a training run: the step that it goes on from."""
INEXACT = "mlflow_sb3.inexact"
"""Tag of a training run: why it does not end as it would have without the interruption."""


@dataclass(frozen=True)
class Origin:
    """A run that can be gone on from, and its last snapshot."""

    run_id: str
    path: Path
    header: Header

    def load(self) -> State:
        """Read the snapshot; this unpickles. Environments that are not in it are made anew, on seeds that no episode had."""
        from mlflow_sb3 import environment, snapshot

        settings.check_unpickling_allowed(f"going on from a snapshot of run {self.run_id}")
        vec_env = snapshot.rebuilt(self.header.context["description"], self.header)
        if vec_env is not None:
            vec_env.seed(environment.seeds(self.header.context["seed"], "learning", 1, start=1 + self.header.step)[0])
        return snapshot.load(self.path, vec_env)

    def carry(self, tracker: Tracker) -> State:
        """Load the snapshot, and give a run the curves of its origin up to there, each point once; it says where they come from."""
        loaded = self.load()
        told = loaded["more"]
        points: list[Point] = []
        for key, count in told["counts"].items():
            history = {(key, point.value, point.timestamp, point.step) for point in MlflowClient().get_metric_history(self.run_id, key)}
            history |= {point for point in told["waiting"] if point[0] == key}
            points += sorted(history, key=lambda point: (point[3], point[2]))[:count]
        tracker.points(points)
        inexact = {} if self.header.inexact is None else {INEXACT: self.header.inexact}
        tracker.tags({ORIGIN: self.run_id, AT: str(self.header.step)} | inexact)
        return loaded


@contextmanager
def found(run_id: str, home: str | None = None) -> Iterator[Origin]:
    """Find the last whole snapshot of a run that did not finish.

    What its journal holds on this machine is delivered first.

    Args:
        run_id: Of a run of the entry point ``train``.
        home: See ``state.home``.

    Raises:
        MlflowException: The run finished, or is alive, or left no snapshot.
    """
    run = MlflowClient().get_run(run_id)
    check_over(run)
    folder = state.of_run(run_id, home)
    if (folder / "run.json").exists():
        left = journal.Journal.reopen(folder)
        delivery.Delivery(left).deliver()
        left.close()
    with TemporaryDirectory() as downloads:
        yield _newest(run, folder / SNAPSHOTS, Path(downloads))


def forget(run_id: str, home: str | None = None) -> None:
    """Remove what a run that was gone on from, and those that it went on from itself, left on this machine."""
    origin: str | None = run_id
    while origin is not None:
        shutil.rmtree(state.of_run(origin, home), ignore_errors=True)
        origin = MlflowClient().get_run(origin).data.tags.get(ORIGIN)


def check_over(run: Run) -> None:
    """Refuse a run that finished, or that is not over yet."""
    run_id, status = run.info.run_id, run.info.status
    if status == "FINISHED":
        raise MlflowException.invalid_parameter_value(f"run {run_id} finished, and there is nothing to resume; log_model takes its agent.")
    if status == "RUNNING" and heartbeat.is_alive(run):
        raise MlflowException.invalid_parameter_value(f"run {run_id} is still alive; stop it (SIGTERM makes a snapshot), or let it finish.")


def has_snapshot(run: Run, home: str | None = None) -> bool:
    """Whether a run can be gone on from."""
    return any((state.of_run(run.info.run_id, home) / SNAPSHOTS / name).exists() or f"{SNAPSHOT}{name}" in run.data.tags for name in SLOTS)


def _newest(run: Run, local: Path, downloads: Path) -> Origin:
    from mlflow_sb3 import snapshot
    from mlflow_sb3.shelf import whole

    here = next(whole(local), None)
    header = None if here is None else snapshot.read_header(here)
    for name, place in _uploaded(run):
        if header is not None and (place["learned"], place["step"]) <= (header.learned, header.step):
            break
        path = _download(run.info.run_id, name, downloads)
        if path is not None and durable.seal_of(path) == place["digest"]:
            return Origin(run.info.run_id, path, snapshot.read_header(path))
    if here is None or header is None:
        raise MlflowException.invalid_parameter_value(
            f"run {run.info.run_id} left no whole snapshot, neither in {local} nor among its artifacts; train anew."
        )
    return Origin(run.info.run_id, here, header)


def _uploaded(run: Run) -> list[tuple[str, dict[str, Any]]]:
    """Name, and step and digest, of the snapshots among the artifacts; the newest one first."""
    places = [(name, json.loads(run.data.tags[f"{SNAPSHOT}{name}"])) for name in SLOTS if f"{SNAPSHOT}{name}" in run.data.tags]
    return sorted(places, key=lambda place: (place[1]["learned"], place[1]["step"]), reverse=True)


def _download(run_id: str, name: str, folder: Path) -> Path | None:
    try:
        return Path(mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=f"{SNAPSHOTS}/{name}", dst_path=str(folder)))
    except (MlflowException, OSError):
        return None
