"""The file ``training.json`` of a training run: configuration, code and machine, and digests."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

if TYPE_CHECKING:
    from mlflow_sb3.training.config import TrainingConfig

TRAINING_JSON = "training.json"
TRAINING_SCHEMA = 1


@dataclass(frozen=True)
class TrainingFacts:
    """Code and machine of a training. Both can change the last bits of the weights."""

    commit: str | None
    """Git commit of the project. None if the project is not in a git clone."""
    changes: str
    """SHA-256 digest of the uncommitted changes; see ``git.hash_uncommitted_changes``."""
    python: str
    packages: dict[str, str]
    """Versions of all installed packages, by name."""
    cpu: str
    torch_capability: str
    """CPU instruction set that PyTorch uses, such as ``AVX2``."""
    torch_threads: int

    def to_json(self) -> dict[str, Any]:
        """Return the facts as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Create the facts from JSON values."""
        return cls(**values)


@dataclass(frozen=True)
class PolicyDigests:
    """Digests of the weights of a training; see ``loop.compute_weights_digest``."""

    kept: str
    """Digest of the selected checkpoint."""
    last: str
    """Digest of the weights at the end of learning."""


@dataclass(frozen=True)
class FreshEpisodes:
    """Episodes of the selected checkpoint on new seeds, played after learning."""

    competitors: int
    """Checkpoints that played such episodes. The best one was selected."""
    first: int
    """Index of the first episode in the stream ``choice`` of seeds."""
    returns: list[float]


@dataclass(frozen=True)
class TrainingRecord:
    """How an agent was trained, so that ``reproduce`` can train it again."""

    config: TrainingConfig
    facts: TrainingFacts
    policy: PolicyDigests
    episodes: FreshEpisodes | None = None
    """None in records of earlier releases."""

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON values, with the schema version."""
        values = {
            "schema": TRAINING_SCHEMA,
            "recipe": self.config.to_json(),
            "facts": self.facts.to_json(),
            "policy": asdict(self.policy),
        }
        return values if self.episodes is None else values | {"episodes": asdict(self.episodes)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Create a record from JSON values of schema ``TRAINING_SCHEMA``."""
        from mlflow_sb3.training.config import TrainingConfig

        episodes = values.get("episodes")
        return cls(
            TrainingConfig(**values["recipe"]),
            TrainingFacts.from_json(values["facts"]),
            PolicyDigests(**values["policy"]),
            None if episodes is None else FreshEpisodes(**episodes),
        )


def load_training_record(run_id: str) -> tuple[Run, TrainingRecord]:
    """Return a finished run of the entry point ``train``, and its record.

    Raises:
        MlflowException: The run does not exist, its record is missing or cannot be read, or the
            record has another schema.
    """
    run = MlflowClient().get_run(run_id)
    return run, read_record(run)


def read_record(run: Run) -> TrainingRecord:
    """Return the record of a finished run of the entry point ``train``.

    Raises:
        MlflowException: The record is missing or cannot be read, or has another schema.
    """
    run_id = run.info.run_id
    try:
        text = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/{TRAINING_JSON}")
        values: dict[str, Any] = json.loads(text)
    except (MlflowException, OSError, ValueError) as error:
        raise MlflowException.invalid_parameter_value(
            f"Run {run_id} has no readable {TRAINING_JSON}. "
            "Pass the id of a finished run of the entry point train."
        ) from error
    if values["schema"] != TRAINING_SCHEMA:
        raise MlflowException.invalid_parameter_value(
            f"{TRAINING_JSON} of run {run_id} has schema {values['schema']}, but this version of "
            f"mlflow-sb3 reads schema {TRAINING_SCHEMA}. Use the version that wrote it."
        )
    return TrainingRecord.from_json(values)
