"""The champion before this one takes over again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from mlflow_sb3 import lock, promotion, promotion_run, record, registry, reigns, rights, servable
from mlflow_sb3.client import Client
from mlflow_sb3.record import Record
from mlflow_sb3.registry import Version
from mlflow_sb3.reigns import Move, Reigns

if TYPE_CHECKING:
    from mlflow_sb3.signing import KeyPath


def roll_back(name: str, alias: str = "champion", *, why: str = "", public_key: KeyPath | None = None) -> Record:
    """Give the alias back to the version that bore it before, and record it.

    Called twice, it goes back two reigns. A rollback that was interrupted is finished, and goes no further. The files of
    the version that loses the alias are not looked at.

    Args:
        name: Of the registered model.
        alias: That moves.
        why: For the record.
        public_key: See ``registry.fetch``.

    Raises:
        MlflowException: The user may not, nobody bore the alias before, that version cannot be served, or the alias moved meanwhile.
    """
    run = promotion.active_run()
    rights.check("MANAGE", model=name)
    reigns.finish_interrupted(name, alias)
    found = reigns.read(name, alias)
    if found.champion is not None and _was_interrupted(found):
        champion = registry.find(name, number=found.champion)
        rolled = record.begin(run, champion, None, alias, "rollback") | {"verdict": "rollback", "moves": False}
        rolled |= {"reason": f"an interrupted rollback is finished: {champion} is the {alias} again; call again to go further back."}
        promotion_run.log(rolled)
    else:
        rolled = _roll_back(found, _before(found), run, why, public_key)
    reigns.conclude(name, alias, run.info.run_id if found.last is None or rolled["moves"] else found.last.run_id)
    return rolled


def _roll_back(found: Reigns, target: Version, run: Run, why: str, public_key: KeyPath | None) -> Record:
    name, alias = found.name, found.alias
    champion = None if found.champion is None else registry.find(name, number=found.champion)
    rolled = record.begin(run, target, champion, alias, "rollback")
    try:
        servable.check(target, public_key=public_key)
    except MlflowException as error:
        promotion_run.write(rolled | {"verdict": "error", "moves": False, "reason": " ".join(str(error).split())}, target)
        raise MlflowException.invalid_parameter_value(f"{error} Or promote another version with rule=force and a reason.") from error
    replaced = "" if champion is None else f", in place of {champion}"
    because = f": {why.rstrip('.')}" if why else ""
    rolled |= {"verdict": "rollback", "moves": True, "reason": f"{target} is the {alias} again{replaced}{because}."}
    promotion_run.write(rolled, target)
    if champion is not None:
        _mark(champion, run.info.run_id)
    with lock.held(name) as held:
        settled = reigns.settle(name, alias, held)
        if settled.champion != found.champion:
            raise MlflowException(f"{alias} of {name} moved from version {found.champion} to {settled.champion} meanwhile; call again.")
        last = max(place for place, number in enumerate(settled.before) if number == target.number)
        reigns.move(settled, settled.before[: last + 1], Move("rollback", run.info.run_id), held)
    return rolled


def _mark(champion: Version, run_id: str) -> None:
    """What was rolled back is no candidate any more, and an approval of it has ended."""
    Client().set_model_version_tag(champion.name, str(champion.number), registry.ROLLED_BACK, run_id)
    registry.drop_tag(champion, promotion.APPROVAL)


def _before(found: Reigns) -> Version:
    """The last version before the champion that has not been deleted, of as many as are looked for."""
    number = reigns.last_of(found.name, [number for number in found.before if number != found.champion])
    if number is not None:
        return registry.find(found.name, number=number)
    deleted = f", or the last {reigns.LOOKED_FOR} who were have been deleted" if found.before else ""
    raise MlflowException.invalid_parameter_value(
        f"nobody was {found.alias} of {found.name} before {'version ' + str(found.champion) if found.champion else 'it was lost'}"
        f"{deleted}; promote another version with rule=force and a reason."
    )


def _was_interrupted(found: Reigns) -> bool:
    """Whether the last move is a rollback that did not go through to its end: who calls again does not mean to go back once more."""
    return found.last is not None and found.last.by == "rollback" and found.last.run_id != found.concluded
