from __future__ import annotations

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mlflow_sb3 import settings, tracking
from mlflow_sb3.tracking import MetricWriter

AWAY = "http://127.0.0.1:9"


@pytest.mark.usefixtures("store")
def test_every_number_arrives_at_its_step() -> None:
    with mlflow.start_run() as run, MetricWriter(run.info.run_id) as writer:
        for step in range(2500):
            writer.write({"train/loss": np.float32(step) / 2, "time/fps": 3}, {}, step)

    history = MlflowClient().get_metric_history(run.info.run_id, "train/loss")
    assert sorted((point.step, point.value) for point in history) == [(step, step / 2) for step in range(2500)]
    assert mlflow.get_run(run.info.run_id).data.metrics["time/fps"] == 3


@pytest.mark.usefixtures("store")
def test_numbers_arrive_while_training_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "INTERVAL", 0.05)
    with mlflow.start_run() as run, MetricWriter(run.info.run_id) as writer:
        writer.write({"train/loss": 1.0}, {}, 1)
        for _ in range(200):
            if "train/loss" in mlflow.get_run(run.info.run_id).data.metrics:
                break
        else:
            pytest.fail("nothing arrived before the end")


@pytest.mark.usefixtures("store")
def test_text_and_what_excludes_mlflow_are_left_out() -> None:
    with mlflow.start_run() as run, MetricWriter(run.info.run_id) as writer:
        writer.write({"a": 1, "b": "text", "c": 2, "d": 3}, {"c": ("mlflow",), "d": ("stdout",)}, 0)

    assert mlflow.get_run(run.info.run_id).data.metrics == {"a": 1.0, "d": 3.0}


def test_what_cannot_be_delivered_is_raised_on_leaving(store: str) -> None:
    mlflow.set_tracking_uri(AWAY)
    try:
        with (
            settings.during({"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}),
            pytest.raises(MlflowException, match=r"Connection refused|Max retries"),
            MetricWriter("0" * 32) as writer,
        ):
            writer.write({"a": 1}, {}, 0)
    finally:
        mlflow.set_tracking_uri(store)


def test_a_training_that_fails_says_why_it_failed_and_not_what_was_not_delivered(store: str) -> None:
    def fail() -> None:
        with MetricWriter("0" * 32) as writer:
            writer.write({"a": 1}, {}, 0)
            raise RuntimeError("the training itself")

    mlflow.set_tracking_uri(AWAY)
    with settings.during({"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}), pytest.raises(RuntimeError, match="the training itself"):
        fail()
    mlflow.set_tracking_uri(store)


@pytest.mark.usefixtures("store")
def test_a_name_that_the_store_refuses_fails_on_leaving() -> None:
    with mlflow.start_run() as run, pytest.raises(MlflowException, match="Invalid value"), MetricWriter(run.info.run_id) as writer:
        writer.write({"no * name": 1.0}, {}, 1)


@pytest.mark.usefixtures("store")
def test_numbers_that_are_not_finite_arrive() -> None:
    with mlflow.start_run() as run, MetricWriter(run.info.run_id) as writer:
        writer.write({"a": np.nan, "b": np.inf, "c": 1.0}, {}, 1)

    assert set(mlflow.get_run(run.info.run_id).data.metrics) == {"a", "b", "c"}
