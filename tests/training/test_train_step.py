"""Tests of the options of a resumed training. tests/faults resumes interrupted trainings."""

from __future__ import annotations

import signal
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient

from mlflow_sb3.runs import state_dir
from mlflow_sb3.runs.signals import Interrupted
from mlflow_sb3.training import train_step, training_run
from mlflow_sb3.training.config import TrainingConfig
from mlflow_sb3.training.resume import RESUMED_FROM_TAG
from mlflow_sb3.training.train_step import OptionConflictError, TrainSettings

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
    "eval_freq": None,
    "eval_episodes": 10,
    "selection": "race",
    "eval_budget": 0.1,
    "eval_steps": None,
    "race_episodes": None,
}


CONFIG = TrainingConfig(
    **{name: value for name, value in OPTIONS.items() if name != "preset"},
    preset="stable-baselines3 defaults",
    from_model_id="",
    description="{}",
    resolved={},
)


@pytest.mark.usefixtures("store")
def test_a_resumed_training_keeps_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: Any, **kwargs: Any) -> None:
        raise Interrupted(signal.SIGTERM)

    messages: list[str] = []
    settings = TrainSettings(snapshot_every=64, warn=messages.append)
    interrupted_run_id = MlflowClient().create_run("1").info.run_id
    with monkeypatch.context() as patch:
        patch.setattr(training_run, "log_training_run", interrupt)
        with pytest.raises(Interrupted, match="SIGTERM"):
            train_step.start_training(interrupted_run_id, OPTIONS, settings)

    with mlflow.start_run() as run:
        result = train_step.resume_training(
            run.info.run_id, interrupted_run_id, {"timesteps": 256}, TrainSettings()
        )

    assert messages[-1].startswith("Resume the training with: mlflow run . -e train -P resume=")
    resumed = MlflowClient().get_run(run.info.run_id)
    assert resumed.data.tags[RESUMED_FROM_TAG] == interrupted_run_id
    assert resumed.data.params["sb3/n_steps"] == "64"
    assert result.best.step <= 256


@pytest.mark.usefixtures("store")
def test_the_state_of_all_resumed_trainings_is_deleted_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(*args: Any, **kwargs: Any) -> None:
        raise Interrupted(signal.SIGTERM)

    first, second, third = (MlflowClient().create_run("1").info.run_id for _ in range(3))
    with monkeypatch.context() as patch:
        patch.setattr(training_run, "log_training_run", interrupt)
        with pytest.raises(Interrupted):
            train_step.start_training(first, OPTIONS, TrainSettings(snapshot_every=64))
        with pytest.raises(Interrupted):
            train_step.resume_training(second, first, {}, TrainSettings(snapshot_every=64))
    folders = [state_dir.get_run_dir(run_id) for run_id in (first, second)]
    assert (folders[0] / "snapshots").exists()

    train_step.resume_training(third, second, {}, TrainSettings())

    assert not any(folder.exists() for folder in folders)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"algo": "a2c"}, "was trained with algo='ppo', but algo is now 'a2c'. Leave algo out"),
        ({"preset": "zoo"}, "was trained with preset='none', but preset is now 'zoo'"),
    ],
)
def test_a_resumed_training_refuses_other_options(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionConflictError, match=message):
        train_step.check_same_options("run", changed, OPTIONS, CONFIG)


def test_a_resumed_training_accepts_resolved_options() -> None:
    """The user may repeat the number of steps that the preset chose."""
    options = OPTIONS | {"timesteps": None}

    train_step.check_same_options("run", {"timesteps": 256}, options, CONFIG)
