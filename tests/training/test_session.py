from __future__ import annotations

from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback

from mlflow_sb3.algorithms import builder
from mlflow_sb3.runs.signals import Interrupted, StopRequest
from mlflow_sb3.training.callbacks import CheckpointCallback
from mlflow_sb3.training.checkpoint import Checkpoint
from mlflow_sb3.training.checkpoint_evaluator import CheckpointEvaluator
from mlflow_sb3.training.checkpoint_selection import EvaluationSettings
from mlflow_sb3.training.learn_state import IterationLogger
from mlflow_sb3.training.session import TrainingSession
from mlflow_sb3.training.snapshot_writer import SnapshotWriter


@pytest.fixture
def model(cartpole: str) -> BaseAlgorithm:
    algorithm = builder.build_algorithm("ppo", cartpole, {"n_steps": 32, "batch_size": 32}, seed=0)
    algorithm.set_logger(IterationLogger([]))
    return algorithm


def make_session(
    model: BaseAlgorithm, stop: StopRequest | None = None, writer: SnapshotWriter | None = None
) -> TrainingSession:
    return TrainingSession(model, 64, writer, None, stop or StopRequest(), progress=False)


class FailingCallback(BaseCallback):
    def _on_step(self) -> bool:
        raise ValueError("wrong shape")


def test_learning_ends_after_the_timesteps(model: BaseAlgorithm, cartpole: str) -> None:
    evaluator = CheckpointEvaluator(model, cartpole, seed=0)
    callback = CheckpointCallback(evaluator, EvaluationSettings(freq=32), 64)

    make_session(model).learn([callback])

    assert model.num_timesteps == 64
    assert callback.checkpoints[-1].step == 64


def test_an_error_of_sb3_names_the_algorithm_and_the_step(model: BaseAlgorithm) -> None:
    with pytest.raises(MlflowException, match="PPO failed at step 1: ValueError: wrong shape"):
        make_session(model).learn([FailingCallback()])


def test_a_stop_request_ends_the_selection(model: BaseAlgorithm, cartpole: str) -> None:
    stop = StopRequest()
    stop.requested = 15
    evaluator = CheckpointEvaluator(model, cartpole, seed=0)

    with pytest.raises(Interrupted, match="SIGTERM"):
        make_session(model, stop).select(
            [Checkpoint.from_model(model)], evaluator, EvaluationSettings()
        )


def test_learning_takes_a_snapshot_at_the_end(model: BaseAlgorithm, tmp_path: Path) -> None:
    writer = SnapshotWriter(tmp_path, every=10**9)

    make_session(model, writer=writer).learn([])
    writer.wait()

    assert writer.count == 1
