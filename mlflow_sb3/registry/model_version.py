"""One version of a registered model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlflow.entities.model_registry import ModelVersion

if TYPE_CHECKING:
    pass

DIGEST_TAG = "mlflow_sb3.digest"
"""Tag of a model version: SHA-256 over a manifest of its files."""

SIGNATURE_TAG = "mlflow_sb3.signature"
"""Tag of a model version: Ed25519 signature of its digest, in base64."""


@dataclass(frozen=True)
class Version:
    """One version of a registered model."""

    name: str
    number: int
    model_id: str
    run_id: str | None
    digest: str | None
    signature: str | None = None

    def __str__(self) -> str:
        return f"{self.name}/{self.number}"

    @property
    def uri(self) -> str:
        """The URI that MLflow loads the version by."""
        return f"models:/{self}"


def from_mlflow(found: ModelVersion) -> Version:
    """MLflow's entity in our words: its ``version`` is text over REST and a number on SQLite, its ``model_id`` only in the source."""
    return Version(
        name=found.name,
        number=int(found.version),
        model_id=found.model_id or str(found.source).removeprefix("models:/"),
        run_id=found.run_id or None,
        digest=found.tags.get(DIGEST_TAG),
        signature=found.tags.get(SIGNATURE_TAG),
    )
