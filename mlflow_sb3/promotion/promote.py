"""Promote a challenger to champion: run the gate, record the verdict, and move the alias."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from mlflow import MlflowClient

from mlflow_sb3.client import permissions
from mlflow_sb3.client.timestamps import now_ms
from mlflow_sb3.promotion import (
    error_budget,
    evidence,
    promotion_report,
    promotion_run,
    recorded_returns,
    report_text,
    serving_check,
    summary_text,
    version_history,
)
from mlflow_sb3.promotion.gate import Gate, Verdict
from mlflow_sb3.promotion.matchup import arrange_matchup
from mlflow_sb3.promotion.record import (
    ErrorBudget,
    GateEvidence,
    MissedReturn,
    PromotionContext,
    PromotionRecord,
    Rule,
)
from mlflow_sb3.registry import alias_history, lock, names, versions
from mlflow_sb3.registry.alias_history import AliasMove
from mlflow_sb3.registry.model_version import Version
from mlflow_sb3.reports.number_format import format_number

if TYPE_CHECKING:
    from mlflow_sb3.registry.signing import KeyPath


@dataclass(frozen=True)
class PromotionOptions:
    """Options of a promotion.

    Attributes:
        alias: Alias that the winner gets.
        gate: Settings of the statistical test.
        alpha_per_reign: Error probability that all gates against the same champion share. None:
            each gate uses the ``alpha`` of ``gate``. See ``error_budget``.
        judging_environment: Environment that both agents play in; see ``arrange_matchup``.
        force_reason: Reason to promote the challenger without a gate; None to run the gate.
        is_approval_required: Whether the challenger needs the tag ``approval=approved``.
        public_key: Public key that must have signed both versions.
        allow_pickle: As in ``registered_agent.load_agent``.
    """

    alias: str = "champion"
    gate: Gate = field(default_factory=Gate)
    alpha_per_reign: float | None = None
    judging_environment: str | None = None
    force_reason: str | None = None
    is_approval_required: bool = False
    public_key: KeyPath | None = None
    allow_pickle: bool = False


def promote_version(
    challenger: Version, options: PromotionOptions, *, progress: bool = False
) -> PromotionRecord:
    """Decide whether a challenger becomes the champion, record the verdict, and move the alias.

    Several promotions of the same model can run at the same time. If the champion changes while
    the gate runs, the gate is repeated with the new champion. If an earlier promotion was
    interrupted while it moved the alias, that move is first completed or discarded.

    An error of the gate, of the serving check or of the move is recorded with the verdict
    ``error`` before it is raised.

    Args:
        challenger: Version to promote.
        options: Options of the promotion.
        progress: Show a progress bar on standard error.

    Returns:
        The record that is logged as ``promotion.json``.

    Raises:
        MlflowException: No run is active, the user has no permission, or a version cannot be
            loaded or served.
        Exception: The environment or the code of a model raised it.
    """
    run = promotion_run.get_active_run()
    permissions.check_permission("MANAGE", model=challenger.name)
    history = alias_history.recover_interrupted_move(challenger.name, options.alias)
    version_history.complete_last_decision(history)
    earlier: tuple[PromotionRecord, ...] = ()
    while True:
        champion = versions.find_champion(challenger.name, options.alias)
        rule: Rule = "test" if options.force_reason is None else "force"
        context = evidence.collect_context(
            run, challenger, champion, alias=options.alias, rule=rule
        )
        if champion is not None and champion.number == challenger.number:
            return earlier[-1] if earlier else _record_current_champion(context)
        record = _decide_and_record(context, options, earlier, progress=progress)
        if not record.is_accepted or _give_alias(record):
            break
        earlier = (*earlier, record)
    version_history.write_decision(record)
    if record.is_accepted or record.verdict in ("reject", "tie"):
        versions.remove_alias(challenger, names.CHALLENGER_ALIAS)
    promotion_report.log_promotion_report(record)
    return record


def _record_current_champion(context: PromotionContext) -> PromotionRecord:
    """Record a tie of the champion with itself.

    The state and the history of the version stay. If an interrupted promotion left the
    alias ``challenger`` on the champion, that alias is removed.
    """
    reason = f"{context.challenger} is already the {context.alias}, so no episodes were played."
    record = PromotionRecord(context, "tie", is_accepted=False, reason=reason)
    promotion_run.log_record(record)
    versions.remove_alias(context.challenger, names.CHALLENGER_ALIAS)
    promotion_report.log_promotion_report(record)
    return record


def _decide_and_record(
    context: PromotionContext,
    options: PromotionOptions,
    earlier: tuple[PromotionRecord, ...],
    *,
    progress: bool,
) -> PromotionRecord:
    """Decide about the challenger and log the record; an error is recorded and raised again."""
    record = PromotionRecord(context, "error", is_accepted=False, earlier=earlier)
    try:
        record = replace(_decide(context, options, progress=progress), earlier=earlier)
        if record.is_accepted:
            serving_check.check_servable(
                context.challenger,
                public_key=options.public_key,
                allow_pickle=options.allow_pickle,
            )
    except Exception as error:  # the environment or the code of a model can raise anything
        version_history.write_error(record, error)
        raise
    promotion_run.log_evidence(record)
    promotion_run.log_record(record)
    return record


def _decide(
    context: PromotionContext, options: PromotionOptions, *, progress: bool
) -> PromotionRecord:
    approval = _read_approval(context.challenger) if options.is_approval_required else None
    is_allowed = not options.is_approval_required or approval == "approved"
    if options.force_reason is not None:
        record = PromotionRecord(context, "promote", is_accepted=is_allowed, approval=approval)
        return replace(
            record, reason=report_text.explain_forced_promotion(record, options.force_reason)
        )
    verdict, results, budget = _run_gate(context, options, progress=progress)
    missed = None if verdict != "promote" else _find_missed_return(context, results)
    if missed is not None:
        verdict = "inconclusive"
    record = PromotionRecord(
        context,
        verdict,
        is_accepted=verdict == "promote" and is_allowed,
        approval=approval,
        judging_environment=options.judging_environment,
        evidence=results,
        error_budget=budget,
        missed_return=missed,
    )
    return replace(record, reason=report_text.explain_verdict(record, results))


def _read_approval(version: Version) -> str | None:
    entity = MlflowClient().get_model_version(version.name, str(version.number))
    approval: str | None = entity.tags.get(version_history.APPROVAL_TAG)
    return approval


def _run_gate(
    context: PromotionContext, options: PromotionOptions, *, progress: bool
) -> tuple[Verdict, GateEvidence, ErrorBudget | None]:
    budget: ErrorBudget | None = None

    def choose_alpha(gate_seed: int) -> float:
        nonlocal budget
        if options.alpha_per_reign is None:
            return options.gate.alpha
        budget = error_budget.spend(context, options.alpha_per_reign, gate_seed)
        return budget.alpha

    matchup = arrange_matchup(
        context.challenger,
        context.champion,
        options.gate,
        judging_environment=options.judging_environment,
        choose_alpha=choose_alpha,
        public_key=options.public_key,
        allow_pickle=options.allow_pickle,
    )
    comparison = matchup.play_with_bar("gate", is_shown=progress)
    return comparison.verdict, evidence.collect_evidence(matchup, comparison), budget


def _find_missed_return(context: PromotionContext, results: GateEvidence) -> MissedReturn | None:
    if context.champion is None or results.lower_bound is None:
        return None
    recorded = recorded_returns.find_recorded_returns(context.champion)
    if recorded is None:
        return None
    return recorded_returns.find_missed_return(
        recorded,
        champion_mean=results.champion_episodes.mean_return,
        champion_max=results.champion_episodes.max_return,
        lower_bound=results.lower_bound,
        min_improvement=results.gate.min_improvement,
    )


def _give_alias(record: PromotionRecord) -> bool:
    """Move the alias to the challenger; return False if another version became champion meanwhile.

    If another process takes over the lock, the move is tried again, because only the holder of the
    lock can find out whether the alias moved.
    """
    has_lost_lock = False
    while True:
        try:
            return _move_alias(record, has_lost_lock=has_lost_lock)
        except lock.LockLostError:
            has_lost_lock = True
        except Exception as error:
            version_history.write_error(record, error)
            raise


def _move_alias(record: PromotionRecord, *, has_lost_lock: bool) -> bool:
    context = record.context
    name, alias, number = context.challenger.name, context.alias, context.challenger.number
    with lock.hold_lock(name) as held_lock:
        history = alias_history.recover_move(name, alias, held_lock)
        opponent = None if context.champion is None else context.champion.number
        if history.champion == number:
            # A user set the alias, or this process did so before it lost the lock.
            if has_lost_lock and history.is_manual and history.numbers[-2] != opponent:
                # The request of this process arrived late, and replaced a version that had become
                # champion meanwhile. The challenger has not played against that version.
                versions.set_alias(name, alias, history.numbers[-2])
                return False
            return True
        if history.champion != opponent:
            return False
        move = _describe_move(record)
        alias_history.move_alias(history, (*history.numbers, number), move, held_lock)
        return alias_history.read_history(name, alias).champion == number


def _describe_move(record: PromotionRecord) -> AliasMove:
    results = record.evidence
    return AliasMove(
        "promotion",
        record.context.run_id,
        time=now_ms(),
        mean_return=""
        if results is None
        else format_number(results.challenger_episodes.mean_return),
        why=summary_text.summarize(record),
    )
