"""The champion before this one takes over again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from mlflow_sb3.client import permissions
from mlflow_sb3.client.registry_client import RegistryClient
from mlflow_sb3.promotion import promote, promotion_run, record, serving_check
from mlflow_sb3.promotion.record import PromotionRecord
from mlflow_sb3.registry import alias_history, lock, versions
from mlflow_sb3.registry.alias_history import AliasHistory, AliasMove
from mlflow_sb3.registry.model_version import Version

if TYPE_CHECKING:
    from mlflow_sb3.registry.signing import KeyPath


def roll_back(
    name: str, alias: str = "champion", *, why: str = "", public_key: KeyPath | None = None
) -> PromotionRecord:
    """Give the alias back to the version that bore it before, and record it.

    Called twice, it goes back two reigns. A rollback that was interrupted is finished, and goes no further. The files of
    the version that loses the alias are not looked at.

    Args:
        name: Of the registered model.
        alias: That moves.
        why: For the record.
        public_key: See ``integrity.fetch_version``.

    Raises:
        MlflowException: The user may not, nobody bore the alias before, that version cannot be served, or the alias moved meanwhile.
    """
    run = promote.active_run()
    permissions.check_permission("MANAGE", model=name)
    alias_history.recover_interrupted_move(name, alias)
    found = alias_history.read_history(name, alias)
    if found.champion is not None and _was_interrupted(found):
        champion = versions.find_version(name, number=found.champion)
        rolled = record.begin_record(run, champion, None, alias, "rollback") | {
            "verdict": "rollback",
            "moves": False,
        }
        rolled |= {
            "reason": f"an interrupted rollback is finished: {champion} is the {alias} again; call again to go further back."
        }
        promotion_run.log_record(rolled)
    else:
        rolled = _roll_back(found, _before(found), run, why, public_key)
    alias_history.mark_complete(
        name, alias, run.info.run_id if found.last is None or rolled["moves"] else found.last.run_id
    )
    return rolled


def _roll_back(
    found: AliasHistory, target: Version, run: Run, why: str, public_key: KeyPath | None
) -> PromotionRecord:
    name, alias = found.name, found.alias
    champion = (
        None if found.champion is None else versions.find_version(name, number=found.champion)
    )
    rolled = record.begin_record(run, target, champion, alias, "rollback")
    try:
        serving_check.check_servable(target, public_key=public_key)
    except MlflowException as error:
        promotion_run.write_record(
            rolled | {"verdict": "error", "moves": False, "reason": " ".join(str(error).split())},
            target,
        )
        raise MlflowException.invalid_parameter_value(
            f"{error} Or promote another version with rule=force and a reason."
        ) from error
    replaced = "" if champion is None else f", in place of {champion}"
    because = f": {why.rstrip('.')}" if why else ""
    rolled |= {
        "verdict": "rollback",
        "moves": True,
        "reason": f"{target} is the {alias} again{replaced}{because}.",
    }
    promotion_run.write_record(rolled, target)
    if champion is not None:
        _mark(champion, run.info.run_id)
    with lock.hold_lock(name) as held:
        settled = alias_history.recover_move(name, alias, held)
        if settled.champion != found.champion:
            raise MlflowException(
                f"{alias} of {name} moved from version {found.champion} to {settled.champion} meanwhile; call again."
            )
        last = max(place for place, number in enumerate(settled.before) if number == target.number)
        alias_history.move_alias(
            settled, settled.before[: last + 1], AliasMove("rollback", run.info.run_id), held
        )
    return rolled


def _mark(champion: Version, run_id: str) -> None:
    """What was rolled back is no candidate any more, and an approval of it has ended."""
    RegistryClient().set_model_version_tag(
        champion.name, str(champion.number), versions.ROLLED_BACK_TAG, run_id
    )
    versions.remove_tag(champion, promote.APPROVAL_TAG)


def _before(found: AliasHistory) -> Version:
    """The last version before the champion that has not been deleted, of as many as are looked for."""
    number = alias_history.last_existing_version(
        found.name, [number for number in found.before if number != found.champion]
    )
    if number is not None:
        return versions.find_version(found.name, number=number)
    deleted = (
        f", or the last {alias_history.MAX_LOOKUPS} who were have been deleted"
        if found.before
        else ""
    )
    raise MlflowException.invalid_parameter_value(
        f"nobody was {found.alias} of {found.name} before {'version ' + str(found.champion) if found.champion else 'it was lost'}"
        f"{deleted}; promote another version with rule=force and a reason."
    )


def _was_interrupted(found: AliasHistory) -> bool:
    """Whether the last move is a rollback that did not go through to its end: who calls again does not mean to go back once more."""
    return (
        found.last is not None
        and found.last.by == "rollback"
        and found.last.run_id != found.concluded
    )
