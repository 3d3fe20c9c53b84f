"""What a promotion run holds: the record, the table and the picture of its games, metrics and tags."""

from __future__ import annotations

import json
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mlflow_sb3 import pictures, record, words
from mlflow_sb3.record import Record
from mlflow_sb3.registry import Version

RECORD = "promotion.json"
_VERDICT, _REASON, _RUN = "mlflow_sb3.verdict", "mlflow_sb3.reason", "mlflow_sb3.promotion_run"


def write(promotion: Record, version: Version) -> None:
    """Put the record into the active run, and the verdict on the version: before any alias moves, so that none moves without."""
    mlflow.log_dict(promotion, RECORD)
    client, number = MlflowClient(), str(version.number)
    tags = {_VERDICT: promotion["verdict"], _REASON: promotion["reason"][:5000], _RUN: promotion["run_id"]}
    for key, value in tags.items():
        client.set_model_version_tag(version.name, number, key, value)
    before = client.get_model_version(version.name, number).description
    client.update_model_version(version.name, number, words.description(promotion, before))


def illustrate(promotion: Record, version: Version) -> None:
    """Put what can be made from the record beside it: metrics, the table, the picture and the tags of the run."""
    mlflow.set_tags({"mlflow_sb3.version": str(version), _VERDICT: promotion["verdict"]})
    if "episodes" not in promotion:
        return
    mlflow.log_metrics(record.metrics(promotion), model_id=version.model_id)
    mlflow.log_table(promotion["episodes"], "promotion/episodes.json")
    mlflow.log_figure(pictures.paired(promotion), "promotion/returns.png")


def load(run_id: str) -> Record:
    """Read the record of a run.

    Raises:
        MlflowException: The run does not exist, or holds no record that this version of the package reads.
    """
    run = MlflowClient().get_run(run_id)
    try:
        found: dict[str, Any] = json.loads(mlflow.artifacts.load_text(f"{run.info.artifact_uri}/{RECORD}"))
    except (MlflowException, OSError, ValueError) as error:
        raise MlflowException.invalid_parameter_value(
            f"run {run_id} holds no {RECORD}; give the id of a run of the entry point promote."
        ) from error
    if found["schema"] != record.SCHEMA:
        raise MlflowException.invalid_parameter_value(
            f"{RECORD} of run {run_id} has the schema {found['schema']}, and this version reads {record.SCHEMA}; "
            "take the version that wrote it."
        )
    return found
