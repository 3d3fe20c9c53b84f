from __future__ import annotations

from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient

from mlflow_sb3.tracking import delivery_thread
from mlflow_sb3.tracking.metric_writer import MetricWriter
from mlflow_sb3.tracking.run_logger import RunLogger
from tests.processes import wait_until


@pytest.mark.usefixtures("store")
def test_every_number_is_logged_at_its_step(tmp_path: Path) -> None:
    with (
        mlflow.start_run() as run,
        RunLogger(run.info.run_id, tmp_path / "run") as run_logger,
    ):
        writer = MetricWriter(run_logger)
        for step in range(2500):
            writer.write({"train/loss": np.float32(step) / 2, "time/fps": 3}, {}, step)

    history = MlflowClient().get_metric_history(run.info.run_id, "train/loss")
    assert sorted((point.step, point.value) for point in history) == [
        (step, step / 2) for step in range(2500)
    ]
    assert mlflow.get_run(run.info.run_id).data.metrics["time/fps"] == 3


@pytest.mark.usefixtures("store")
def test_metrics_arrive_while_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_thread, "SEND_INTERVAL", 0.05)
    with (
        mlflow.start_run() as run,
        RunLogger(run.info.run_id, tmp_path / "run") as run_logger,
    ):
        MetricWriter(run_logger).write({"train/loss": 1.0}, {}, 1)
        wait_until(lambda: "train/loss" in mlflow.get_run(run.info.run_id).data.metrics)


@pytest.mark.usefixtures("store")
def test_text_and_keys_that_exclude_mlflow_are_skipped(tmp_path: Path) -> None:
    with (
        mlflow.start_run() as run,
        RunLogger(run.info.run_id, tmp_path / "run") as run_logger,
    ):
        MetricWriter(run_logger).write(
            {"a": 1, "b": "text", "c": 2, "d": 3}, {"c": ("mlflow",), "d": ("stdout",)}, 0
        )

    assert mlflow.get_run(run.info.run_id).data.metrics == {"a": 1.0, "d": 3.0}


@pytest.mark.usefixtures("store")
def test_nan_and_infinite_values_are_logged(tmp_path: Path) -> None:
    with (
        mlflow.start_run() as run,
        RunLogger(run.info.run_id, tmp_path / "run") as run_logger,
    ):
        MetricWriter(run_logger).write({"a": np.nan, "b": np.inf, "c": 1.0}, {}, 1)

    assert set(mlflow.get_run(run.info.run_id).data.metrics) == {"a", "b", "c"}


@pytest.mark.usefixtures("store")
def test_a_rejected_name_is_a_warning_and_the_other_metrics_arrive(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        mlflow.start_run() as run,
        RunLogger(run.info.run_id, tmp_path / "run") as run_logger,
    ):
        MetricWriter(run_logger).write({"a": 1.0, "no * name": 1.0, "b": 2.0}, {}, 1)
        MetricWriter(run_logger).write({"c": 3.0}, {}, 2)

    assert mlflow.get_run(run.info.run_id).data.metrics == {"a": 1.0, "b": 2.0, "c": 3.0}
    rejection = "The tracking server rejected: no * name: Invalid value"
    assert caplog.text.count(rejection) == 1
