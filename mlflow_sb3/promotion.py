"""A challenger takes the champion's place, or does not: decided by games on the same seeds, recorded, and only then done."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run
from tqdm import tqdm

from mlflow_sb3 import lock, match, promotion_run, record, registry, reigns, servable, words
from mlflow_sb3.comparison import Gate
from mlflow_sb3.record import Record
from mlflow_sb3.registry import Version
from mlflow_sb3.reigns import Move

if TYPE_CHECKING:
    from mlflow_sb3.signing import KeyPath

APPROVAL = "approval"
"""Tag of a model version; ``approved`` lets its promotion go on where approval is required."""


@dataclass(frozen=True)
class Terms:
    """On which terms a challenger is promoted."""

    alias: str = "champion"
    gate: Gate = field(default_factory=Gate)
    judge: str | None = None
    """See ``match.arrange``."""
    force: str | None = None
    """Why the challenger is promoted without playing; None to let it play."""
    approval: bool = False
    """Whether a person has to approve it first, by the tag ``approval=approved`` of the version."""
    public_key: KeyPath | None = None
    """See ``registry.fetch``."""


def promote(challenger: Version, terms: Terms, *, progress: bool = False) -> Record:
    """Decide about a challenger, write down why, and give it the alias if it won.

    Others may promote versions of the same model at the same time: when the champion has changed during the games, the
    challenger plays against the new one. A promotion that was interrupted is finished first.

    Args:
        challenger: Version that may become the champion.
        terms: What it has to show, and what else has to be.
        progress: Show a progress bar on standard error.

    Returns:
        The record, as ``promotion.json`` has it.

    Raises:
        MlflowException: Nothing could be decided, as where a version cannot be loaded or served; the record says so.
    """
    run = active_run()
    reigns.finish_interrupted(challenger.name, terms.alias)
    earlier: list[Any] = []
    while True:
        champion = registry.champion(challenger.name, terms.alias)
        promotion = record.begin(run, challenger, champion, terms.alias, "test" if terms.force is None else "force") | {"earlier": earlier}
        if champion is not None and champion.number == challenger.number:
            return _nothing_to_do(promotion)
        try:
            promotion |= _decide(challenger, champion, terms, promotion, progress=progress)
            if promotion["moves"]:
                servable.check(challenger, public_key=terms.public_key)
        except Exception as error:  # an environment or the code of a model may raise anything
            promotion |= {"verdict": "error", "moves": False, "reason": " ".join(f"{error}".split()) or type(error).__name__}
            promotion_run.write(promotion, challenger)
            promotion_run.illustrate(promotion, challenger)
            raise
        promotion_run.write(promotion, challenger)
        if not promotion["moves"] or _take_over(challenger, champion, terms.alias, run.info.run_id):
            break
        earlier = [*earlier, {key: promotion[key] for key in ("champion", "verdict", "reason")}]
    if promotion["moves"] or promotion["verdict"] in ("reject", "tie"):
        registry.drop_alias(challenger, registry.CHALLENGER)
    promotion_run.illustrate(promotion, challenger)
    return promotion


def active_run() -> Run:
    """The active run with its tags; there has to be one, for the record."""
    active = mlflow.active_run()
    if active is None:
        raise mlflow.MlflowException.invalid_parameter_value("a promotion is recorded in a run; call it inside mlflow.start_run().")
    return MlflowClient().get_run(active.info.run_id)


def _decide(challenger: Version, champion: Version | None, terms: Terms, promotion: Record, *, progress: bool) -> Record:
    """The verdict with its evidence, and whether the alias moves."""
    approval = MlflowClient().get_model_version(challenger.name, str(challenger.number)).tags.get(APPROVAL)
    allowed = not terms.approval or approval == "approved"
    asked: Record = {"approval": approval if terms.approval else None}
    if terms.force is not None:
        asked |= {"verdict": "promote", "moves": allowed}
        return asked | {"reason": words.forced(promotion | asked, terms.force)}
    arranged = match.arrange(challenger, champion, terms.gate, judge=terms.judge, public_key=terms.public_key)
    with tqdm(total=2 * terms.gate.episodes, desc="gate", unit="episode", disable=not progress, mininterval=1) as bar:
        found = record.evidence(arranged, arranged.play(terms.gate, on_episode=bar.update))
    found |= asked | {"judge": terms.judge, "moves": found["verdict"] == "promote" and allowed}
    return found | {"reason": words.reason(promotion | found)}


def _take_over(challenger: Version, champion: Version | None, alias: str, run_id: str) -> bool:
    """Give the alias to the challenger; false when somebody else has become champion since the games began."""
    while True:
        with suppress(lock.LostError), lock.held(challenger.name) as held:
            found = reigns.settle(challenger.name, alias, held)
            if found.champion == challenger.number:  # the lock was lost after the alias had moved
                return True
            if found.champion != (None if champion is None else champion.number):
                return False
            reigns.move(found, (*found.numbers, challenger.number), Move("promotion", run_id), held)
            return reigns.read(challenger.name, alias).champion == challenger.number


def _nothing_to_do(promotion: Record) -> Record:
    """The challenger is the champion: what its promotion left undone is done, and what it wrote on the version stays."""
    challenger = Version(**promotion["challenger"])
    promotion |= {"verdict": "tie", "moves": False}
    promotion |= {"reason": f"{challenger} is the {promotion['alias']} already, and nothing was played."}
    mlflow.log_dict(promotion, promotion_run.RECORD)
    registry.drop_alias(challenger, registry.CHALLENGER)
    promotion_run.illustrate(promotion, challenger)
    return promotion
