"""Collect the parts of a promotion record: context, evidence and metrics."""

from __future__ import annotations

import importlib.metadata
import math
from dataclasses import asdict

from mlflow.entities import Run

from mlflow_sb3.envs import rollout
from mlflow_sb3.envs.rollout import Episodes
from mlflow_sb3.promotion import confidence
from mlflow_sb3.promotion.confidence import ConfidenceBounds
from mlflow_sb3.promotion.gate import Comparison, compute_worst_returns_mean
from mlflow_sb3.promotion.matchup import Matchup
from mlflow_sb3.promotion.record import (
    EpisodePairs,
    EpisodeSummary,
    GateEvidence,
    PromotionContext,
    RecordedBounds,
    RecordedLook,
    Rule,
    hash_seeds,
)
from mlflow_sb3.registry.model_version import Version

_PACKAGES = ("mlflow", "numpy", "scipy", "onnxruntime", "gymnasium")


def collect_context(
    run: Run, challenger: Version, champion: Version | None, *, alias: str, rule: Rule
) -> PromotionContext:
    """Collect everything that is known before the decision.

    Args:
        run: Active run, with its tags.
        challenger: Version to promote, or the version that a rollback restores.
        champion: Version that has the alias; None if no version has it.
        alias: Alias that the challenger may get.
        rule: How the promotion is decided.
    """
    tags = run.data.tags
    return PromotionContext(
        rule=rule,
        alias=alias,
        challenger=challenger,
        champion=champion,
        run_id=run.info.run_id,
        user=tags.get("mlflow.user"),
        commit=tags.get("mlflow.source.git.commit"),
        time=run.info.start_time,
        versions={name: importlib.metadata.version(name) for name in _PACKAGES},
    )


def collect_evidence(matchup: Matchup, comparison: Comparison) -> GateEvidence:
    """Collect the results of a gate in a form that JSON can store."""
    alpha, last_look = comparison.gate.alpha, comparison.looks[-1]
    is_tie = comparison.verdict == "tie"
    return GateEvidence(
        gate=comparison.gate,
        environment=matchup.environment,
        seeds=hash_seeds(comparison.challenger.seeds.tolist()),
        looks=[
            RecordedLook(
                pairs=look.pairs,
                mean_difference=look.mean_difference,
                **asdict(_record_bounds(look.bounds)),
            )
            for look in comparison.looks
        ],
        mean_difference=last_look.mean_difference,
        lower_bound=_finite_or_none(last_look.bounds.lower),
        upper_bound=_finite_or_none(last_look.bounds.upper),
        probability_of_improvement=comparison.probability_of_improvement,
        smallest_detectable_difference=confidence.compute_smallest_detectable_difference(
            comparison.samples, alpha
        ),
        largest_share_of_other_pairs=(
            confidence.bound_unseen_probability(last_look.pairs, alpha) if is_tie else None
        ),
        all_returns_equal=comparison.has_equal_returns,
        reward_threshold=matchup.reward_threshold,
        challenger_episodes=_summarize(comparison.challenger),
        champion_episodes=_summarize(comparison.champion),
        challenger_return_bounds=(
            None
            if comparison.challenger_bounds is None
            else _record_bounds(comparison.challenger_bounds)
        ),
        episodes=EpisodePairs.from_episodes(comparison.challenger, comparison.champion),
        is_paired=comparison.is_paired,
    )


def build_metrics(evidence: GateEvidence) -> dict[str, float]:
    """Return the metrics of a gate, ``promotion/...``; unknown values are left out."""
    values: dict[str, float | None] = {
        "pairs": len(evidence.episodes.seed),
        "mean_difference": evidence.mean_difference,
        "lower_bound": evidence.lower_bound,
        "upper_bound": evidence.upper_bound,
        "probability_of_improvement": evidence.probability_of_improvement,
        "smallest_detectable_difference": evidence.smallest_detectable_difference,
    }
    for name, summary in (
        ("challenger", evidence.challenger_episodes),
        ("champion", evidence.champion_episodes),
    ):
        values |= {f"{name}_{key}": value for key, value in asdict(summary).items()}
    return {f"promotion/{key}": float(value) for key, value in values.items() if value is not None}


def _record_bounds(bounds: ConfidenceBounds) -> RecordedBounds:
    values = asdict(bounds) | {"lower": bounds.lower, "upper": bounds.upper}
    return RecordedBounds(**{key: _finite_or_none(value) for key, value in values.items()})


def _finite_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _summarize(episodes: Episodes) -> EpisodeSummary:
    summary = asdict(rollout.summarize_returns(episodes))
    return EpisodeSummary(
        **summary,
        worst_return=compute_worst_returns_mean(episodes.returns),
        success_rate=episodes.success_rate,
    )
