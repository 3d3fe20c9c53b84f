"""What a promotion run holds: the record, the table and the picture of its games, metrics and tags."""

from __future__ import annotations

import json
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException

from mlflow_sb3.client import permissions
from mlflow_sb3.client.registry_client import RegistryClient
from mlflow_sb3.promotion import record, report_text
from mlflow_sb3.promotion.record import PromotionRecord
from mlflow_sb3.registry.model_version import Version
from mlflow_sb3.reports import plots

MAX_TEXT = 5000
"""Characters of a description, and of a tag, that every database takes."""
PROMOTION_JSON = "promotion.json"
_VERDICT, _REASON, _RUN = "mlflow_sb3.verdict", "mlflow_sb3.reason", "mlflow_sb3.promotion_run"


def log_games(promotion: PromotionRecord, version: Version) -> None:
    """Put what can be made from a record into the active run: metrics, the table and the picture of the games."""
    if "episodes" not in promotion:
        return
    folder = f"promotion/{len(promotion['earlier']) + 1}" if promotion["earlier"] else "promotion"
    permissions.log_metrics(record.record_metrics(promotion), version.model_id)
    mlflow.log_table(promotion["episodes"], f"{folder}/episodes.json")
    mlflow.log_figure(plots.plot_pairs(promotion), f"{folder}/returns.png")


def write_record(promotion: PromotionRecord, version: Version) -> None:
    """Put a record into the active run, and its verdict on the version: before any alias moves, so that none moves without."""
    log_record(promotion)
    client, number = RegistryClient(), str(version.number)
    tags = {
        _VERDICT: promotion["verdict"],
        _REASON: promotion["reason"][:MAX_TEXT],
        _RUN: promotion["run_id"],
    }
    for key, value in tags.items():
        client.set_model_version_tag(version.name, number, key, value)
    before = client.get_model_version(version.name, number).description
    client.update_model_version(
        version.name, number, report_text.version_description(promotion, before, MAX_TEXT)
    )


def log_record(promotion: PromotionRecord) -> None:
    """Put a record into the active run, and its verdict as a tag."""
    mlflow.log_text(json.dumps(promotion, indent=2, allow_nan=False), PROMOTION_JSON)
    mlflow.set_tags(
        {
            "mlflow_sb3.version": report_text.challenger_name(promotion),
            _VERDICT: promotion["verdict"],
        }
    )


def load_record(run_id: str) -> PromotionRecord:
    """Read the record of a run.

    Raises:
        MlflowException: The run does not exist, or holds no record that this version of the package reads.
    """
    run = RegistryClient().get_run(run_id)
    try:
        found: dict[str, Any] = json.loads(
            mlflow.artifacts.load_text(f"{run.info.artifact_uri}/{PROMOTION_JSON}")
        )
    except (MlflowException, OSError, ValueError) as error:
        raise MlflowException.invalid_parameter_value(
            f"run {run_id} holds no {PROMOTION_JSON}; give the id of a run of the entry point promote."
        ) from error
    if found["schema"] != record.PROMOTION_SCHEMA:
        raise MlflowException.invalid_parameter_value(
            f"{PROMOTION_JSON} of run {run_id} has the schema {found['schema']}, and this version reads {record.PROMOTION_SCHEMA}; "
            "take the version that wrote it."
        )
    return found
