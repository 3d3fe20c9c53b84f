from __future__ import annotations

from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient

from mlflow_sb3.tracking import run_logger
from mlflow_sb3.tracking.metric_writer import MetricWriter
from mlflow_sb3.tracking.run_logger import RunLogger


@pytest.mark.usefixtures("store")
def test_every_number_arrives_at_its_step(tmp_path: Path) -> None:
    with mlflow.start_run() as run, RunLogger(run.info.run_id, tmp_path / "run") as told:
        writer = MetricWriter(told)
        for step in range(2500):
            writer.write({"train/loss": np.float32(step) / 2, "time/fps": 3}, {}, step)

    history = MlflowClient().get_metric_history(run.info.run_id, "train/loss")
    assert sorted((point.step, point.value) for point in history) == [
        (step, step / 2) for step in range(2500)
    ]
    assert mlflow.get_run(run.info.run_id).data.metrics["time/fps"] == 3


@pytest.mark.usefixtures("store")
def test_numbers_arrive_while_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_logger, "SEND_INTERVAL", 0.05)
    with mlflow.start_run() as run, RunLogger(run.info.run_id, tmp_path / "run") as told:
        MetricWriter(told).write({"train/loss": 1.0}, {}, 1)
        for _ in range(200):
            if "train/loss" in mlflow.get_run(run.info.run_id).data.metrics:
                break
        else:
            pytest.fail("nothing arrived before the end")


@pytest.mark.usefixtures("store")
def test_text_and_what_excludes_mlflow_are_left_out(tmp_path: Path) -> None:
    with mlflow.start_run() as run, RunLogger(run.info.run_id, tmp_path / "run") as told:
        MetricWriter(told).write(
            {"a": 1, "b": "text", "c": 2, "d": 3}, {"c": ("mlflow",), "d": ("stdout",)}, 0
        )

    assert mlflow.get_run(run.info.run_id).data.metrics == {"a": 1.0, "d": 3.0}


@pytest.mark.usefixtures("store")
def test_numbers_that_are_not_finite_arrive(tmp_path: Path) -> None:
    with mlflow.start_run() as run, RunLogger(run.info.run_id, tmp_path / "run") as told:
        MetricWriter(told).write({"a": np.nan, "b": np.inf, "c": 1.0}, {}, 1)

    assert set(mlflow.get_run(run.info.run_id).data.metrics) == {"a", "b", "c"}


@pytest.mark.usefixtures("store")
def test_a_name_that_the_store_refuses_is_a_warning_and_takes_nothing_with_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with mlflow.start_run() as run, RunLogger(run.info.run_id, tmp_path / "run") as told:
        MetricWriter(told).write({"a": 1.0, "no * name": 1.0, "b": 2.0}, {}, 1)
        MetricWriter(told).write({"c": 3.0}, {}, 2)

    assert mlflow.get_run(run.info.run_id).data.metrics == {"a": 1.0, "b": 2.0, "c": 3.0}
    assert caplog.text.count("the tracking server will not take: no * name: Invalid value") == 1
