"""A kill -9 between any two calls of the registry: always a champion, never one that lost, and a second call sets it right."""

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

pytestmark = pytest.mark.postgres

KILLED = -9
REIGNS = "mlflow_sb3.reigns.champion"


def crown(levels: list[Version], *numbers: int) -> None:
    """Give the alias to these versions, one after another, and forget all reigns before."""
    client = MlflowClient()
    for alias in client.get_registered_model("levels").aliases:
        client.delete_registered_model_alias("levels", alias)
    client.set_registered_model_tag("levels", REIGNS, "{}")
    for number in numbers:
        promote_version(levels[number - 1], PromotionOptions(force="a history"))


def aliases() -> dict[str, int]:
    return {
        alias: int(number)
        for alias, number in MlflowClient().get_registered_model("levels").aliases.items()
    }


def assert_settled(*numbers: int) -> None:
    """No lock is left, and the tag of the reigns says these and nothing unfinished."""
    assert [model.name for model in MlflowClient().search_registered_models()] == ["levels"]
    journal = json.loads(MlflowClient().get_registered_model("levels").tags[REIGNS])
    assert tuple(journal["numbers"]) == numbers
    assert "following" not in journal


@pytest.mark.parametrize("before", [(1, 3), ()], ids=["champion", "first"])
def test_a_promotion_that_is_killed_anywhere_leaves_a_champion_and_is_finished_by_the_next(
    levels: list[Version], before: tuple[int, ...]
) -> None:
    uri, promote = mlflow.get_tracking_uri(), partial(worker.promote, 5)
    found = []
    for killed_before in count(1):
        crown(levels, *before)
        versions.set_alias("levels", "challenger", 5)

        code = worker.call(uri, promote, killed_before)

        found.append(aliases().get("champion"))
        assert found[-1] in (5, before[-1] if before else None), killed_before
        assert worker.call(uri, promote) == 0, killed_before
        assert aliases() == {"champion": 5} | ({"previous-champion": 3} if before else {}), (
            killed_before
        )
        assert_settled(*before, 5)
        if code == 0:
            break
        assert code == KILLED
    assert len(set(found)) == 2
    assert (
        len(found) > 12
    )  # the tags, the description, the lock, the journal twice, three aliases, the lock again


def test_a_challenger_that_loses_never_becomes_champion_however_it_is_killed(
    levels: list[Version],
) -> None:
    uri, promote = mlflow.get_tracking_uri(), partial(worker.promote, 3)
    crown(levels, 1, 5)
    for killed_before in count(1):
        versions.set_alias("levels", "challenger", 3)

        code = worker.call(uri, promote, killed_before)

        assert aliases()["champion"] == 5, killed_before
        assert worker.call(uri, promote) == 0, killed_before
        assert aliases() == {"champion": 5, "previous-champion": 1}, killed_before
        assert_settled(1, 5)
        if code == 0:
            break
        assert code == KILLED


def test_a_rollback_that_is_killed_anywhere_is_finished_by_the_next_and_goes_no_further(
    levels: list[Version],
) -> None:
    uri = mlflow.get_tracking_uri()
    found = []
    for killed_before in count(1):
        crown(levels, 1, 3, 5)

        code = worker.call(uri, worker.roll_back, killed_before)

        found.append(aliases()["champion"])
        assert aliases()["champion"] in (3, 5), killed_before
        if code == 0:
            break
        assert code == KILLED
        assert worker.call(uri, worker.roll_back) == 0, killed_before
        assert aliases() == {"champion": 3, "previous-champion": 1}, killed_before
        assert_settled(1, 3)
    assert {3, 5} == set(found)
    assert worker.call(uri, worker.roll_back) == 0
    assert aliases() == {"champion": 1}
    assert_settled(1)
