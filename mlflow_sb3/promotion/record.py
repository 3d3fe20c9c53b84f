"""``promote.json``: who was promoted or not, by whom and by which rule, on which evidence."""

from __future__ import annotations

import hashlib
import importlib.metadata
import math
from dataclasses import asdict
from typing import Any

from mlflow.entities import Run

from mlflow_sb3.envs import rollout
from mlflow_sb3.envs.rollout import Episodes
from mlflow_sb3.promotion import confidence
from mlflow_sb3.promotion.confidence import ConfidenceBounds
from mlflow_sb3.promotion.gate import Comparison, worst_returns_mean
from mlflow_sb3.promotion.matchup import Matchup
from mlflow_sb3.registry.model_version import Version

PROMOTION_SCHEMA = 2
"""Of ``promote.json``; rises when the meaning of a key changes."""

_PACKAGES = ("mlflow", "numpy", "scipy", "onnxruntime", "gymnasium")

PromotionRecord = dict[str, Any]


def begin_record(
    run: Run, challenger: Version, champion: Version | None, alias: str, rule: str
) -> PromotionRecord:
    """What is known before anything is decided."""
    tags = run.data.tags
    return {
        "schema": PROMOTION_SCHEMA,
        "rule": rule,
        "alias": alias,
        "challenger": asdict(challenger),
        "champion": None if champion is None else asdict(champion),
        "run_id": run.info.run_id,
        "user": tags.get("mlflow.user"),
        "commit": tags.get("mlflow.source.git.commit"),
        "time": run.info.start_time,
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
    }


def record_evidence(match: Matchup, compared: Comparison) -> PromotionRecord:
    """What was played, and what it says."""
    gate, last, pairs = compared.gate, compared.looks[-1], len(compared.differences)
    return {
        "verdict": compared.verdict,
        "gate": asdict(gate),
        "environment": match.environment,
        "seeds": seeds_digest(compared.challenger),
        "looks": [
            {"pairs": look.pairs, "mean_difference": look.mean_difference, **_bounds(look.bounds)}
            for look in compared.looks
        ],
        "mean_difference": last.mean_difference,
        "lower_bound": _finite(last.bounds.lower),
        "upper_bound": _finite(last.bounds.upper),
        "probability_of_improvement": compared.probability_of_improvement,
        "smallest_detectable_difference": confidence.smallest_detectable_difference(
            compared.differences, gate.alpha
        ),
        "largest_share_of_other_pairs": confidence.max_undetected_fraction(pairs, gate.alpha)
        if compared.verdict == "tie"
        else None,
        "all_returns_equal": compared.tells_nothing_apart,
        "reward_threshold": match.reward_threshold,
        "challenger_episodes": _summary(compared.challenger),
        "champion_episodes": _summary(compared.champion),
        "challenger_return_bounds": None
        if compared.challenger_bounds is None
        else _bounds(compared.challenger_bounds),
        "episodes": episode_table(compared.challenger, compared.champion),
    }


def seeds_digest(episodes: Episodes) -> str:
    """SHA-256 over the seeds, one in a line."""
    return hashlib.sha256("".join(f"{seed}\n" for seed in episodes.seeds).encode()).hexdigest()


def episode_table(challenger: Episodes, champion: Episodes) -> dict[str, list[float]]:
    """The episodes side by side as columns."""
    columns: dict[str, list[float]] = {"seed": challenger.seeds.tolist()}
    for name, episodes in (("challenger", challenger), ("champion", champion)):
        columns |= {
            f"{name}_return": episodes.returns.tolist(),
            f"{name}_length": episodes.lengths.tolist(),
        }
    return columns


def record_metrics(record: PromotionRecord) -> dict[str, float]:
    """The numbers behind the verdict, under ``promotion/``."""
    if "episodes" not in record:
        return {}
    keys = (
        "mean_difference",
        "lower_bound",
        "upper_bound",
        "probability_of_improvement",
        "smallest_detectable_difference",
    )
    numbers = {"pairs": len(record["episodes"]["seed"])} | {key: record[key] for key in keys}
    for name in ("challenger", "champion"):
        numbers |= {f"{name}_{key}": value for key, value in record[f"{name}_episodes"].items()}
    return {f"promotion/{key}": float(value) for key, value in numbers.items() if value is not None}


def _bounds(found: ConfidenceBounds) -> PromotionRecord:
    return {
        key: _finite(value)
        for key, value in (asdict(found) | {"lower": found.lower, "upper": found.upper}).items()
    }


def _finite(number: float) -> float | None:
    """JSON has no infinity: a bound that nothing is known of is null."""
    return number if math.isfinite(number) else None


def _summary(episodes: Episodes) -> PromotionRecord:
    summary = {
        key: _finite(value) for key, value in asdict(rollout.summarize_returns(episodes)).items()
    }
    return summary | {"worst_return": worst_returns_mean(episodes.returns)}
