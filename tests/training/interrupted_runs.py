"""Runs of an interrupted training, with a journal and a snapshot."""

from __future__ import annotations

import math

import mlflow
import pytest
from mlflow import MlflowClient
from stable_baselines3 import PPO

from mlflow_sb3.envs import env_spec
from mlflow_sb3.runs import state_dir
from mlflow_sb3.runs.signals import Interrupted
from mlflow_sb3.tracking.run_logger import MetricPoint, RunLogger
from mlflow_sb3.tracking.snapshot_uploader import SNAPSHOT_DIR
from mlflow_sb3.training import provenance
from mlflow_sb3.training.config import TrainingConfig
from mlflow_sb3.training.learn_state import IterationLogger
from mlflow_sb3.training.snapshot_writer import SnapshotWriter
from mlflow_sb3.training.training_record import TrainingFacts

CONFIG = TrainingConfig(
    env="CartPole-v1",
    algo="ppo",
    timesteps=64,
    seed=0,
    hyperparams={},
    env_kwargs={},
    wrappers=[],
    from_model="",
    from_model_id="",
    torch_threads=1,
    preset="none",
    description=env_spec.compose_spec("CartPole-v1"),
    resolved={},
)
POINTS = [
    MetricPoint("a", 0.0, 10, 1),
    MetricPoint("a", math.nan, 11, 2),
    MetricPoint("a", math.inf, 12, 3),
    MetricPoint("a", 4.0, 13, 4),
]
"""Metrics that are logged before the snapshot."""
LATER_POINT = MetricPoint("a", 5.0, 14, 5)
"""Metric that is logged after the snapshot."""


def make_interrupted_run(facts: TrainingFacts | None = None, *, has_snapshot: bool = True) -> str:
    """Create a run that was interrupted, with a snapshot at step 32, and return its id."""
    experiment = mlflow.get_experiment_by_name("test")
    assert experiment is not None
    run_id = str(MlflowClient().create_run(experiment.experiment_id).info.run_id)
    with pytest.raises(Interrupted, match="SIGTERM"):
        _interrupt(run_id, facts or provenance.collect_facts(1), has_snapshot=has_snapshot)
    return run_id


def _interrupt(run_id: str, facts: TrainingFacts, *, has_snapshot: bool) -> None:
    with RunLogger(run_id, state_dir.get_run_dir(run_id)) as run_logger:
        if has_snapshot:
            run_logger.log_metrics(POINTS)
            _take_snapshot(run_id, run_logger, facts)
            run_logger.log_metrics([LATER_POINT])
        raise Interrupted(15)


def _take_snapshot(run_id: str, run_logger: RunLogger, facts: TrainingFacts) -> None:
    model = PPO("MlpPolicy", "CartPole-v1", n_steps=32, batch_size=32, seed=0, device="cpu")
    model.set_logger(IterationLogger([]))
    model.learn(32)
    writer = SnapshotWriter(
        state_dir.get_run_dir(run_id) / SNAPSHOT_DIR,
        context={"asked": {}, "recipe": CONFIG.to_json(), "facts": facts.to_json()},
        get_extra=run_logger.get_metric_state,
        on_written=run_logger.offer_snapshot,
    )
    writer.take(model, [])
    writer.wait()
