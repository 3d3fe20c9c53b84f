from __future__ import annotations

import logging
import tempfile
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from mlflow_sb3.runs.signals import Interrupted
from mlflow_sb3.tracking import delivery_thread
from mlflow_sb3.tracking import run_logger as run_logger_module
from mlflow_sb3.tracking.delivery import UndeliveredError
from mlflow_sb3.tracking.run_logger import MetricPoint, RunLogger
from mlflow_sb3.tracking.snapshot_uploader import SNAPSHOT_DIR, SNAPSHOT_NAMES


def log_and_raise(run_logger: RunLogger, error: BaseException) -> None:
    """Log a metric, and raise an exception inside the context."""
    with run_logger:
        run_logger.log_metrics([MetricPoint("a", 1.0, 5, 1)])
        raise error


@pytest.mark.usefixtures("store")
def test_parameters_tags_and_files_arrive_and_the_run_finishes(tmp_path: Path) -> None:
    params = {f"p{number}": number for number in range(250)}
    with mlflow.start_run() as run:
        with RunLogger(run.info.run_id, tmp_path / "run") as run_logger:
            run_logger.log_params(params)
            run_logger.set_tags({"tag": "value"})
            run_logger.log_file("nested/folder/file.txt", "content")
            run_logger.log_file("top.bin", b"\x00")
        assert mlflow.get_run(run.info.run_id).info.status == "FINISHED"

    data = mlflow.get_run(run.info.run_id).data
    assert data.params == {key: str(value) for key, value in params.items()}
    assert data.tags["tag"] == "value"
    uri = f"{run.info.artifact_uri}/nested/folder/file.txt"
    assert mlflow.artifacts.load_text(uri) == "content"
    assert "top.bin" in {file.path for file in MlflowClient().list_artifacts(run.info.run_id)}
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("error", "status"), [(Interrupted(15), "KILLED"), (ValueError("no"), "FAILED")]
)
@pytest.mark.usefixtures("store")
def test_an_exception_decides_the_status_and_keeps_the_local_folder(
    error: BaseException, status: str, tmp_path: Path
) -> None:
    run_id = mlflow.start_run().info.run_id

    with pytest.raises(type(error), match=str(error)):
        log_and_raise(RunLogger(run_id, tmp_path / "run"), error)

    run = mlflow.get_run(run_id)
    mlflow.end_run()
    assert (run.info.status, run.data.metrics) == (status, {"a": 1.0})
    assert (tmp_path / "run" / "run.json").exists()


@pytest.mark.usefixtures("store")
def test_an_exception_of_the_training_is_not_replaced_by_a_delivery_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(run_logger_module, "FAILED_RUN_DELIVERY_TIMEOUT", 0)
    mlflow.set_tracking_uri("http://127.0.0.1:9")  # unreachable

    with caplog.at_level(logging.WARNING), pytest.raises(RuntimeError, match="the training error"):
        log_and_raise(RunLogger("run", tmp_path / "run"), RuntimeError("the training error"))

    assert "python -m mlflow_sb3 deliver" in caplog.text


@pytest.mark.usefixtures("store")
def test_points_that_are_logged_twice_are_stored_once(tmp_path: Path) -> None:
    points = [MetricPoint("a", float(step), 1000 + step, step) for step in range(10)]
    with mlflow.start_run() as run:
        for name in ("one", "two"):
            with RunLogger(run.info.run_id, tmp_path / name) as run_logger:
                run_logger.log_metrics(points)

    assert len(MlflowClient().get_metric_history(run.info.run_id, "a")) == 10


@pytest.mark.usefixtures("store")
def test_the_metric_state_has_counts_and_pending_points(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_thread, "SEND_INTERVAL", 1000.0)
    with (
        mlflow.start_run() as run,
        RunLogger(run.info.run_id, tmp_path / "run") as run_logger,
    ):
        run_logger.log_metrics([MetricPoint("a", 1.0, 5, 1), MetricPoint("b", 2.0, 5, 1)])
        run_logger.log_metrics([MetricPoint("a", 3.0, 6, 2)])
        state = run_logger.get_metric_state()

    assert state == {
        "counts": {"a": 2, "b": 1},
        "waiting": [("a", 1.0, 5, 1), ("b", 2.0, 5, 1), ("a", 3.0, 6, 2)],
    }


def test_log_file_keeps_the_latest_snapshot_on_a_full_disk(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk / "tmp"))
    (small_disk / "tmp").mkdir()
    run_logger = RunLogger("run", small_disk / "run")
    older, latest = (small_disk / "run" / SNAPSHOT_DIR / name for name in SNAPSHOT_NAMES)
    older.parent.mkdir()
    for path in (older, latest):
        path.write_bytes(bytes(400_000))
        run_logger.offer_snapshot(path)

    run_logger.log_file("agent/agent.zip", bytes(300_000))

    assert (small_disk / "run" / "files" / "agent" / "agent.zip").stat().st_size == 300_000
    assert (older.exists(), latest.exists()) == (False, True)


@pytest.mark.usefixtures("store")
def test_a_full_artifact_store_is_named(tmp_path: Path, small_disk: Path) -> None:
    client = MlflowClient()
    experiment_id = client.create_experiment("full", artifact_location=small_disk.as_uri())
    run_id = client.create_run(experiment_id).info.run_id

    def log_run() -> None:
        with RunLogger(run_id, tmp_path / "run", delivery_timeout=0) as run_logger:
            run_logger.log_file("agent/agent.zip", bytes(2_000_000))

    with pytest.raises(
        UndeliveredError, match=rf"stored in file://{small_disk}/\S+ \(No space left on device\)"
    ):
        log_run()


@pytest.mark.usefixtures("store")
def test_the_time_of_all_logging_calls_is_measured(tmp_path: Path) -> None:
    with (
        mlflow.start_run() as run,
        RunLogger(run.info.run_id, tmp_path / "run") as run_logger,
    ):
        for _ in range(3):
            run_logger.set_tags({"tag": "value"})

    assert 0 < run_logger.longest_call_seconds < run_logger.total_call_seconds
