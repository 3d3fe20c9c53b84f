"""Repeat the gate of an earlier promotion and compare the results."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from mlflow.exceptions import MlflowException
from tqdm import tqdm

from mlflow_sb3.promotion import evidence, matchup, promotion_run
from mlflow_sb3.promotion.record import GateEvidence, PromotionRecord
from mlflow_sb3.registry import versions
from mlflow_sb3.registry.model_version import Version

if TYPE_CHECKING:
    from mlflow_sb3.registry.signing import KeyPath


def replay_promotion(
    run_id: str, *, public_key: KeyPath | None = None, progress: bool = False
) -> list[str]:
    """Play the episodes of a promotion again, with the same versions, seeds and settings.

    The registry does not change.

    Args:
        run_id: Run of the promotion.
        public_key: Public key that must have signed both versions.
        progress: Show a progress bar on standard error.

    Returns:
        One sentence per difference; an empty list if the results are identical.

    Raises:
        MlflowException: The promotion had no gate or failed, or a version changed since then.
    """
    record = promotion_run.load_record(run_id)
    recorded = _replayable_evidence(run_id, record)
    champion = record.context.champion
    matched = matchup.arrange_matchup(
        _find_unchanged_version(record.context.challenger),
        None if champion is None else _find_unchanged_version(champion),
        recorded.gate,
        judging_environment=record.judging_environment,
        public_key=public_key,
    )
    with tqdm(
        total=2 * recorded.gate.episodes,
        desc="replay",
        unit="episode",
        disable=not progress,
        mininterval=1,
    ) as bar:
        comparison = matched.play(recorded.gate, on_episode=bar.update)
    repeated = evidence.collect_evidence(matched, comparison)
    return _describe_differences(
        {"verdict": record.verdict} | asdict(recorded),
        {"verdict": comparison.verdict} | asdict(repeated),
    )


def _replayable_evidence(run_id: str, record: PromotionRecord) -> GateEvidence:
    if record.evidence is None:
        raise MlflowException.invalid_parameter_value(
            f"Run {run_id} decided by rule {record.context.rule} and played no episodes. "
            "Pass the id of a promotion with rule=test."
        )
    if record.verdict == "error":
        raise MlflowException.invalid_parameter_value(
            f"Run {run_id} failed after its episodes ({record.reason}). "
            "Promote the version again instead."
        )
    return record.evidence


def _find_unchanged_version(recorded: Version) -> Version:
    """Find a version by its number, and check that it has the recorded model and digest."""
    version = versions.find_version(recorded.name, number=recorded.number)
    if (version.model_id, version.digest) != (recorded.model_id, recorded.digest):
        raise MlflowException.invalid_parameter_value(
            f"{version} has model {version.model_id} with digest {version.digest}, but the "
            f"promotion used model {recorded.model_id} with digest {recorded.digest}. "
            "Promote the version again instead."
        )
    return version


def _describe_differences(recorded: dict[str, Any], repeated: dict[str, Any]) -> list[str]:
    before, now = json.loads(json.dumps(recorded)), json.loads(json.dumps(repeated))
    sentences = []
    for key in now:
        if before[key] != now[key] and key == "episodes":
            columns = [name for name in now[key] if before[key][name] != now[key][name]]
            sentences.append(f"episodes differ in {', '.join(columns)}")
        elif before[key] != now[key]:
            sentences.append(f"{key} was {before[key]} and is {now[key]}")
    return sentences
