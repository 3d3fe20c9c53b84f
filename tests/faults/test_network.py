"""Steps behind a network that refuses, delays, cuts or rejects requests to an `mlflow server`."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from mlflow_sb3.flavor import policy_loader
from mlflow_sb3.registry import integrity, versions
from tests.faults import worker
from tests.faults.proxy import Proxy

pytestmark = pytest.mark.postgres

MODEL_NAME = "cartpole-v1-ppo"
SHORT_TRAINING = [
    "--algo",
    "ppo",
    "--timesteps",
    "64",
    "--preset",
    "none",
    "--hyperparams",
    '{"n_steps": 64, "batch_size": 64, "n_epochs": 1}',
]
FAST_RETRIES = {
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0",
    "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0",
}
"""Let MLflow retry as often as by default, but without waiting."""
FAULTS: dict[str, dict[str, Any]] = {
    "refused connections": {"refuse_probability": 0.3},
    "delays": {"delay": 0.1},
    "cut answers": {"cut_probability": 0.3},
    "cut uploads": {"cut_upload_probability": 0.5},
    "HTTP 500": {"reject_probability": 0.3, "reject_status": "500 Internal Server Error"},
    "HTTP 429": {"reject_probability": 0.3, "reject_status": "429 Too Many Requests"},
    "outage": {"reject_probability": 0.9, "reject_status": "503 Service Unavailable"},
}
FAULTS_WITHOUT_TRAINING = ("delays", "cut answers")
"""Faults under which `test_outage.py` trains."""
SEVERE_FAULTS = ("cut answers", "outage")
"""Faults under which hardly any step succeeds, because MLflow does not retry a cut answer."""


class StepRunner:
    """Runs steps as processes that use the tracking server at a port."""

    def __init__(self, folder: Path, port: int) -> None:
        self._folder = folder
        self._variables = FAST_RETRIES | {
            "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}",
            "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        }

    def run(self, name: str, *options: str) -> str | None:
        """Run a step.

        Returns:
            None if it succeeded. Otherwise its error message, which must be a single line.
        """
        log = self._folder / f"{name}.txt"
        exit_code = worker.step(name, *options, variables=self._variables, log=log)
        output = log.read_text()
        assert exit_code in (0, 1), output
        if exit_code == 0:
            return None
        assert output.count("Error: ") == 1, output
        assert "Traceback" not in output, output
        return output.strip().splitlines()[-1]


@pytest.fixture
def training_run_id(mlflow_server: str, tmp_path: Path) -> str:
    """A training run whose agent is version 1 and the champion."""
    runner = StepRunner(tmp_path, _port(mlflow_server))
    assert runner.run("train", *SHORT_TRAINING, "--state-folder", str(tmp_path)) is None
    run_id = str(MlflowClient().search_runs(["0"])[0].info.run_id)
    assert runner.run("log_model", "--run-id", run_id) is None
    force = ("--rule", "force", "--reason", "the first champion")
    assert runner.run("promote", "--model-name", MODEL_NAME, *force) is None
    return run_id


def test_every_step_succeeds_or_reports_an_error_and_every_version_is_complete(
    mlflow_server: str, training_run_id: str, tmp_path: Path
) -> None:
    errors = {}
    for fault, settings in FAULTS.items():
        running_before = find_running_runs()
        with Proxy(_port(mlflow_server)).running() as proxy:
            vars(proxy).update(settings)
            runner = StepRunner(tmp_path, proxy.port)

            errors[fault] = run_steps(
                runner, training_run_id, tmp_path, is_training=fault not in FAULTS_WITHOUT_TRAINING
            )

            assert proxy.fault_count + proxy.cut_count > 0 or proxy.delay
        if fault not in SEVERE_FAULTS:
            failures = [error for error in errors[fault] if error is not None]
            assert None in errors[fault][1:], errors[fault]
            # the server may not have received the status of a step that failed
            assert len(find_running_runs() - running_before) <= len(failures)
    entities = MlflowClient().search_model_versions(f"name='{MODEL_NAME}'")
    for entity in entities:
        assert_complete(int(entity.version))
    assert errors["delays"] == [None] * 4
    assert None not in errors["outage"]
    assert len(entities) > 1


def run_steps(
    runner: StepRunner, run_id: str, state_folder: Path, *, is_training: bool
) -> list[str | None]:
    """Run all steps, and return the error message of each."""
    train_options = ("--state-folder", str(state_folder), "--delivery-timeout", "10")
    return [
        runner.run("train", *SHORT_TRAINING, *train_options) if is_training else None,
        runner.run("log_model", "--run-id", run_id),
        runner.run("promote", "--model-name", MODEL_NAME),
        runner.run("evaluate", "--model-name", MODEL_NAME, "--episodes", "3"),
    ]


def find_running_runs() -> set[str]:
    """Return the ids of the runs that have not ended."""
    runs = MlflowClient().search_runs(["0"], "attributes.status = 'RUNNING'")
    return {run.info.run_id for run in runs}


def assert_complete(number: int) -> None:
    """Check all files of a version against its digest, and the agent's against `agent.json`."""
    with integrity.fetch_version(versions.find_version(MODEL_NAME, number=number)) as folder:
        digests = json.loads((folder / "agent" / "agent.json").read_text())["digests"]
        assert policy_loader.open_policy(folder) is not None
        for name, digest in digests.items():
            assert hashlib.sha256((folder / "agent" / name).read_bytes()).hexdigest() == digest


def _port(uri: str) -> int:
    return int(uri.rpartition(":")[2])
