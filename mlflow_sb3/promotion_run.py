"""What a promotion run holds: the record, the table and the picture of its games, metrics and tags."""

from __future__ import annotations

import json
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException

from mlflow_sb3 import pictures, record, rights, words
from mlflow_sb3.client import Client
from mlflow_sb3.record import Record
from mlflow_sb3.registry import Version

LONGEST = 5000
"""Characters of a description, and of a tag, that every database takes."""
RECORD = "promotion.json"
_VERDICT, _REASON, _RUN = "mlflow_sb3.verdict", "mlflow_sb3.reason", "mlflow_sb3.promotion_run"


def illustrate(promotion: Record, version: Version) -> None:
    """Put what can be made from a record into the active run: metrics, the table and the picture of the games."""
    if "episodes" not in promotion:
        return
    folder = f"promotion/{len(promotion['earlier']) + 1}" if promotion["earlier"] else "promotion"
    rights.log_metrics(record.metrics(promotion), version.model_id)
    mlflow.log_table(promotion["episodes"], f"{folder}/episodes.json")
    mlflow.log_figure(pictures.paired(promotion), f"{folder}/returns.png")


def write(promotion: Record, version: Version) -> None:
    """Put a record into the active run, and its verdict on the version: before any alias moves, so that none moves without."""
    log(promotion)
    client, number = Client(), str(version.number)
    tags = {_VERDICT: promotion["verdict"], _REASON: promotion["reason"][:LONGEST], _RUN: promotion["run_id"]}
    for key, value in tags.items():
        client.set_model_version_tag(version.name, number, key, value)
    before = client.get_model_version(version.name, number).description
    client.update_model_version(version.name, number, words.description(promotion, before, LONGEST))


def log(promotion: Record) -> None:
    """Put a record into the active run, and its verdict as a tag."""
    mlflow.log_text(json.dumps(promotion, indent=2, allow_nan=False), RECORD)
    mlflow.set_tags({"mlflow_sb3.version": words.challenger(promotion), _VERDICT: promotion["verdict"]})


def load(run_id: str) -> Record:
    """Read the record of a run.

    Raises:
        MlflowException: The run does not exist, or holds no record that this version of the package reads.
    """
    run = Client().get_run(run_id)
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
