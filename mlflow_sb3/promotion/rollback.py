"""Roll back an alias to the version that had it before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from mlflow_sb3.client import permissions
from mlflow_sb3.client.timestamps import now_ms
from mlflow_sb3.promotion import (
    evidence,
    promotion_run,
    report_text,
    serving_check,
    summary_text,
    version_history,
)
from mlflow_sb3.promotion.record import PromotionContext, PromotionRecord
from mlflow_sb3.registry import alias_history, lock, names, signing, versions
from mlflow_sb3.registry.alias_history import AliasHistory, AliasMove
from mlflow_sb3.registry.model_version import Version

if TYPE_CHECKING:
    from mlflow_sb3.registry.signing import KeyPath


def roll_back(
    name: str,
    alias: str = "champion",
    *,
    why: str = "",
    public_key: KeyPath | None = None,
    allow_pickle: bool = False,
) -> PromotionRecord:
    """Give an alias back to the version that had it before, and record the rollback.

    Two calls go back two versions. Deleted versions are skipped. If the last rollback was
    interrupted, this call only completes that rollback. The files of the version that loses the
    alias are not read, so they may be broken or missing.

    Args:
        name: Name of the registered model.
        alias: Alias to move.
        why: Reason for the record.
        public_key: Public key that must have signed the restored version.
        allow_pickle: As in ``registered_agent.load_agent``.

    Returns:
        The record that is logged as ``promotion.json``.

    Raises:
        MlflowException: The alias or the public key is not valid, the model does not exist, no run
            is active, the user has no permission, no earlier version exists, the files or the
            signature of that version are not valid, that version cannot be served, or the alias
            moved meanwhile.
    """
    signing.check_keys(None, public_key)
    names.check_champion_alias(alias)
    versions.check_model_exists(name)
    run = promotion_run.get_active_run()
    permissions.check_permission("MANAGE", model=name)
    history = alias_history.recover_interrupted_move(name, alias)
    version_history.complete_last_decision(history)
    interrupted_run_id = _find_interrupted_run_id(history)
    if history.champion is not None and interrupted_run_id is not None:
        champion = versions.find_version(name, number=history.champion)
        record = _record_completed_rollback(champion, alias, run)
    else:
        interrupted_run_id = None
        target = _find_previous_version(history)
        context = _check_target(history, target, run, public_key, allow_pickle=allow_pickle)
        record = _restore_version(history, context, why)
    alias_history.mark_rollback_complete(name, alias, interrupted_run_id or run.info.run_id)
    return record


def _find_interrupted_run_id(history: AliasHistory) -> str | None:
    """Return the run id of the last move if that move is an unfinished rollback.

    The alias has already moved. The repeated call therefore finishes that rollback, and does not
    go back one more version.
    """
    last = history.last_move
    if last is None or last.by != "rollback" or last.run_id == history.completed_rollback:
        return None
    return last.run_id


def _record_completed_rollback(champion: Version, alias: str, run: Run) -> PromotionRecord:
    """Record that an interrupted rollback is complete."""
    context = evidence.collect_context(run, champion, None, alias=alias, rule="rollback")
    reason = (
        f"Completed an interrupted rollback: {champion} is the {alias} again. "
        "Call rollback again to restore the version before it."
    )
    record = PromotionRecord(context, "rollback", is_accepted=False, reason=reason)
    promotion_run.log_record(record)
    return record


def _restore_version(history: AliasHistory, context: PromotionContext, why: str) -> PromotionRecord:
    """Record the rollback, and give the alias to the version to restore."""
    reason = report_text.explain_rollback(context, why)
    record = PromotionRecord(context, "rollback", is_accepted=True, reason=reason)
    promotion_run.log_record(record)
    _move_alias_back(history, record)
    version_history.write_decision(record)
    return record


def _check_target(
    history: AliasHistory,
    target: Version,
    run: Run,
    public_key: KeyPath | None,
    *,
    allow_pickle: bool,
) -> PromotionContext:
    """Check that the version to restore can be served, and return the context of the rollback."""
    number = history.champion
    champion = None if number is None else versions.find_version(history.name, number=number)
    context = evidence.collect_context(run, target, champion, alias=history.alias, rule="rollback")
    try:
        serving_check.check_servable(target, public_key=public_key, allow_pickle=allow_pickle)
    except MlflowException as error:
        version_history.write_error(PromotionRecord(context, "error", is_accepted=False), error)
        raise MlflowException.invalid_parameter_value(
            f"{error} Or promote another version with rule=force and a reason."
        ) from error
    return context


def _move_alias_back(history: AliasHistory, record: PromotionRecord) -> None:
    """Move the alias to the version to restore, and remove later versions from the history."""
    name, alias, context = history.name, history.alias, record.context
    with lock.hold_lock(name) as held_lock:
        current = alias_history.recover_move(name, alias, held_lock)
        if current.champion != history.champion:
            raise MlflowException(
                f"Alias {alias} of {name} moved from version {history.champion} to "
                f"{current.champion} during the rollback. Call rollback again."
            )
        last = max(
            index
            for index, number in enumerate(current.former_numbers)
            if number == context.challenger.number
        )
        numbers = current.former_numbers[: last + 1]
        why = summary_text.summarize(record)
        move = AliasMove("rollback", context.run_id, time=now_ms(), why=why)
        alias_history.move_alias(current, numbers, move, held_lock)


def _find_previous_version(history: AliasHistory) -> Version:
    """Find the last version before the champion that still exists."""
    previous = [number for number in history.former_numbers if number != history.champion]
    number = alias_history.find_last_existing_version(history.name, previous)
    if number is not None:
        return versions.find_version(history.name, number=number)
    before = f" before version {history.champion}" if history.champion else ""
    problem = (
        f"The versions of {history.name} that were {history.alias}{before} were deleted "
        f"(at most {alias_history.MAX_LOOKUPS} are looked up)."
        if previous
        else f"No version of {history.name} was {history.alias}{before}."
    )
    raise MlflowException.invalid_parameter_value(
        f"{problem} Promote another version with rule=force and a reason."
    )
