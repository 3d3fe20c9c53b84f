"""Define what the functions of the life cycle return."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from mlflow_sb3.envs import rollout
from mlflow_sb3.envs.rollout import Episodes
from mlflow_sb3.promotion.record import PromotionRecord, RecordedVerdict
from mlflow_sb3.registry import names
from mlflow_sb3.registry.model_version import Version

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

    from mlflow_sb3.registry.signing import KeyPath
    from mlflow_sb3.training.loop import TrainingResult


@dataclass(frozen=True, eq=False)
class EvaluateResult:
    """Episodes of an agent.

    Attributes:
        mean_return: Mean return of the episodes.
        std_return: Standard deviation of the returns, with the divisor n.
        n_episodes: Number of episodes.
        success_rate: Fraction of successful episodes. None if the environment reports no success.
        name: Name of the registered model. None if the agent is not registered.
        version: Number of its version.
        run_id: Run with the metrics and the table of episodes. None if no run was active.
        returns: Return of each episode, shape ``(n,)``.
        lengths: Environment steps of each episode, shape ``(n,)``.
        seeds: Seed of each episode, shape ``(n,)``.
    """

    mean_return: float
    std_return: float
    n_episodes: int
    success_rate: float | None
    name: str | None
    version: int | None
    run_id: str | None
    returns: NDArray[np.float64] = field(repr=False)
    lengths: NDArray[np.int64] = field(repr=False)
    seeds: NDArray[np.int64] = field(repr=False)

    @classmethod
    def from_episodes(
        cls, episodes: Episodes, *, version: Version | None, run_id: str | None
    ) -> Self:
        """Summarize episodes."""
        summary = rollout.summarize_returns(episodes)
        return cls(
            mean_return=summary.mean_return,
            std_return=summary.std_return,
            n_episodes=summary.episodes,
            success_rate=episodes.success_rate,
            name=None if version is None else version.name,
            version=None if version is None else version.number,
            run_id=run_id,
            returns=episodes.returns,
            lengths=episodes.lengths,
            seeds=episodes.seeds,
        )


@dataclass(frozen=True)
class PromoteResult:
    """Decision about a challenger.

    Attributes:
        verdict: ``promote``, ``reject``, ``tie`` or ``inconclusive``.
        is_promoted: Whether this call gave the alias to the version.
        name: Name of the registered model.
        version: Number of the challenger.
        alias: Alias that the winner gets.
        mean_difference: Mean return of the challenger minus that of the champion, or minus that of
            random actions if there is no champion. None if no episodes were played.
        run_id: Run with ``promotion.json``.
        reason: The verdict in sentences.
    """

    verdict: RecordedVerdict
    is_promoted: bool
    name: str
    version: int
    alias: str
    mean_difference: float | None
    run_id: str
    reason: str

    @classmethod
    def from_record(cls, record: PromotionRecord) -> Self:
        """Summarize the record of a promotion."""
        return cls(
            verdict=record.verdict,
            is_promoted=record.is_accepted,
            name=record.context.challenger.name,
            version=record.context.challenger.number,
            alias=record.context.alias,
            mean_difference=None if record.evidence is None else record.evidence.mean_difference,
            run_id=record.context.run_id,
            reason=record.reason,
        )


@dataclass(frozen=True)
class RollbackResult:
    """Version that has the alias after a rollback.

    Attributes:
        name: Name of the registered model.
        version: Number of the version that has the alias again.
        alias: Alias that moved back.
        run_id: Run with ``promotion.json``.
        reason: What happened, in sentences.
    """

    name: str
    version: int
    alias: str
    run_id: str
    reason: str

    @classmethod
    def from_record(cls, record: PromotionRecord) -> Self:
        """Summarize the record of a rollback."""
        context = record.context
        restored = context.challenger
        return cls(restored.name, restored.number, context.alias, context.run_id, record.reason)


@dataclass(frozen=True, eq=False)
class TrainResult:
    """A trained agent.

    Attributes:
        mean_return: Mean return of the kept checkpoint over new episodes after the training.
        step: Training step of the kept checkpoint.
        run_id: Run of the training.
        reason: Which checkpoint was kept, in a sentence.
        returns: Returns of the new episodes.
        model: SB3 algorithm with the weights of the kept checkpoint.
    """

    mean_return: float
    step: int
    run_id: str
    reason: str
    returns: list[float] = field(repr=False)
    model: BaseAlgorithm = field(repr=False)

    @classmethod
    def from_training(cls, result: TrainingResult, run_id: str) -> Self:
        """Summarize a training."""
        best = result.best
        return cls(best.score, best.step, run_id, result.describe(), best.returns, result.model)

    def register(self, name: str, *, signing_key: KeyPath | None = None) -> int:
        """Log the agent as a model of its run, and register it with the alias ``challenger``.

        The model has a card with everything that the run knows about the training.

        Args:
            name: Name of the registered model.
            signing_key: PEM file of the Ed25519 private key that signs the version.

        Returns:
            Number of the new version.

        Raises:
            MlflowException: The agent cannot be exported, or a permission is missing.
        """
        from mlflow_sb3.training import training_run

        trained = training_run.load_training_run(self.run_id)
        alias = names.CHALLENGER_ALIAS
        return trained.log_model(name, alias=alias, signing_key=signing_key).number
