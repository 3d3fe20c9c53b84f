from __future__ import annotations

import shutil

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mlflow_sb3.promotion import rollback
from mlflow_sb3.registry import alias_history, registration, versions
from tests.conftest import register_level
from tests.promotion.level_promotions import Levels, promote, read_aliases, read_promotion_json


def test_two_rollbacks_go_back_two_versions(levels: Levels) -> None:
    for version in (levels[0], levels[2], levels[4]):
        promote(version, force_reason="history")

    first = rollback.roll_back("levels", why="it crashed")
    aliases_between = read_aliases()
    rollback.roll_back("levels")

    assert first.reason == (
        "levels/3 is the champion again, in place of levels/5. Reason: it crashed."
    )
    assert aliases_between == {"champion": 3, "previous-champion": 1}
    assert read_aliases() == {"champion": 1}
    assert read_promotion_json()["verdict"] == read_promotion_json()["rule"] == "rollback"
    with pytest.raises(MlflowException, match="No version of levels was champion before version 1"):
        rollback.roll_back("levels")


@pytest.mark.train
def test_each_promotion_of_the_same_version_is_rolled_back_once(levels: Levels) -> None:
    for number in (1, 3, 1, 5):
        promote(levels[number - 1], force_reason="history")

    champions = []
    for _ in range(3):
        rollback.roll_back("levels")
        champions.append(read_aliases()["champion"])

    assert champions == [1, 3, 1]
    assert alias_history.read_history("levels", "champion").numbers == (1,)


def test_a_rollback_skips_deleted_versions(levels: Levels) -> None:
    for version in (levels[0], levels[2], levels[4]):
        promote(version, force_reason="history")
    MlflowClient().delete_model_version("levels", "3")
    MlflowClient().delete_model_version("levels", "5")

    rollback.roll_back("levels")

    assert read_aliases()["champion"] == 1


@pytest.mark.train
@pytest.mark.parametrize("deleted", [1, 3])
def test_deleted_versions_are_skipped_by_rollbacks_and_promotions(
    levels: Levels, deleted: int
) -> None:
    for number in (1, 3, 5):
        promote(levels[number - 1], force_reason="history")
    MlflowClient().delete_model_version("levels", str(deleted))

    rollback.roll_back("levels")
    aliases_between = read_aliases()
    promote(levels[3], force_reason="continue")

    remaining = 4 - deleted
    assert aliases_between == {"champion": remaining}
    assert read_aliases() == {"champion": 4, "previous-champion": remaining}


def test_a_champion_set_by_hand_is_rolled_back(levels: Levels) -> None:
    promote(levels[2])
    versions.set_alias("levels", "champion", 5)

    rollback.roll_back("levels")

    assert read_aliases() == {"champion": 3}


@pytest.mark.train
def test_a_champion_without_files_is_rolled_back(store: str) -> None:
    with mlflow.start_run():
        first, second, third = register_level(5), register_level(7), register_level(6)
        promote(first, force_reason="history")
        promote(second, force_reason="history")
        shutil.rmtree(
            mlflow.get_logged_model(second.model_id).artifact_location.removeprefix("file://")
        )

        with pytest.raises(MlflowException, match=r"levels/2 cannot be loaded: .*levels/2"):
            promote(third)
        aliases_after_error, verdict = read_aliases(), read_promotion_json()["verdict"]
        rollback.roll_back("levels")

    assert aliases_after_error == {"champion": 2, "previous-champion": 1}
    assert verdict == "error"
    assert read_aliases() == {"champion": 1}


def test_a_model_name_with_an_apostrophe_can_be_rolled_back(levels: Levels) -> None:
    for version in (levels[2], levels[4]):
        registered = registration.register_version(version.model_id, "bob's")
        promote(registered, force_reason="history")

    rollback.roll_back("bob's")

    assert read_aliases("bob's") == {"champion": 1}
