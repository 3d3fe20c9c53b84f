"""The champion before this one takes over again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mlflow_sb3 import lock, promotion, promotion_run, record, registry, reigns, servable
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
        MlflowException: Nobody bore the alias before, that version cannot be served, or the alias moved meanwhile.
    """
    run = promotion.active_run()
    reigns.finish_interrupted(name, alias)
    found = reigns.read(name, alias)
    if found.champion is not None and _was_interrupted(found.last, run.info.run_id):
        return _finished(found, record.begin(run, registry.find(name, number=found.champion), None, alias, "rollback"))
    target = _before(found)
    servable.check(target, public_key=public_key)
    champion = None if found.champion is None else registry.find(name, number=found.champion)
    rolled = record.begin(run, target, champion, alias, "rollback") | {"verdict": "rollback", "moves": True}
    rolled |= {"reason": f"{target} is the {alias} again{f', in place of {champion}' if champion else ''}{f': {why}' if why else ''}."}
    promotion_run.write(rolled, target)
    if champion is not None:
        MlflowClient().set_model_version_tag(name, str(champion.number), registry.ROLLED_BACK, run.info.run_id)
    with lock.held(name) as held:
        settled = reigns.settle(name, alias, held)
        if settled.champion != found.champion:
            raise MlflowException(f"{alias} of {name} moved from version {found.champion} to {settled.champion} meanwhile; call again.")
        last = max(place for place, number in enumerate(settled.before) if number == target.number)
        reigns.move(settled, settled.before[: last + 1], Move("rollback", run.info.run_id), held)
    promotion_run.illustrate(rolled, target)
    return rolled


def _before(found: Reigns) -> Version:
    """The last version before the champion that has not been deleted."""
    existing = {int(version.version) for version in MlflowClient().search_model_versions(f"name='{found.name}'")}
    for number in reversed(found.before):
        if number in existing and number != found.champion:
            return registry.find(found.name, number=number)
    raise MlflowException.invalid_parameter_value(
        f"nobody was {found.alias} of {found.name} before {'version ' + str(found.champion) if found.champion else 'it was lost'}; "
        "promote another version with rule=force and a reason."
    )


def _was_interrupted(last: Move | None, run_id: str) -> bool:
    """Whether the last move is another run's rollback that did not end well: who calls again does not mean to go back once more."""
    if last is None or last.by != "rollback" or last.run_id == run_id:
        return False
    return bool(MlflowClient().get_run(last.run_id).info.status != "FINISHED")


def _finished(found: Reigns, rolled: Record) -> Record:
    version = Version(**rolled["challenger"])
    reigns.forget_last(found)
    rolled |= {"verdict": "rollback", "moves": False}
    rolled |= {"reason": f"a rollback that was interrupted is finished: {version} is the {rolled['alias']} again."}
    promotion_run.write(rolled, version)
    promotion_run.illustrate(rolled, version)
    return rolled
