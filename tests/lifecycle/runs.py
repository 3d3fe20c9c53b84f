"""Read the runs of a test."""

from __future__ import annotations

import json

import mlflow
from mlflow.entities import Run


def list_runs() -> list[Run]:
    """Return the runs of the active experiment, the oldest first."""
    runs: list[Run] = mlflow.search_runs(output_format="list", order_by=["start_time ASC"])
    return runs


def read_returns(run_id: str, path: str) -> list[float]:
    """Return the column of returns of a table, with all digits."""
    uri = mlflow.get_run(run_id).info.artifact_uri
    table = json.loads(mlflow.artifacts.load_text(f"{uri}/{path}"))
    index = table["columns"].index("return")
    return [row[index] for row in table["data"]]


def get_model_metrics(model_id: str) -> dict[str, float]:
    """Return the metrics of a logged model."""
    metrics = mlflow.get_logged_model(model_id).metrics or []
    return {metric.key: metric.value for metric in metrics}
