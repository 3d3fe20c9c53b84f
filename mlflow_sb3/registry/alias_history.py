"""Store which versions had an alias, and move the alias.

The history is JSON in a tag of the registered model. ``move_alias`` writes the planned history
before it moves the alias. After a kill, ``recover_move`` completes or discards the plan.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any, Literal

from mlflow.exceptions import MlflowException

from mlflow_sb3.client.registry_client import RegistryClient
from mlflow_sb3.registry import versions
from mlflow_sb3.registry.champion_table import Champion, add_champion
from mlflow_sb3.registry.lock import PromotionLock, hold_lock

MAX_HISTORY = 200
"""Largest number of versions in a history."""
MAX_LOOKUPS = 10
"""Largest number of former versions to look up. Each version takes one request."""
PREVIOUS_ALIAS = "previous-{alias}"
"""Alias of the version that had the alias before."""
_HISTORY_TAG = "mlflow.sb3.reigns.{alias}"
"""Tag of a registered model: the history as JSON. MLflow's pages hide tags of ``mlflow.``."""
_VISIBLE_HISTORY_TAG = "mlflow_sb3.reigns.{alias}"
"""Name of that tag in earlier releases."""
_COMPLETED_TAG = "mlflow.sb3.concluded.{alias}"
"""Tag of a registered model: run of the last rollback that is complete."""
_VISIBLE_COMPLETED_TAG = "mlflow_sb3.concluded.{alias}"
"""Name of that tag in earlier releases."""


@dataclass(frozen=True)
class AliasMove:
    """A move of an alias.

    Attributes:
        by: Kind of the step that moved the alias.
        run_id: Run of that step.
        time: Time of the move, in milliseconds since 1970. 0 in moves of earlier releases.
        mean_return: As in ``Champion``.
        why: As in ``Champion``.
    """

    by: Literal["promotion", "rollback"]
    run_id: str
    time: int = 0
    mean_return: str = ""
    why: str = ""


@dataclass(frozen=True)
class AliasHistory:
    """The versions that had an alias of a registered model.

    Attributes:
        name: Name of the registered model.
        alias: The alias.
        numbers: Version numbers, oldest first.
        champion: Number of the version that has the alias now.
        last_move: Last move that ``move_alias`` recorded. None if the alias was set otherwise, or
            if an interrupted move was discarded.
        planned_numbers: The ``numbers`` that an unfinished move will write, or None.
        is_manual: Whether the alias was moved to the champion without ``move_alias``. False if no
            version had the alias before.
        completed_rollback: Run of the last rollback that is complete. None if the alias was set by
            hand since.
        description: Description of the registered model.
        has_visible_tag: Whether an earlier version of the package wrote the history.
    """

    name: str
    alias: str
    numbers: tuple[int, ...]
    champion: int | None
    last_move: AliasMove | None = None
    planned_numbers: tuple[int, ...] | None = None
    is_manual: bool = False
    completed_rollback: str | None = None
    description: str = ""
    has_visible_tag: bool = False

    @property
    def former_numbers(self) -> tuple[int, ...]:
        """Version numbers before the champion, oldest first."""
        return self.numbers[:-1] if self.champion is not None else self.numbers


def read_history(name: str, alias: str) -> AliasHistory:
    """Read the history of an alias.

    If a user set the alias by hand, the history ends with that version.
    """
    model = RegistryClient().get_registered_model(name)
    champion = int(model.aliases[alias]) if alias in model.aliases else None
    tag, visible_tag = (text.format(alias=alias) for text in (_HISTORY_TAG, _VISIBLE_HISTORY_TAG))
    read_tag = visible_tag if visible_tag in model.tags else tag
    content = _parse_history(name, read_tag, model.tags.get(read_tag, "{}"))
    planned = content.get("following")
    history = AliasHistory(
        name,
        alias,
        numbers=tuple(content.get("numbers", ())),
        champion=champion,
        last_move=AliasMove(**content["last"]) if content.get("last") else None,
        planned_numbers=None if planned is None else tuple(planned),
        completed_rollback=model.tags.get(
            _COMPLETED_TAG.format(alias=alias),
            model.tags.get(_VISIBLE_COMPLETED_TAG.format(alias=alias)),
        ),
        description=model.description or "",
        has_visible_tag=visible_tag in model.tags,
    )
    if planned is None and champion is not None and history.numbers[-1:] != (champion,):
        return _add_manual_champion(history, champion)
    return history


