"""The last snapshot of an interrupted run: load it, and restore its metrics in the new run."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow import MlflowClient

from mlflow_sb3.inference import agent_files
from mlflow_sb3.tracking.run_logger import MetricPoint, RunLogger
from mlflow_sb3.training import provenance
from mlflow_sb3.training.provenance import INEXACT_TAG
from mlflow_sb3.training.training_record import TrainingFacts

if TYPE_CHECKING:
    from mlflow_sb3.tracking.snapshot_header import SnapshotHeader
    from mlflow_sb3.training.snapshot import SnapshotState

RESUMED_AT_TAG = "mlflow_sb3.resumed_at"
"""Tag of a resumed run: the timestep of the snapshot that it continues from."""
_MAX_TAG_LENGTH = 5000
"""Characters that every database of MLflow stores in a tag."""
_MAX_METRIC = sys.float_info.max
"""Value that MLflow's SQL store returns for infinity."""


@dataclass(frozen=True)
class ResumePoint:
    """An interrupted run, and its last snapshot, which the user trusts."""

    run_id: str
    path: Path
    header: SnapshotHeader

    def load(self) -> SnapshotState:
        """Load the snapshot. This unpickles.

        Some environments cannot be pickled. Their snapshots have no environments. Make new ones
        then, and seed them with values that no episode of the interrupted run used.

        Raises:
            MlflowException: MLflow does not allow unpickling, or the new environments have other
                wrappers than those that the interrupted run trained in.
        """
        from mlflow_sb3.envs import entry_points, seeds
        from mlflow_sb3.training import snapshot

        agent_files.check_unpickling_allowed(
            f"resuming from a snapshot of run {self.run_id}", is_trusted=True
        )
        config = self.header.context["recipe"]
        # Unpickling the snapshot can run any code, so its environment needs no check.
        entry_points.trust_options(config["description"])
        (seed,) = seeds.generate_episode_seeds(
            config["seed"], "learning", 1, start=1 + self.header.step
        )
        vec_env = snapshot.rebuild_envs(config["description"], self.header, seed=seed)
        if vec_env is not None:
            vec_env.seed(seed)
        return snapshot.load_snapshot(self.path, vec_env)

    def resume_in(self, run_logger: RunLogger, facts: TrainingFacts) -> SnapshotState:
        """Load the snapshot, restore the metrics in a new run, and tag the new run.

        Args:
            run_logger: Logger of the new run.
            facts: Code and machine of this process. If they differ from those of the interrupted
                run, the tag ``mlflow_sb3.inexact`` of the new run lists the differences.

        Returns:
            The state to continue from.
        """
        state = self.load()
        self.restore_metrics(run_logger, state.extra)
        tags = {RESUMED_AT_TAG: str(self.header.step)}
        if reasons := self._list_inexact_reasons(facts):
            tags[INEXACT_TAG] = "; ".join(reasons)[:_MAX_TAG_LENGTH]
        run_logger.set_tags(tags)
        return state

    def restore_metrics(self, run_logger: RunLogger, metric_state: dict[str, Any]) -> None:
        """Log the metrics of the interrupted run up to the snapshot, each point once.

        Args:
            run_logger: Logger of the new run.
            metric_state: Result of ``RunLogger.get_metric_state`` at the time of the snapshot.
        """
        points: list[MetricPoint] = []
        for key, count in metric_state["counts"].items():
            stored = [
                MetricPoint(key, point.value, point.timestamp, point.step)
                for point in MlflowClient().get_metric_history(self.run_id, key)
            ]
            waiting = [MetricPoint(*point) for point in metric_state["waiting"] if point[0] == key]
            unique = {_get_identity(point): point for point in [*stored, *waiting]}
            in_order = sorted(unique.values(), key=lambda point: (point.step, point.timestamp))
            points += in_order[:count]
        run_logger.log_metrics(points)

    def _list_inexact_reasons(self, facts: TrainingFacts) -> list[str]:
        """Describe why the new run may end with other weights than without the interruption."""
        before = TrainingFacts.from_json(self.header.context["facts"])
        inherited = MlflowClient().get_run(self.run_id).data.tags.get(INEXACT_TAG)
        return [
            *([] if self.header.inexact is None else [self.header.inexact]),
            *provenance.compare_facts(before, facts),
            *([] if inherited is None else [inherited]),
        ]


def _get_identity(point: MetricPoint) -> tuple[int, int, str]:
    """Return a key that is the same for a point and its copy in MLflow's store, even for NaN."""
    value = point.value
    if not math.isnan(value):
        value = max(-_MAX_METRIC, min(_MAX_METRIC, value))
    return point.timestamp, point.step, repr(value)
