"""Define ``Version``, one version of a registered model."""

from __future__ import annotations

from dataclasses import dataclass

from mlflow.entities.model_registry import ModelVersion

VERSION_TAG = "mlflow_sb3.version"
"""Tag of a run: ``name/number`` of the version that the run registered, promoted or evaluated."""
DIGEST_TAG = "mlflow_sb3.digest"
"""Tag of a model version: SHA-256 digest of its files, see ``digest.hash_folder``.

A training run has this tag and the next one for the file of its agent.
"""
SIGNATURE_TAG = "mlflow_sb3.signature"
"""Tag of a model version: Ed25519 signature of the digest, in base64."""
MACHINE_SIGNATURE_TAG = "mlflow.sb3.machine_signature"
"""Tag of a model version: signature by the key of the machine that registered it."""


@dataclass(frozen=True)
class Version:
    """One version of a registered model.

    Attributes:
        name: Name of the registered model.
        number: Number of the version, from 1.
        model_id: Id of the logged model, ``m-…``.
        run_id: Id of the run that logged the model.
        digest: Value of the tag ``mlflow_sb3.digest``.
        signature: Value of the tag ``mlflow_sb3.signature``.
    """

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
        """Model URI of this version, such as ``models:/cartpole-v1-dqn/3``."""
        return f"models:/{self}"

    @classmethod
    def from_mlflow(cls, entity: ModelVersion) -> Version:
        """Convert MLflow's entity.

        Its ``version`` is a string over REST and an integer with SQLite. Its ``model_id`` may be
        missing; then the source has it.
        """
        return cls(
            name=entity.name,
            number=int(entity.version),
            model_id=entity.model_id or str(entity.source).removeprefix("models:/"),
            run_id=entity.run_id or None,
            digest=entity.tags.get(DIGEST_TAG),
            signature=entity.tags.get(SIGNATURE_TAG),
        )
