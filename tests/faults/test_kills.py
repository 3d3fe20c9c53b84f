"""Kill promotions and rollbacks before each registry request.

There is always a champion, it never lost a gate, and the next call repairs the rest.
"""

from __future__ import annotations

import json
from functools import partial
from itertools import count

import mlflow
import pytest
from mlflow import MlflowClient

from mlflow_sb3.promotion.promote import PromotionOptions, promote_version
from mlflow_sb3.registry import versions
from mlflow_sb3.registry.model_version import Version
from tests.faults import worker

pytestmark = pytest.mark.process

KILLED = -9
HISTORY_TAG = "mlflow.sb3.reigns.champion"


def reset_champions(levels: list[Version], *numbers: int) -> None:
    """Delete the history, and make these versions champion one after another."""
    client = MlflowClient()
    for alias in client.get_registered_model("levels").aliases:
        client.delete_registered_model_alias("levels", alias)
    client.set_registered_model_tag("levels", HISTORY_TAG, "{}")
    for number in numbers:
        promote_version(levels[number - 1], PromotionOptions(force_reason="a history"))


def get_aliases() -> dict[str, int]:
    aliases = MlflowClient().get_registered_model("levels").aliases
    return {alias: int(number) for alias, number in aliases.items()}


def assert_history(*numbers: int) -> None:
    """Check the numbers of the history, and that no lock and no plan is left."""
    assert [model.name for model in MlflowClient().search_registered_models()] == ["levels"]
    history = json.loads(MlflowClient().get_registered_model("levels").tags[HISTORY_TAG])
    assert tuple(history["numbers"]) == numbers
    assert "following" not in history


@pytest.mark.parametrize("before", [(1, 3), ()], ids=["champion", "first"])
def test_a_killed_promotion_leaves_a_champion_and_the_next_call_completes_it(
    levels: list[Version], before: tuple[int, ...]
) -> None:
    uri, promote = mlflow.get_tracking_uri(), partial(worker.promote, 5)
    previous = {"previous-champion": 3} if before else {}
    champions = []
    for request in count(1):
        reset_champions(levels, *before)
        versions.set_alias("levels", "challenger", 5)

        exit_code = worker.run_in_process(uri, promote, kill_before=request)

        champions.append(get_aliases().get("champion"))
        assert champions[-1] in (5, before[-1] if before else None), request
        assert worker.run_in_process(uri, promote) == 0, request
        assert get_aliases() == {"champion": 5} | previous, request
        assert_history(*before, 5)
        if exit_code == 0:
            break
        assert exit_code == KILLED
    assert len(set(champions)) == 2
    # Tags, lock, history twice, three aliases, table, lock, description, state.
    assert len(champions) >= 12


def test_a_killed_promotion_never_makes_the_loser_champion(levels: list[Version]) -> None:
    uri, promote = mlflow.get_tracking_uri(), partial(worker.promote, 3)
    reset_champions(levels, 1, 5)
    for request in count(1):
        versions.set_alias("levels", "challenger", 3)

        exit_code = worker.run_in_process(uri, promote, kill_before=request)

        assert get_aliases()["champion"] == 5, request
        assert worker.run_in_process(uri, promote) == 0, request
        assert get_aliases() == {"champion": 5, "previous-champion": 1}, request
        assert_history(1, 5)
        if exit_code == 0:
            break
        assert exit_code == KILLED


def test_the_next_call_completes_a_killed_rollback_and_goes_back_no_further(
    levels: list[Version],
) -> None:
    uri = mlflow.get_tracking_uri()
    champions = []
    for request in count(1):
        reset_champions(levels, 1, 3, 5)

        exit_code = worker.run_in_process(uri, worker.roll_back, kill_before=request)

        champions.append(get_aliases()["champion"])
        assert champions[-1] in (3, 5), request
        if exit_code == 0:
            break
        assert exit_code == KILLED
        assert worker.run_in_process(uri, worker.roll_back) == 0, request
        assert get_aliases() == {"champion": 3, "previous-champion": 1}, request
        assert_history(1, 3)
    assert {3, 5} == set(champions)
    assert worker.run_in_process(uri, worker.roll_back) == 0
    assert get_aliases() == {"champion": 1}
    assert_history(1)
