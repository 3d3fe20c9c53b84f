"""A training that ended before it was done: its last whole snapshot, here or among the artifacts, and its curves."""

from __future__ import annotations

import json
import logging
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from mlflow_sb3.client.retry import CONNECTION_ERRORS
from mlflow_sb3.inference import agent_files
from mlflow_sb3.runs import heartbeat, state_dir
from mlflow_sb3.tracking import atomic_file, journal, snapshot_uploader
from mlflow_sb3.tracking.run_logger import MetricPoint, RefusedError, RunLogger, deliver_journal
from mlflow_sb3.tracking.snapshot_uploader import SLOTS, SNAPSHOT_DIR, SNAPSHOT_TAG
from mlflow_sb3.training import provenance
from mlflow_sb3.training.provenance import INEXACT_TAG

if TYPE_CHECKING:
    from mlflow_sb3.tracking.snapshot_header import SnapshotHeader
    from mlflow_sb3.training.snapshot import SnapshotState

RESUMED_FROM_TAG = "mlflow_sb3.resumed_from"
"""Tag of a training run: the run that it goes on from."""
_LONGEST = 5000
"""Characters of a tag that every database takes."""
_MOST = sys.float_info.max
"""What MLflow's store makes of infinity."""

_logger = logging.getLogger(__name__)

AT = "mlflow_sb3.resumed_at"
"""Tag of a training run: the step that it goes on from."""


@dataclass(frozen=True)
class Origin:
    """A run that can be gone on from, and its last snapshot."""

    run_id: str
    path: Path
    header: SnapshotHeader

    def load(self) -> SnapshotState:
        """Read the snapshot; this unpickles. Environments that are not in it are made anew, on seeds that no episode had."""
        from mlflow_sb3.envs import seeds
        from mlflow_sb3.training import snapshot

        agent_files.check_unpickling_allowed(f"going on from a snapshot of run {self.run_id}")
        recipe = self.header.context["recipe"]
        vec_env = snapshot.rebuild_envs(recipe["description"], self.header)
        if vec_env is not None:
            vec_env.seed(
                seeds.episode_seeds(recipe["seed"], "learning", 1, start=1 + self.header.step)[0]
            )
        return snapshot.load_snapshot(self.path, vec_env)

    def carry(self, tracker: RunLogger, facts: dict[str, Any]) -> SnapshotState:
        """Load the snapshot, and give a run the curves of its origin up to there, each point once.

        Args:
            tracker: Of the run that goes on.
            facts: Of this process; where they differ from those of the origin, the run says that it may not be exact.
        """
        loaded = self.load()
        told = loaded["more"]
        points: list[MetricPoint] = []
        for key, count in told["counts"].items():
            stored = [
                (key, point.value, point.timestamp, point.step)
                for point in MlflowClient().get_metric_history(self.run_id, key)
            ]
            waiting = [point for point in told["waiting"] if point[0] == key]
            once = {(point[2], point[3], _stored(point[1])): point for point in [*stored, *waiting]}
            points += sorted(once.values(), key=lambda point: (point[3], point[2]))[:count]
        tracker.points(points)
        reasons = [] if self.header.inexact is None else [self.header.inexact]
        reasons += provenance.differing_facts(self.header.context["facts"], facts)
        before = MlflowClient().get_run(self.run_id).data.tags.get(INEXACT_TAG)
        reasons += [] if before is None else [before]
        tracker.tags(
            {AT: str(self.header.step)}
            | ({INEXACT_TAG: "; ".join(reasons)[:_LONGEST]} if reasons else {})
        )
        return loaded


@contextmanager
def find_snapshot(run_id: str, home: str | None = None) -> Iterator[Origin]:
    """Find the last whole snapshot of a run that did not finish, or of the run that it went on from before it had one itself.

    What its journal holds on this machine is delivered first.

    Args:
        run_id: Of a run of the entry point ``train``.
        home: See ``state_dir.state_dir``.

    Raises:
        MlflowException: The run finished, or is alive, or left no snapshot.
    """
    run = MlflowClient().get_run(run_id)
    if run.info.status == "RUNNING" and heartbeat.is_alive_after_watching(run):
        raise MlflowException.invalid_parameter_value(
            f"run {run_id} is still alive; stop it (SIGTERM makes a snapshot), or let it finish."
        )
    run = flush_journal(run, home)
    if run.info.status == "FINISHED":
        raise MlflowException.invalid_parameter_value(
            f"run {run_id} finished, and there is nothing to resume; log_model takes its agent."
        )
    with TemporaryDirectory() as downloads:
        yield _newest(run, home, Path(downloads))


