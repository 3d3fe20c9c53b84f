from __future__ import annotations

import socket
import time
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from mlflow_sb3.tracking import delivery_thread
from mlflow_sb3.tracking.delivery import UndeliveredError
from mlflow_sb3.tracking.delivery_thread import DeliveryThread
from mlflow_sb3.tracking.journal import Journal
from mlflow_sb3.tracking.journal_sender import JournalSender
from mlflow_sb3.tracking.run_logger import MetricPoint, RunLogger
from tests.processes import wait_until


def start_thread(folder: Path) -> DeliveryThread:
    """Start a thread whose journal has one tag for a new run."""
    with mlflow.start_run() as run:
        pass
    journal = Journal(folder, run.info.run_id, mlflow.get_tracking_uri())
    journal.append(tags={"key": "value"})
    thread = DeliveryThread(JournalSender(journal))
    thread.start()
    return thread


@pytest.mark.usefixtures("store")
def test_entries_are_sent_while_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_thread, "SEND_INTERVAL", 0.05)

    thread = start_thread(tmp_path / "run")

    wait_until(lambda: mlflow.search_runs(filter_string="tags.key = 'value'").size)
    assert thread.finish(timeout=10)


@pytest.mark.usefixtures("store")
def test_entries_are_sent_at_the_end_without_a_timeout(tmp_path: Path) -> None:
    with (
        mlflow.start_run() as run,
        RunLogger(run.info.run_id, tmp_path / "run", delivery_timeout=0) as run_logger,
    ):
        run_logger.log_metrics([MetricPoint("a", 1.0, 5, 1)])

    assert mlflow.get_run(run.info.run_id).data.metrics == {"a": 1.0}


@pytest.mark.usefixtures("store")
def test_the_end_of_a_run_stops_waiting_for_a_silent_artifact_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", endpoint)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "user")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        client = MlflowClient()
        experiment_id = client.create_experiment("silent", artifact_location="s3://silent")
        run_id = client.create_run(experiment_id).info.run_id
        start = time.monotonic()

        with (
            pytest.raises(UndeliveredError, match="did not receive everything"),
            RunLogger(run_id, tmp_path / "run", delivery_timeout=0) as run_logger,
        ):
            run_logger.log_file("file.txt", "content")

        assert time.monotonic() - start < 60
