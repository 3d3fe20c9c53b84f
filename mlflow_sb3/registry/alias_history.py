"""Who bears an alias, and who bore it before: a tag of the registered model, written ahead so that a kill leaves nothing half done."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any, Literal

from mlflow.exceptions import MlflowException

from mlflow_sb3.client.registry_client import RegistryClient
from mlflow_sb3.registry import versions
from mlflow_sb3.registry.lock import PromotionLock, hold_lock

MAX_HISTORY = 200
"""Reigns that are remembered."""
MAX_LOOKUPS = 10
"""Former champions that are looked for, the last ones: each takes a call of the registry, which knows no search for several numbers."""
PREVIOUS_ALIAS = "previous-{alias}"
"""Alias of the version that bore an alias before."""
_TAG = "mlflow_sb3.reigns.{alias}"
_CONCLUDED = "mlflow_sb3.concluded.{alias}"
"""Tag: the run of the last rollback that went through to its end."""


@dataclass(frozen=True)
class AliasMove:
    """What moved the alias, and the run that did it."""

    by: Literal["promotion", "rollback"]
    run_id: str


@dataclass(frozen=True)
class AliasHistory:
    """The versions that bore an alias of a registered model, the last one last."""

    name: str
    alias: str
    numbers: tuple[int, ...]
    champion: int | None
    """Who bears the alias now."""
    last: AliasMove | None = None
    """The last move, if it was not made by a person."""
    following: tuple[int, ...] | None = None
    """What the numbers become by the last move, if it was begun and not finished."""
    by_hand: bool = False
    """Whether somebody else than a promotion or a rollback gave the alias to the champion."""
    concluded: str | None = None
    """The run of the last rollback that went through to its end."""

    @property
    def before(self) -> tuple[int, ...]:
        """Those before the champion, the last one last."""
        return self.numbers[:-1] if self.champion is not None else self.numbers


def read_history(name: str, alias: str) -> AliasHistory:
    """Read the reigns; a version that a person gave the alias to has the last one."""
    model = RegistryClient().get_registered_model(name)
    champion = int(model.aliases[alias]) if alias in model.aliases else None
    journal = _journal(name, model.tags.get(_TAG.format(alias=alias), "{}"))
    last = AliasMove(**journal["last"]) if journal.get("last") else None
    numbers, concluded = (
        tuple(journal.get("numbers", ())),
        model.tags.get(_CONCLUDED.format(alias=alias)),
    )
    if "following" in journal:
        return AliasHistory(
            name, alias, numbers, champion, last, tuple(journal["following"]), concluded=concluded
        )
    if champion is not None and numbers[-1:] != (champion,):
        return AliasHistory(name, alias, (*numbers, champion), champion, by_hand=bool(numbers))
    return AliasHistory(name, alias, numbers, champion, last, concluded=concluded)


def _journal(name: str, text: str) -> dict[str, Any]:
    try:
        journal: dict[str, Any] = json.loads(text)
    except ValueError as error:
        raise MlflowException.invalid_parameter_value(
            f"the tag {_TAG.format(alias='...')} of {name} is {text!r}, which is no JSON; delete the tag to forget the former champions."
        ) from error
    return journal


def recover_interrupted_move(name: str, alias: str) -> None:
    """Finish, or forget, a move that was interrupted, and take the lock away that a killed process left."""
    with hold_lock(name) as lock:
        recover_move(name, alias, lock)


def recover_move(name: str, alias: str, lock: PromotionLock) -> AliasHistory:
    """Finish a move that was interrupted after the alias had moved, forget one that was interrupted before; call it with the lock."""
    found = read_history(name, alias)
    if found.following is None:
        return found
    if found.following[-1] == found.champion:
        _finish(found, found.following, lock)
    else:
        _write(replace(found, last=None))
    return read_history(name, alias)


def move_alias(
    reigns: AliasHistory, numbers: tuple[int, ...], what: AliasMove, lock: PromotionLock
) -> None:
    """Give the alias to the last of these numbers, and ``previous-…`` to the one before it; call it with the lock.

    The alias itself moves in one call of the registry: somebody bears it all the time.
    """
    moving = replace(reigns, last=what)
    _write(moving, following=numbers[-MAX_HISTORY:])
    lock.check()
    versions.set_alias(reigns.name, reigns.alias, numbers[-1])
    _finish(moving, numbers[-MAX_HISTORY:], lock)


def mark_complete(name: str, alias: str, run_id: str) -> None:
    """Say that a rollback went through to its end, as its last call of the registry: who calls again means to go further back."""
    RegistryClient().set_registered_model_tag(name, _CONCLUDED.format(alias=alias), run_id)


def last_existing_version(name: str, numbers: Sequence[int]) -> int | None:
    """The last of these versions that has not been deleted; None when the last ``LOOKED_FOR`` of them have."""
    last = islice(dict.fromkeys(reversed(numbers)), MAX_LOOKUPS)
    return next((number for number in last if versions.version_exists(name, number)), None)


def _finish(reigns: AliasHistory, numbers: tuple[int, ...], lock: PromotionLock) -> None:
    lock.check()
    previous = PREVIOUS_ALIAS.format(alias=reigns.alias)
    before = last_existing_version(
        reigns.name, [number for number in numbers[:-1] if number != numbers[-1]]
    )
    if before is not None:
        versions.set_alias(reigns.name, previous, before)
    else:
        RegistryClient().delete_registered_model_alias(reigns.name, previous)
    _write(replace(reigns, numbers=numbers))


def _write(reigns: AliasHistory, *, following: tuple[int, ...] | None = None) -> None:
    journal = {
        "numbers": reigns.numbers,
        "last": None if reigns.last is None else asdict(reigns.last),
    }
    if following is not None:
        journal |= {"following": following}
    RegistryClient().set_registered_model_tag(
        reigns.name, _TAG.format(alias=reigns.alias), json.dumps(journal)
    )