def flush_journal(run: Run, home: str | None = None) -> Run:
    """A run whose process is over, after what it left in its journal on this machine was delivered; its snapshots stay where they lie."""
    folder = state_dir.run_dir(run.info.run_id, home)
    if not (folder / journal.RUN).exists():
        return run
    try:
        deliver_journal(folder, tracking_uri=mlflow.get_tracking_uri(), uploading=False)
    except RefusedError as error:
        _logger.warning("run %s: %s", run.info.run_id, error)
    return MlflowClient().get_run(run.info.run_id)


def delete_snapshots(run_id: str, home: str | None = None) -> None:
    """Remove what a run that was gone on from, and those that it went on from itself, left for that, here and among their artifacts.

    Those that the server cannot name stay.
    """
    client = MlflowClient()
    origin: str | None = run_id
    with suppress(*CONNECTION_ERRORS):
        while origin is not None:
            shutil.rmtree(state_dir.run_dir(origin, home), ignore_errors=True)
            run = client.get_run(origin)
            if _uploaded(run):
                snapshot_uploader.remove_snapshots(client, origin)
            origin = run.data.tags.get(RESUMED_FROM_TAG)


def resume_command(run_id: str, home: Path) -> str:
    """The command that goes on with a run whose folder lies in this one."""
    where = "" if home == state_dir.state_dir() else f" -P state_folder={shlex.quote(str(home))}"
    return f"mlflow run . -e train -P resume={run_id}{where}"


def has_snapshot(run: Run, home: str | None = None) -> bool:
    """Whether a run can be gone on from."""
    folder = state_dir.run_dir(run.info.run_id, home) / SNAPSHOT_DIR
    return any(
        atomic_file.is_sealed(folder / name) or f"{SNAPSHOT_TAG}{name}" in run.data.tags
        for name in SLOTS
    )


def _newest(run: Run, home: str | None, downloads: Path) -> Origin:
    looked_at: list[str] = []
    one: Run | None = run
    while one is not None and one.info.run_id not in looked_at:
        looked_at.append(one.info.run_id)
        origin = _of(one, state_dir.run_dir(one.info.run_id, home) / SNAPSHOT_DIR, downloads)
        if origin is not None:
            return origin
        before = one.data.tags.get(RESUMED_FROM_TAG)
        one = None if before is None else MlflowClient().get_run(before)
    raise MlflowException.invalid_parameter_value(
        f"run {run.info.run_id} left no whole snapshot, neither in {state_dir.state_dir(home)} nor among its artifacts; train anew."
    )


def _of(run: Run, local: Path, downloads: Path) -> Origin | None:
    """The newest whole snapshot of one run."""
    from mlflow_sb3.tracking import snapshot_header
    from mlflow_sb3.training.snapshot_writer import valid_snapshots

    here = next(valid_snapshots(local), None)
    header = None if here is None else snapshot_header.read_header(here)
    failure: Exception | None = None
    for name, place in _uploaded(run):
        if header is not None and (place["learned"], place["step"]) <= (
            header.learned,
            header.step,
        ):
            break
        try:
            path = _download(run.info.run_id, name, downloads)
        except Exception as error:  # noqa: BLE001 every kind of artifact store raises errors of its own
            _logger.warning(
                "snapshot %s of run %s cannot be downloaded: %s", name, run.info.run_id, error
            )
            failure = error
            continue
        if (digest := atomic_file.seal_of(path)) is not None and digest == place["digest"]:
            return Origin(run.info.run_id, path, snapshot_header.read_header(path))
    if here is not None and header is not None:
        return Origin(run.info.run_id, here, header)
    if failure is not None:
        raise MlflowException(
            f"run {run.info.run_id} has its last snapshot among its artifacts alone, which cannot be downloaded: {failure}; "
            "call again when the artifact store answers, or train anew."
        ) from failure
    return None


def _stored(value: float) -> str:
    """A value as the store gives it back, told apart even where it is no number."""
    return repr(max(-_MOST, min(_MOST, value))) if value == value else "nan"  # noqa: PLR0124 no import for that


def _uploaded(run: Run) -> list[tuple[str, dict[str, Any]]]:
    """Name, and step and digest, of the snapshots among the artifacts; the newest one first."""
    places = [
        (name, json.loads(run.data.tags[f"{SNAPSHOT_TAG}{name}"]))
        for name in SLOTS
        if f"{SNAPSHOT_TAG}{name}" in run.data.tags
    ]
    return sorted(places, key=lambda place: (place[1]["learned"], place[1]["step"]), reverse=True)


def _download(run_id: str, name: str, folder: Path) -> Path:
    return Path(
        mlflow.artifacts.download_artifacts(
            run_id=run_id, artifact_path=f"{SNAPSHOT_DIR}/{name}", dst_path=str(folder)
        )
    )
