"""Tests of the command class: runs, errors and signals."""

from __future__ import annotations

import signal
import socket
import sys
import time
from pathlib import Path

import click
import mlflow
import pytest
from mlflow import MlflowClient

from mlflow_sb3.cli.step import Step
from mlflow_sb3.cli.train import train
from mlflow_sb3.runs import signals
from mlflow_sb3.runs.signals import Interrupted
from tests import ROOT
from tests.cli.commands import TINY_TRAINING, assert_fails, get_last_run, invoke
from tests.project.conftest import Place

S3_VARIABLES = {
    "MLFLOW_S3_ENDPOINT_URL": "http://127.0.0.1:9",
    "AWS_ACCESS_KEY_ID": "nobody",
    "AWS_SECRET_ACCESS_KEY": "nothing",
    "AWS_MAX_ATTEMPTS": "1",
}
"""Settings of an object store that cannot be reached."""


@click.command(cls=Step)
def failing_step() -> None:
    raise KeyError("missing")


@pytest.mark.usefixtures("store")
def test_an_unexpected_error_is_one_line_and_its_traceback_is_an_artifact() -> None:
    assert_fails(invoke(failing_step), 1, "KeyError: 'missing'")
    error = mlflow.artifacts.load_text(f"{get_last_run().info.artifact_uri}/error.txt")
    assert "Traceback" in error


@pytest.mark.usefixtures("store")
def test_an_unreachable_artifact_store_does_not_hide_the_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in S3_VARIABLES.items():
        monkeypatch.setenv(name, value)
    experiment = mlflow.create_experiment("away", artifact_location="s3://away")
    mlflow.set_experiment(experiment_id=experiment)

    assert_fails(invoke(failing_step), 1, "KeyError: 'missing'")


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    ("error", "code"),
    [(LookupError(), 1), (Interrupted(signal.SIGTERM), 143)],
    ids=["error", "SIGTERM"],
)
def test_an_error_after_the_end_of_the_run_keeps_the_run_finished(
    error: BaseException, code: int
) -> None:
    @click.command(cls=Step)
    @click.pass_context
    def finished_step(context: click.Context) -> None:
        MlflowClient().set_terminated(context.obj)
        raise error

    result = invoke(finished_step)

    assert result.exit_code == code
    assert get_last_run().info.status == "FINISHED"
    assert not {"error", signals.INTERRUPTED_TAG} & set(get_last_run().data.tags)


@pytest.mark.usefixtures("store")
def test_an_error_after_sigterm_keeps_the_run_killed() -> None:
    @click.command(cls=Step)
    def interrupted_step() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            raise ConnectionError("the server is away")

    result = invoke(interrupted_step)

    run = get_last_run()
    assert result.exit_code == 143
    assert run.info.status == "KILLED"
    assert run.data.tags[signals.INTERRUPTED_TAG] == "SIGTERM"
    assert "error" not in run.data.tags


def test_an_unreachable_server_is_reported_in_one_line(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    mlflow.set_tracking_uri("http://127.0.0.1:9")

    result = invoke(train, *TINY_TRAINING)

    mlflow.set_tracking_uri(store)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert "http://127.0.0.1:9 does not answer" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.process
def test_an_artifact_store_that_does_not_answer_fails_the_training_within_75_seconds(
    store: str, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        experiment = mlflow.create_experiment("silent", artifact_location="s3://silent")
        variables = {
            "MLFLOW_S3_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": "nobody",
            "AWS_SECRET_ACCESS_KEY": "nothing",
            "MLFLOW_EXPERIMENT_ID": experiment,
            "PYTHONPATH": str(ROOT),
        }
        start = time.monotonic()
        done = Place(tmp_path, variables).run([sys.executable, "-m", "steps.train", *TINY_TRAINING])
        seconds = time.monotonic() - start

    (run,) = MlflowClient(store).search_runs([experiment])
    lines = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert done.returncode == 1
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("Error: artifacts cannot be written to s3://silent/")
    assert run.info.status == "FAILED"
    assert lines[0] == f"Error: {run.data.tags['error']}"
    assert seconds < 75, seconds


HANGING_UPLOAD = """
import threading, time
from concurrent.futures import ThreadPoolExecutor
import click
from mlflow_sb3.cli.step import Step

def upload():
    ThreadPoolExecutor(1).submit(time.sleep, 3600).result()

@click.command(cls=Step)
def step():
    thread = threading.Thread(target=upload, daemon=True)
    thread.start()
    thread.join(0.5)

step()
"""


@pytest.mark.process
def test_a_hanging_upload_does_not_keep_the_process_alive(store: str, tmp_path: Path) -> None:
    place = Place(tmp_path, {"PYTHONPATH": str(ROOT)})

    done = place.run([sys.executable, "-c", HANGING_UPLOAD], timeout=300)

    assert done.returncode == 0, done.stderr
    assert [run.info.status for run in MlflowClient(store).search_runs(["0"])] == ["FINISHED"]