def recover_interrupted_move(name: str, alias: str) -> AliasHistory:
    """Complete or discard an interrupted move, and remove the lock of a killed process.

    Returns:
        The history afterwards.
    """
    with hold_lock(name) as lock:
        return recover_move(name, alias, lock)


def recover_move(name: str, alias: str, lock: PromotionLock) -> AliasHistory:
    """Complete or discard an interrupted move of an alias. The caller holds the lock.

    The move is completed if the alias has moved, and discarded otherwise.

    Returns:
        The history afterwards.
    """
    history = read_history(name, alias)
    if history.planned_numbers is None:
        return history
    if history.planned_numbers[-1] == history.champion:
        _finish_move(history, history.planned_numbers, lock)
    else:
        _write_history(replace(history, last_move=None))
    return read_history(name, alias)


def move_alias(
    history: AliasHistory, numbers: tuple[int, ...], move: AliasMove, lock: PromotionLock
) -> None:
    """Move an alias to another version. The caller holds the lock.

    The alias moves with one request, so that it always points to a version.

    Args:
        history: Current history of the alias.
        numbers: All version numbers of the history after the move, oldest first. The last version
            gets the alias. The alias ``previous-…`` moves to the last version before it that
            differs and still exists.
        move: Description of the move.
        lock: Lock of the registered model.

    Raises:
        LockLostError: Another process took over the lock.
    """
    numbers = numbers[-MAX_HISTORY:]
    history = replace(history, last_move=move)
    _write_history(history, planned_numbers=numbers)
    history = replace(history, has_visible_tag=False)
    lock.check()
    versions.set_alias(history.name, history.alias, numbers[-1])
    _finish_move(history, numbers, lock)


def mark_rollback_complete(name: str, alias: str, run_id: str) -> None:
    """Record that a rollback is complete. The next rollback then goes back further.

    Call it last in a rollback.
    """
    RegistryClient().set_registered_model_tag(name, _COMPLETED_TAG.format(alias=alias), run_id)


def find_last_existing_version(name: str, numbers: Sequence[int]) -> int | None:
    """Return the last number of a version that still exists.

    Only the last ``MAX_LOOKUPS`` distinct numbers are looked up.

    Returns:
        The number, or None if all of these versions were deleted.
    """
    candidates = islice(dict.fromkeys(reversed(numbers)), MAX_LOOKUPS)
    return next((number for number in candidates if versions.has_version(name, number)), None)


def _parse_history(name: str, tag: str, text: str) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(text)
    except ValueError as error:
        raise MlflowException.invalid_parameter_value(
            f"The tag {tag} of registered model {name} is {text!r}, which is not valid JSON. "
            "Delete the tag. This deletes the history of the alias."
        ) from error
    return content


def _add_manual_champion(history: AliasHistory, champion: int) -> AliasHistory:
    """Add the version that a user gave the alias to."""
    return replace(
        history,
        numbers=(*history.numbers, champion),
        last_move=None,
        is_manual=bool(history.numbers),
        completed_rollback=None,
    )


def _finish_move(history: AliasHistory, numbers: tuple[int, ...], lock: PromotionLock) -> None:
    """Move the alias ``previous-…``, and write the table of champions and the new history."""
    lock.check()
    previous_alias = PREVIOUS_ALIAS.format(alias=history.alias)
    others = [number for number in numbers[:-1] if number != numbers[-1]]
    previous = find_last_existing_version(history.name, others)
    if previous is not None:
        versions.set_alias(history.name, previous_alias, previous)
    else:
        RegistryClient().delete_registered_model_alias(history.name, previous_alias)
    _write_table(history, numbers)
    _write_history(replace(history, numbers=numbers))


def _write_table(history: AliasHistory, numbers: tuple[int, ...]) -> None:
    move = history.last_move
    if move is None:
        return
    champion = Champion(numbers[-1], move.time, move.mean_return, move.why)
    former = history.numbers[-1] if history.numbers else None
    description = add_champion(history.description, history.alias, champion, former=former)
    if description != history.description:
        RegistryClient().update_registered_model(history.name, description)


def _write_history(
    history: AliasHistory, *, planned_numbers: tuple[int, ...] | None = None
) -> None:
    move = history.last_move
    content = {"numbers": history.numbers, "last": None if move is None else asdict(move)}
    if planned_numbers is not None:
        content["following"] = planned_numbers
    RegistryClient().set_registered_model_tag(
        history.name, _HISTORY_TAG.format(alias=history.alias), json.dumps(content)
    )
    if history.has_visible_tag:
        RegistryClient().delete_registered_model_tag(
            history.name, _VISIBLE_HISTORY_TAG.format(alias=history.alias)
        )
