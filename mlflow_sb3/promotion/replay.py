"""Repeat the gate of an earlier promotion and compare the results."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from mlflow.exceptions import MlflowException

from mlflow_sb3.promotion import evidence, promotion_run
from mlflow_sb3.promotion.matchup import arrange_matchup
from mlflow_sb3.promotion.record import GateEvidence, PromotionRecord
from mlflow_sb3.registry import versions
from mlflow_sb3.registry.model_version import Version

if TYPE_CHECKING:
    from mlflow_sb3.registry.signing import KeyPath


def replay_promotion(
    run_id: str,
    *,
    public_key: KeyPath | None = None,
    allow_pickle: bool = False,
    progress: bool = False,
) -> list[str]:
    """Play the episodes of a promotion again, with the same versions, seeds and settings.

    The registry does not change.

    Args:
        run_id: Run of the promotion.
        public_key: Public key that must have signed both versions.
        allow_pickle: As in ``registered_agent.load_agent``.
        progress: Show a progress bar on standard error.

    Returns:
        One sentence per difference; an empty list if the results are identical.

    Raises:
        MlflowException: The run has no readable record, or its promotion played no episodes or
            failed. Or a version changed or was deleted since then, or cannot be loaded.
    """
    record = promotion_run.load_record(run_id)
    recorded = _require_evidence(run_id, record)
    champion = record.context.champion
    matchup = arrange_matchup(
        _find_unchanged_version(record.context.challenger),
        None if champion is None else _find_unchanged_version(champion),
        recorded.gate,
        judging_environment=record.judging_environment,
        public_key=public_key,
        allow_pickle=allow_pickle,
    )
    comparison = matchup.play_with_bar("replay", is_shown=progress)
    repeated = evidence.collect_evidence(matchup, comparison)
    # The episodes of the gate spoke for the promotion if only an earlier return prevented it.
    verdict = record.verdict if record.missed_return is None else "promote"
    return _describe_differences(
        {"verdict": verdict} | asdict(recorded),
        {"verdict": comparison.verdict} | asdict(_leave_out_new_values(repeated, recorded)),
    )


def _leave_out_new_values(repeated: GateEvidence, recorded: GateEvidence) -> GateEvidence:
    """Leave out the success rates if the record has none. Earlier versions did not record them."""
    names = ("challenger_episodes", "champion_episodes")
    without = {
        name: replace(getattr(repeated, name), success_rate=None)
        for name in names
        if getattr(recorded, name).success_rate is None
    }
    return replace(repeated, **without)


def _require_evidence(run_id: str, record: PromotionRecord) -> GateEvidence:
    if record.evidence is None:
        raise MlflowException.invalid_parameter_value(
            f"Run {run_id} (rule {record.context.rule}, verdict {record.verdict}) played no "
            "episodes, so they cannot be repeated. Pass the id of a promotion that ran the gate."
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


def _describe_differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    sentences = []
    for key, value in now.items():
        if before[key] != value and key == "episodes":
            columns = [name for name, values in value.items() if before[key][name] != values]
            sentences.append(f"episodes differ in {', '.join(columns)}")
        elif before[key] != value:
            sentences.append(f"{key} was {before[key]} and is {value}")
    return sentences
