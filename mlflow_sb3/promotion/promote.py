"""A challenger takes the champion's place, or does not: decided by games on the same seeds, recorded, and only then done."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run
from tqdm import tqdm

from mlflow_sb3.client import permissions
from mlflow_sb3.promotion import matchup, promotion_run, record, report_text, serving_check
from mlflow_sb3.promotion.gate import Gate
from mlflow_sb3.promotion.record import PromotionRecord
from mlflow_sb3.registry import alias_history, lock, names, versions
from mlflow_sb3.registry.alias_history import AliasMove
from mlflow_sb3.registry.model_version import Version

if TYPE_CHECKING:
    from mlflow_sb3.registry.signing import KeyPath

APPROVAL_TAG = "approval"
"""Tag of a model version; ``approved`` lets its promotion go on where approval is required."""


@dataclass(frozen=True)
class PromotionOptions:
    """On which terms a challenger is promoted."""

    alias: str = "champion"
    gate: Gate = field(default_factory=Gate)
    judge: str | None = None
    """See ``matchup.arrange_matchup``."""
    force: str | None = None
    """Why the challenger is promoted without playing; None to let it play."""
    approval: bool = False
    """Whether a person has to approve it first, by the tag ``approval=approved`` of the version."""
    public_key: KeyPath | None = None
    """See ``integrity.fetch_version``."""


def promote_version(
    challenger: Version, terms: PromotionOptions, *, progress: bool = False
) -> PromotionRecord:
    """Decide about a challenger, write down why, and give it the alias if it won.

    Others may promote versions of the same model at the same time: when the champion has changed during the games, the
    challenger plays against the new one. A promotion that was interrupted is finished first.

    Args:
        challenger: Version that may become the champion.
        terms: What it has to show, and what else has to be.
        progress: Show a progress bar on standard error.

    Returns:
        The record, as ``promote.json`` has it.

    Raises:
        MlflowException: Nothing could be decided, as where a version cannot be loaded or served; the record says so. Or the user may
            not promote, and nothing was done.
    """
    run = active_run()
    permissions.check_permission("MANAGE", model=challenger.name)
    alias_history.recover_interrupted_move(challenger.name, terms.alias)
    earlier: list[PromotionRecord] = []
    while True:
        champion = versions.find_champion(challenger.name, terms.alias)
        promotion = record.begin_record(
            run, challenger, champion, terms.alias, "test" if terms.force is None else "force"
        )
        if champion is not None and champion.number == challenger.number:
            return earlier[-1] if earlier else _nothing_to_do(promotion)
        promotion |= _decide(challenger, champion, terms, promotion, progress=progress) | {
            "earlier": earlier
        }
        promotion_run.log_games(promotion, challenger)
        promotion_run.write_record(promotion, challenger)
        if not promotion["moves"] or _take_over(promotion, challenger, champion):
            break
        earlier = [*earlier, promotion]
    if promotion["moves"]:
        versions.remove_tag(challenger, versions.ROLLED_BACK_TAG)
    if promotion["moves"] or promotion["verdict"] in ("reject", "tie"):
        versions.remove_alias(challenger, names.CHALLENGER)
    return promotion


def active_run() -> Run:
    """The active run with its tags; there has to be one, for the record."""
    active = mlflow.active_run()
    if active is None:
        raise mlflow.MlflowException.invalid_parameter_value(
            "a promotion is recorded in a run; call it inside mlflow.start_run()."
        )
    return MlflowClient().get_run(active.info.run_id)


def _decide(
    challenger: Version,
    champion: Version | None,
    terms: PromotionOptions,
    promotion: PromotionRecord,
    *,
    progress: bool,
) -> PromotionRecord:
    """The verdict with its evidence, and whether the alias moves; an error is recorded, and raised again."""
    found: PromotionRecord = {}
    try:
        found = _judged(challenger, champion, terms, promotion, progress=progress)
        if found["moves"]:
            serving_check.check_servable(challenger, public_key=terms.public_key)
    except Exception as error:  # an environment or the code of a model may raise anything
        _record_error(promotion | found, challenger, error)
        raise
    return found


def _judged(
    challenger: Version,
    champion: Version | None,
    terms: PromotionOptions,
    promotion: PromotionRecord,
    *,
    progress: bool,
) -> PromotionRecord:
    approval = (
        MlflowClient()
        .get_model_version(challenger.name, str(challenger.number))
        .tags.get(APPROVAL_TAG)
    )
    allowed = not terms.approval or approval == "approved"
    asked: PromotionRecord = {"approval": approval if terms.approval else None}
    if terms.force is not None:
        asked |= {"verdict": "promote", "moves": allowed}
        return asked | {"reason": report_text.forced_reason(promotion | asked, terms.force)}
    arranged = matchup.arrange_matchup(
        challenger, champion, terms.gate, judge=terms.judge, public_key=terms.public_key
    )
    with tqdm(
        total=2 * terms.gate.episodes,
        desc="gate",
        unit="episode",
        disable=not progress,
        mininterval=1,
    ) as bar:
        found = record.record_evidence(arranged, arranged.play(terms.gate, on_episode=bar.update))
    found |= asked | {"judge": terms.judge, "moves": found["verdict"] == "promote" and allowed}
    return found | {"reason": report_text.verdict_reason(promotion | found)}


def _record_error(promotion: PromotionRecord, challenger: Version, error: Exception) -> None:
    reason = " ".join(str(error).split()) or type(error).__name__
    promotion_run.write_record(
        promotion | {"verdict": "error", "moves": False, "reason": reason}, challenger
    )


def _take_over(promotion: PromotionRecord, challenger: Version, champion: Version | None) -> bool:
    """Give the alias to the challenger; false when somebody else has become champion since the games began."""
    move, lost = AliasMove("promotion", promotion["run_id"]), False
    while True:
        try:
            return _moved(challenger, champion, promotion["alias"], move, lost=lost)
        except lock.LockLostError:
            lost = True  # with the lock of another try, what became of the alias is seen
        except Exception as error:
            _record_error(promotion, challenger, error)
            raise


def _moved(
    challenger: Version, champion: Version | None, alias: str, what: AliasMove, *, lost: bool
) -> bool:
    name = challenger.name
    with lock.hold_lock(name) as held:
        found = alias_history.recover_move(name, alias, held)
        if (
            lost and found.champion == challenger.number and found.by_hand
        ):  # this call came late, over a new champion
            versions.set_alias(name, alias, found.numbers[-2])
            return False
        if (
            found.champion == challenger.number
        ):  # the lock was lost after the alias had moved, or a person moved it
            return True
        if found.champion != (None if champion is None else champion.number):
            return False
        alias_history.move_alias(found, (*found.numbers, challenger.number), what, held)
        return alias_history.read_history(name, alias).champion == challenger.number


def _nothing_to_do(promotion: PromotionRecord) -> PromotionRecord:
    """The challenger is the champion: what its promotion left undone is done, and what it wrote on the version stays."""
    challenger = Version(**promotion["challenger"])
    promotion |= {"verdict": "tie", "moves": False}
    promotion |= {
        "reason": f"{challenger} is the {promotion['alias']} already, and nothing was played."
    }
    promotion_run.log_record(promotion)
    versions.remove_alias(challenger, names.CHALLENGER)
    return promotion
