"""A promotion played again from its record."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from mlflow.exceptions import MlflowException
from tqdm import tqdm

from mlflow_sb3.promotion import matchup, promotion_run, record
from mlflow_sb3.promotion.gate import Gate
from mlflow_sb3.promotion.record import PromotionRecord
from mlflow_sb3.registry import versions
from mlflow_sb3.registry.model_version import Version

if TYPE_CHECKING:
    from mlflow_sb3.registry.signing import KeyPath


def replay(run_id: str, *, public_key: KeyPath | None = None, progress: bool = False) -> list[str]:
    """Play the games of a promotion again, with the same versions, seeds and settings; nothing in the registry changes.

    Args:
        run_id: Of the promotion.
        public_key: See ``integrity.fetch_version``.
        progress: Show a progress bar on standard error.

    Returns:
        What differs, a sentence each; nothing when all is identical.

    Raises:
        MlflowException: The run holds no games, or a version is not the one that played them.
    """
    before = promotion_run.load_record(run_id)
    if "episodes" not in before:
        raise MlflowException.invalid_parameter_value(
            f"run {run_id} decided by {before['rule']} without games; there is nothing to play again."
        )
    if before["verdict"] == "error":
        raise MlflowException.invalid_parameter_value(
            f"run {run_id} ended in an error after its games ({before['reason']}); promote again instead."
        )
    gate = Gate(**before["gate"])
    champion = None if before["champion"] is None else _same(before["champion"])
    arranged = matchup.arrange_matchup(
        _same(before["challenger"]), champion, gate, judge=before["judge"], public_key=public_key
    )
    with tqdm(
        total=2 * gate.episodes, desc="replay", unit="episode", disable=not progress, mininterval=1
    ) as bar:
        again = json.loads(
            json.dumps(record.record_evidence(arranged, arranged.play(gate, on_episode=bar.update)))
        )
    return [_difference(key, before, again) for key in again if before.get(key) != again[key]]


def _same(recorded: PromotionRecord) -> Version:
    """The version of a record, which has to be the one that played."""
    version = versions.find_version(recorded["name"], number=recorded["number"])
    if (version.model_id, version.digest) != (recorded["model_id"], recorded["digest"]):
        raise MlflowException.invalid_parameter_value(
            f"{version} is the model {version.model_id} with the digest {version.digest}, "
            f"and {recorded['model_id']} with {recorded['digest']} played; the games cannot be played again."
        )
    return version


def _difference(key: str, before: PromotionRecord, again: PromotionRecord) -> str:
    if key != "episodes":
        return f"{key} was {before.get(key)} and is {again[key]}"
    columns = [column for column, values in again[key].items() if values != before[key].get(column)]
    return f"episodes differ in {', '.join(columns)}"
