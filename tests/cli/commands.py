"""Call steps in this process, and check how they ended."""

from __future__ import annotations

import click
import mlflow
from click.testing import CliRunner, Result
from mlflow import MlflowClient
from mlflow.entities import Run

TINY_TRAINING = [
    "--algo",
    "ppo",
    "--timesteps",
    "64",
    "--preset",
    "none",
    "--hyperparams",
    '{"n_steps": 64}',
    "--selection",
    "best",
    "--eval-episodes",
    "5",
]
"""Options of a training that takes a second."""


def invoke(command: click.Command, *arguments: str) -> Result:
    return CliRunner().invoke(command, list(arguments))


def succeed(command: click.Command, *arguments: str) -> Run:
    """Call a step that must succeed, and return its run."""
    result = invoke(command, *arguments)
    assert result.exit_code == 0, result.output
    return get_last_run()


def get_last_run() -> Run:
    run = mlflow.last_active_run()
    assert run is not None
    return mlflow.get_run(run.info.run_id)


def list_artifacts(run: Run, folder: str | None = None) -> set[str]:
    return {file.path for file in MlflowClient().list_artifacts(run.info.run_id, folder)}


def assert_fails(result: Result, code: int, message: str) -> None:
    """Check the exit code, the single error line, and the same line in the tag of the run."""
    lines = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    run = get_last_run()
    assert result.exit_code == code, result.output
    assert len(lines) == 1, result.output
    assert message in lines[0], lines[0]
    assert run.info.status == "FAILED"
    assert lines[0] == f"Error: {run.data.tags['error']}"
