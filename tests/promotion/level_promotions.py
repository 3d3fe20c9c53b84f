"""Promote the versions of the fixture ``levels``, and read the registry afterwards."""

from __future__ import annotations

import json
from typing import Any

import mlflow
from mlflow import MlflowClient

from mlflow_sb3.promotion.gate import Gate
from mlflow_sb3.promotion.promote import PromotionOptions, promote_version
from mlflow_sb3.promotion.record import GateEvidence, PromotionRecord
from mlflow_sb3.registry.model_version import Version

Levels = list[Version]
QUICK = Gate(episodes=60)
STRICT = Gate(episodes=60, alpha=0.001)
"""Gate for verdicts that must not depend on chance: the seeds differ in every test."""


def promote(version: Version, **options: Any) -> PromotionRecord:
    return promote_version(version, PromotionOptions(**{"gate": QUICK} | options))


def evidence_of(record: PromotionRecord) -> GateEvidence:
    assert record.evidence is not None
    return record.evidence


def read_aliases(name: str = "levels") -> dict[str, int]:
    aliases = MlflowClient().get_registered_model(name).aliases
    return {alias: int(number) for alias, number in aliases.items()}


def read_tags(version: Version) -> dict[str, str]:
    entity = MlflowClient().get_model_version(version.name, str(version.number))
    tags: dict[str, str] = entity.tags
    return tags


def read_description(version: Version) -> str:
    entity = MlflowClient().get_model_version(version.name, str(version.number))
    return str(entity.description)


def read_promotion_json() -> dict[str, Any]:
    """Read promotion.json of the active run."""
    run = mlflow.active_run()
    assert run is not None
    content: dict[str, Any] = json.loads(
        mlflow.artifacts.load_text(f"{run.info.artifact_uri}/promotion.json")
    )
    return content
