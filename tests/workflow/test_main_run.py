"""Tests of the workflow. tests/project and tests/faults run it as a process."""

from __future__ import annotations

import json
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from mlflow_sb3.runs.previous_attempt import PreviousAttempt
from mlflow_sb3.tracking.file_trust import FileTrust
from mlflow_sb3.workflow.main_run import WorkflowOptions, run_workflow
from mlflow_sb3.workflow.step_runner import StepFailedError, StepRunner

PARAMETERS: dict[str, Any] = {
    "env": "CartPole-v1",
    "algo": "ppo",
    "timesteps": None,
    "seed": 0,
    "hyperparams": {"gamma": 0.9},
    "wrappers": [],
    "model_name": "",
    "inference": "onnx",
    "episodes": 100,
    "video": False,
    "gate_episodes": 400,
    "min_return": None,
    "alpha_per_reign": None,
    "approval": "none",
    "fail_on_reject": False,
    "signing_key": "",
    "public_key": "",
    "allow_pickle": False,
    "state_folder": "",
    "fresh": False,
}


def create_step(entry_point: str, status: str, **parameters: str) -> Run:
    """Return a run as an interrupted call of main leaves it."""
    client = MlflowClient()
    run = client.create_run("0", tags={"mlflow.project.entryPoint": entry_point})
    for key, value in parameters.items():
        client.log_param(run.info.run_id, key, value)
    client.set_terminated(run.info.run_id, status)
    return client.get_run(run.info.run_id)


def test_the_parameters_of_train_become_texts_and_the_model_gets_its_default_name() -> None:
    options = WorkflowOptions.from_parameters(PARAMETERS)

    assert options.training == {
        "env": "CartPole-v1",
        "algo": "ppo",
        "timesteps": "",
        "seed": "0",
        "hyperparams": json.dumps({"gamma": 0.9}),
        "wrappers": "[]",
    }
    assert options.model_name == "cartpole-v1-ppo"
    assert options.gate_episodes == 400


@pytest.mark.usefixtures("store")
def test_a_finished_step_with_the_same_parameters_is_reused() -> None:
    step = create_step("log_model", "FINISHED", run_id="1", model_name="agent")
    messages: list[str] = []
    steps = StepRunner("parent", PreviousAttempt("previous", [step]), FileTrust(), messages.append)

    run = steps.run("log_model", {"run_id": "1", "model_name": "agent"})

    assert run.info.run_id == step.info.run_id
    (message,) = messages
    assert message.startswith(f"== log_model: reuses run {step.info.run_id}, which finished")


@pytest.mark.usefixtures("store")
def test_a_finished_training_is_reused_whatever_its_state_folder() -> None:
    step = create_step("train", "FINISHED", algo="ppo", state_folder="/elsewhere")
    steps = StepRunner(
        "parent", PreviousAttempt("previous", [step]), FileTrust(allow_pickle=True), print
    )

    assert steps.train({"algo": "ppo"}, "").info.run_id == step.info.run_id


@pytest.mark.process
@pytest.mark.usefixtures("store")
def test_a_failed_step_stops_the_workflow() -> None:
    options = WorkflowOptions.from_parameters(PARAMETERS | {"env": "Nope-v1"})
    messages: list[str] = []

    with (
        mlflow.start_run() as run,
        pytest.raises(StepFailedError, match=r"Step train failed: .* See the error"),
    ):
        run_workflow(run.info.run_id, options, report=messages.append)

    assert messages == ["== train"]


@pytest.mark.usefixtures("store")
def test_a_missing_signing_key_is_refused_before_any_step() -> None:
    options = WorkflowOptions.from_parameters(PARAMETERS | {"signing_key": "no.pem"})
    messages: list[str] = []

    with (
        mlflow.start_run() as run,
        pytest.raises(mlflow.MlflowException, match=r"'no\.pem' cannot be read"),
    ):
        run_workflow(run.info.run_id, options, report=messages.append)

    assert messages == []
