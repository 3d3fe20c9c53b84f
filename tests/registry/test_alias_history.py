from __future__ import annotations

import json

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mlflow_sb3.registry import alias_history, versions
from mlflow_sb3.registry.alias_history import AliasMove
from mlflow_sb3.registry.lock import hold_lock

HISTORY_TAG = "mlflow.sb3.reigns.champion"
MOVE = AliasMove("promotion", "run")

pytestmark = pytest.mark.usefixtures("store")


@pytest.fixture(autouse=True)
def _model(store: str) -> None:
    """Create the registered model ``agent`` with three versions."""
    MlflowClient().create_registered_model("agent")
    for _ in range(3):
        create_version()


def create_version() -> int:
    return int(MlflowClient().create_model_version("agent", "file:///nowhere").version)


def move_alias(*numbers: int) -> None:
    """Move the alias ``champion`` to the last number, and make the numbers its history."""
    with hold_lock("agent") as lock:
        history = alias_history.read_history("agent", "champion")
        alias_history.move_alias(history, numbers, MOVE, lock)


def get_aliases() -> dict[str, int]:
    aliases = MlflowClient().get_registered_model("agent").aliases
    return {alias: int(number) for alias, number in aliases.items()}


def interrupt_move(*numbers: int) -> None:
    """Write the plan of a move, as a process does that is killed afterwards."""
    content = json.loads(MlflowClient().get_registered_model("agent").tags.get(HISTORY_TAG, "{}"))
    plan = content | {"last": {"by": "promotion", "run_id": "killed"}, "following": numbers}
    MlflowClient().set_registered_model_tag("agent", HISTORY_TAG, json.dumps(plan))


def test_a_move_sets_both_aliases_and_the_history() -> None:
    move_alias(1)
    move_alias(1, 2)

    history = alias_history.read_history("agent", "champion")
    assert get_aliases() == {"champion": 2, "previous-champion": 1}
    assert (history.numbers, history.former_numbers, history.champion) == ((1, 2), (1,), 2)
    assert history.last_move == MOVE
    assert not history.is_manual


def test_a_history_keeps_the_latest_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alias_history, "MAX_HISTORY", 2)

    move_alias(1, 2, 3)

    assert alias_history.read_history("agent", "champion").numbers == (2, 3)


def test_an_alias_that_a_user_set_is_part_of_the_history() -> None:
    move_alias(1)
    versions.set_alias("agent", "champion", 3)

    history = alias_history.read_history("agent", "champion")
    assert history.numbers == (1, 3)
    assert history.is_manual
    assert history.last_move is None


def test_a_move_that_was_interrupted_before_the_alias_moved_is_discarded() -> None:
    move_alias(1)
    interrupt_move(1, 2)

    alias_history.recover_interrupted_move("agent", "champion")

    history = alias_history.read_history("agent", "champion")
    assert (history.numbers, history.planned_numbers, history.last_move) == ((1,), None, None)
    assert get_aliases() == {"champion": 1}


def test_a_move_that_was_interrupted_after_the_alias_moved_is_completed() -> None:
    move_alias(1)
    interrupt_move(1, 2)
    versions.set_alias("agent", "champion", 2)

    alias_history.recover_interrupted_move("agent", "champion")

    history = alias_history.read_history("agent", "champion")
    assert (history.numbers, history.planned_numbers) == ((1, 2), None)
    assert history.last_move == AliasMove("promotion", "killed")
    assert get_aliases() == {"champion": 2, "previous-champion": 1}


def test_the_run_of_a_complete_rollback_is_recorded() -> None:
    move_alias(1)

    alias_history.mark_rollback_complete("agent", "champion", "rollback")

    assert alias_history.read_history("agent", "champion").completed_rollback == "rollback"


def test_a_broken_tag_is_refused_with_a_remedy() -> None:
    MlflowClient().set_registered_model_tag("agent", HISTORY_TAG, "[")

    with pytest.raises(MlflowException, match=r"'\[', which is not valid JSON\. Delete the tag"):
        alias_history.read_history("agent", "champion")


def test_a_limited_number_of_former_versions_is_looked_up() -> None:
    client = MlflowClient()
    numbers = [1, 2, 3]
    numbers += [create_version() for _ in range(alias_history.MAX_LOOKUPS + 1 - len(numbers))]
    oldest, second, *rest = numbers
    for number in rest:
        client.delete_model_version("agent", str(number))

    assert alias_history.find_last_existing_version("agent", numbers) == second
    assert alias_history.find_last_existing_version("agent", [*numbers, *rest]) == second
    client.delete_model_version("agent", str(second))
    assert alias_history.find_last_existing_version("agent", numbers) is None
    assert alias_history.find_last_existing_version("agent", [second, oldest]) == oldest
