"""Who bears an alias, and who bore it before: a tag of the registered model, written ahead so that a kill leaves nothing half done."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Literal

from mlflow import MlflowClient

from mlflow_sb3 import registry
from mlflow_sb3.lock import Lock, held

KEPT = 200
"""Reigns that are remembered."""
PREVIOUS = "previous-{alias}"
"""Alias of the version that bore an alias before."""
_TAG = "mlflow_sb3.reigns.{alias}"


@dataclass(frozen=True)
class Move:
    """What moved the alias, and the run that did it."""

    by: Literal["promotion", "rollback"]
    run_id: str


@dataclass(frozen=True)
class Reigns:
    """The versions that bore an alias of a registered model, the last one last."""

    name: str
    alias: str
    numbers: tuple[int, ...]
    champion: int | None
    """Who bears the alias now."""
    last: Move | None = None
    """The last move, if it was not made by a person."""
    following: tuple[int, ...] | None = None
    """What the numbers become by the last move, if it was begun and not finished."""

    @property
    def before(self) -> tuple[int, ...]:
        """Those before the champion, the last one last."""
        return self.numbers[:-1] if self.champion is not None else self.numbers


def read(name: str, alias: str) -> Reigns:
    """Read the reigns; a version that a person gave the alias to has the last one."""
    model = MlflowClient().get_registered_model(name)
    champion = int(model.aliases[alias]) if alias in model.aliases else None
    journal = json.loads(model.tags.get(_TAG.format(alias=alias), "{}"))
    last = Move(**journal["last"]) if journal.get("last") else None
    numbers = tuple(journal.get("numbers", ()))
    if "following" in journal:
        return Reigns(name, alias, numbers, champion, last, tuple(journal["following"]))
    if champion is not None and numbers[-1:] != (champion,):
        return Reigns(name, alias, (*numbers, champion), champion)
    return Reigns(name, alias, numbers, champion, last)


def finish_interrupted(name: str, alias: str) -> None:
    """Finish, or forget, a move that was interrupted, and take the lock away that a killed process left."""
    with held(name) as lock:
        settle(name, alias, lock)


def settle(name: str, alias: str, lock: Lock) -> Reigns:
    """Finish a move that was interrupted after the alias had moved, forget one that was interrupted before; call it with the lock."""
    found = read(name, alias)
    if found.following is not None:
        if found.following[-1] == found.champion:
            _finish(found, found.following, lock)
        else:
            _write(replace(found, last=None))
    return read(name, alias)


def move(reigns: Reigns, numbers: tuple[int, ...], what: Move, lock: Lock) -> None:
    """Give the alias to the last of these numbers, and ``previous-…`` to the one before it; call it with the lock.

    The alias itself moves in one call of the registry: somebody bears it all the time.
    """
    moving = replace(reigns, last=what)
    _write(moving, following=numbers[-KEPT:])
    lock.check()
    registry.set_alias(reigns.name, reigns.alias, numbers[-1])
    _finish(moving, numbers[-KEPT:], lock)


def forget_last(reigns: Reigns) -> None:
    """Keep the reigns, and not what the last move was."""
    _write(replace(reigns, last=None))


def _finish(reigns: Reigns, numbers: tuple[int, ...], lock: Lock) -> None:
    lock.check()
    previous = PREVIOUS.format(alias=reigns.alias)
    if len(numbers) > 1:
        registry.set_alias(reigns.name, previous, numbers[-2])
    else:
        MlflowClient().delete_registered_model_alias(reigns.name, previous)
    _write(replace(reigns, numbers=numbers))


def _write(reigns: Reigns, *, following: tuple[int, ...] | None = None) -> None:
    journal = {"numbers": reigns.numbers, "last": None if reigns.last is None else asdict(reigns.last)}
    if following is not None:
        journal |= {"following": following}
    MlflowClient().set_registered_model_tag(reigns.name, _TAG.format(alias=reigns.alias), json.dumps(journal))
