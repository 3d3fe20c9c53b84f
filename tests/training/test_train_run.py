"""Tests of the options of a resumed training. tests/faults resumes interrupted trainings."""

from __future__ import annotations

from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient

from mlflow_sb3.runs.signals import Interrupted
from mlflow_sb3.training import train_run, training_run
from mlflow_sb3.training.resume import RESUMED_FROM_TAG
from mlflow_sb3.training.train_run import OptionConflictError, TrainSettings

OPTIONS: dict[str, Any] = {
    "env": "CartPole-v1",
    "algo": "ppo",
    "timesteps": 256,
    "seed": 0,
    "hyperparams": {"n_steps": 64},
    "preset": "none",
    "env_kwargs": {},
    "wrappers": [],
    "from_model": "",
    "torch_threads": 1,
}


@pytest.fixture
def interrupted_run_id(store: str, monkeypatch: pytest.MonkeyPatch) -> str:  # noqa: ARG001
    """Id of a training that was interrupted after learning, with a snapshot on this machine."""

    def interrupt(*args: Any, **kwargs: Any) -> None:  # noqa: ARG001
        raise Interrupted(15)

    with monkeypatch.context() as patch, mlflow.start_run() as run:
        patch.setattr(training_run, "log_training_run", interrupt)
        messages: list[str] = []
        with pytest.raises(Interrupted, match="SIGTERM"):
            train_run.start_training(
                run.info.run_id, OPTIONS, TrainSettings(snapshot_every=64, warn=messages.append)
            )
    assert messages[-1].startswith("Resume the training with: mlflow run . -e train -P resume=")
    return str(run.info.run_id)


def test_a_resumed_training_keeps_its_options(interrupted_run_id: str) -> None:
    with mlflow.start_run() as run:
        result = train_run.resume_training(
            run.info.run_id, interrupted_run_id, {"timesteps": 256}, TrainSettings()
        )

    resumed = MlflowClient().get_run(run.info.run_id)
    assert resumed.data.tags[RESUMED_FROM_TAG] == interrupted_run_id
    assert resumed.data.params["sb3/n_steps"] == "64"
    assert result.best.step <= 256


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"algo": "a2c"}, "was trained with algo='ppo', but algo='a2c' was given. Leave algo out"),
        ({"preset": "zoo"}, "was trained with preset='none', but preset='zoo' was given"),
    ],
)
def test_a_resumed_training_refuses_other_options(
    interrupted_run_id: str, changed: dict[str, Any], message: str
) -> None:
    with mlflow.start_run() as run, pytest.raises(OptionConflictError, match=message):
        train_run.resume_training(run.info.run_id, interrupted_run_id, changed, TrainSettings())
