from __future__ import annotations

import json
import shutil
from dataclasses import replace
from typing import Any

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mlflow_sb3.envs import env_spec
from mlflow_sb3.envs.rollout import Episodes
from mlflow_sb3.envs.seeds import generate_episode_seeds
from mlflow_sb3.promotion import promotion_run, record, rollback
from mlflow_sb3.promotion.gate import Gate
from mlflow_sb3.promotion.promote import PromotionOptions, promote_version
from mlflow_sb3.registry import alias_history, lock, registration, versions
from mlflow_sb3.registry.model_version import Version
from tests.conftest import leveled

Levels = list[Version]
QUICK = Gate(episodes=60)
SURE = Gate(episodes=60, alpha=0.001)
"""Seeds follow from the ids of the models, which are new in every test: errs once in a thousand."""


def promote(version: Version, **terms: Any) -> record.PromotionRecord:
    return promote_version(version, PromotionOptions(**{"gate": QUICK} | terms))


def aliases(name: str = "levels") -> dict[str, int]:
    return {
        alias: int(number)
        for alias, number in MlflowClient().get_registered_model(name).aliases.items()
    }


def tags(version: Version) -> dict[str, str]:
    found: dict[str, str] = MlflowClient().get_model_version(version.name, str(version.number)).tags
    return found


def logged() -> dict[str, Any]:
    run = mlflow.active_run()
    assert run is not None
    found: dict[str, Any] = json.loads(
        mlflow.artifacts.load_text(f"{run.info.artifact_uri}/promotion.json")
    )
    return found


def test_the_first_champion_has_to_beat_random_actions(levels: Levels) -> None:
    worst, *_, best = levels

    lost = promote(worst)
    without = aliases()
    won = promote(best)

    assert (lost["verdict"], without) == ("reject", {})
    assert "a uniform random policy" in lost["reason"]
    assert "there is no champion yet" in lost["reason"]
    assert (won["verdict"], aliases()) == ("promote", {"champion": 5})


def test_the_better_agent_becomes_champion_and_the_former_one_keeps_a_name(levels: Levels) -> None:
    promote(levels[2])

    found = promote(levels[4])

    assert found["verdict"] == "promote"
    assert found["lower_bound"] > 0
    assert aliases() == {"champion": 5, "previous-champion": 3}


def test_the_worse_agent_is_rejected_early_and_told_why(levels: Levels) -> None:
    promote(levels[4])

    found = promote(levels[2])

    assert found["verdict"] == tags(levels[2])["mlflow_sb3.verdict"] == "reject"
    assert tags(levels[2])["mlflow_sb3.reason"] == found["reason"]
    assert tags(levels[2])["mlflow_sb3.promotion_run"] == found["run_id"]
    assert [look["pairs"] for look in found["looks"]] == [25]
    assert len(found["episodes"]["seed"]) == 25
    assert aliases() == {"champion": 5}


def test_an_equal_agent_ties_and_the_champion_stays(levels: Levels) -> None:
    promote(levels[2])

    found = promote(levels[3])

    assert found["verdict"] == "tie"
    assert "At most 4.87 % of all pairs differ" in found["reason"]
    assert len(found["episodes"]["seed"]) == 60
    assert aliases() == {"champion": 3}


def test_what_may_be_chance_is_inconclusive(levels: Levels) -> None:
    promote(levels[0], force="the first one")

    found = promote(levels[1], gate=SURE)

    assert found["verdict"] == "inconclusive"
    assert found["lower_bound"] < 0 < found["upper_bound"]
    assert "may" not in found["reason"]
    assert "levels/1 stays the champion" in found["reason"]


def test_the_champion_ties_with_itself_and_nothing_is_played(levels: Levels) -> None:
    promote(levels[4])
    before = tags(levels[4])

    found = promote(levels[4])

    assert found["verdict"] == "tie"
    assert found["reason"] == "levels/5 is the champion already, and nothing was played."
    assert tags(levels[4]) == before


def test_an_improvement_that_is_too_small_is_no_promotion(levels: Levels) -> None:
    promote(levels[2])

    rejected = promote(levels[4], gate=Gate(episodes=60, min_improvement=4.0))
    promoted = promote(levels[4], gate=Gate(episodes=60, min_improvement=1.0))

    assert (rejected["verdict"], promoted["verdict"]) == ("reject", "promote")
    assert "4.00 was asked for" in rejected["reason"]


def test_a_least_return_is_asked_of_the_mean(levels: Levels) -> None:
    rejected = promote(levels[4], gate=Gate(episodes=60, min_return=9.0))
    inconclusive = promote(levels[4], gate=replace(SURE, min_return=6.0))
    promoted = promote(levels[4], gate=Gate(episodes=60, min_return=5.0))

    assert (rejected["verdict"], inconclusive["verdict"], promoted["verdict"]) == (
        "reject",
        "inconclusive",
        "promote",
    )
    assert "min_return is 9.00" in rejected["reason"]


def test_both_play_the_seeds_of_their_pair(levels: Levels) -> None:
    promote(levels[4])

    found = promote(levels[2])

    seed = QUICK.seed("levels", levels[2].model_id, levels[4].model_id, found["environment"])
    seeds = generate_episode_seeds(seed, "gate", 25)
    assert found["episodes"]["seed"] == seeds
    assert found["seeds"] == record.seeds_digest(
        Episodes(np.array(seeds), np.zeros(25), np.zeros(25, np.int64))
    )


def test_a_challenger_that_loses_loses_its_alias_and_one_that_wins_is_no_challenger_any_more(
    levels: Levels,
) -> None:
    held = []
    for number in (3, 4, 1, 5):
        versions.set_alias("levels", "challenger", number)
        promote(levels[number - 1])
        held.append("challenger" in aliases())
    promote(levels[0], force="the next is hardly better")
    versions.set_alias("levels", "challenger", 2)

    undecided = promote(levels[1], gate=SURE)

    assert held == [False] * 4
    assert (undecided["verdict"], aliases()["challenger"]) == ("inconclusive", 2)


def test_the_alias_of_another_challenger_is_left_alone(levels: Levels) -> None:
    promote(levels[4])
    versions.set_alias("levels", "challenger", 3)

    promote(levels[0])

    assert aliases()["challenger"] == 3


def test_force_promotes_without_playing_and_says_why(levels: Levels) -> None:
    promote(levels[4])

    found = promote(levels[0], force="the best one hurts the gripper")

    assert aliases() == {"champion": 1, "previous-champion": 5}
    assert found["reason"] == (
        "levels/1 did not have to play in place of levels/5: the best one hurts the gripper. So it becomes the champion."
    )
    assert logged()["rule"] == "force"
    assert "episodes" not in logged()


def test_approval_is_waited_for(levels: Levels) -> None:
    waiting = promote(levels[4], approval=True)
    before = aliases()
    MlflowClient().set_model_version_tag("levels", "5", "approval", "approved")

    approved = promote(levels[4], approval=True)

    assert (waiting["verdict"], waiting["moves"], before) == ("promote", False, {})
    assert "set the tag approval=approved on version 5 and promote it again" in waiting["reason"]
    assert (approved["moves"], aliases()) == (True, {"champion": 5})


def test_what_nobody_approved_does_not_take_over_by_force_either(levels: Levels) -> None:
    MlflowClient().set_model_version_tag("levels", "5", "approval", "rejected")

    assert not promote(levels[4], approval=True, force="now")["moves"]
    assert aliases() == {}


@pytest.mark.parametrize(
    ("fault", "says"),
    [("nan", "returned nan, which cannot be compared"), ("crash", "the simulator is gone")],
)
def test_what_cannot_be_decided_is_an_error_and_moves_nothing(
    levels: Levels, fault: str, says: str
) -> None:
    promote(levels[2])
    judge = env_spec.compose_spec("tests.environments:Levels-v0", kwargs={"fault": fault})

    with pytest.raises((ValueError, LookupError), match=says):
        promote(levels[4], judge=judge)

    assert logged()["verdict"] == tags(levels[4])["mlflow_sb3.verdict"] == "error"
    assert says in logged()["reason"]
    assert aliases() == {"champion": 3}


def test_agents_of_different_environments_are_compared_where_one_is_named(levels: Levels) -> None:
    promote(levels[2])
    other = leveled(7, spread=2.0)

    with pytest.raises(
        MlflowException,
        match=r"levels/6 and levels/3 were trained in different environments.*name the one that judges",
    ):
        promote(other)
    found = promote(other, judge="champion")

    assert found["verdict"] == "promote"
    assert json.loads(found["environment"])["kwargs"] == {}
    assert aliases()["champion"] == 6


@pytest.mark.usefixtures("levels")
@pytest.mark.parametrize(
    ("judge", "says"),
    [
        ("CartPole-v1", r"has observations Box.*levels/5 was trained for Box\(-1"),
        ("Nope-v0", "environment 'Nope-v0' cannot be made"),
        ("{}", "is no EnvSpec JSON"),
    ],
)
def test_a_judge_that_does_not_fit_is_refused(judge: str, says: str) -> None:
    with pytest.raises(MlflowException, match=says):
        promote(versions.find_version("levels", number=5), judge=judge)


def test_a_champion_that_came_meanwhile_is_played_against(
    levels: Levels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The champion changes while the games are played: exactly between them and the lock."""
    promote(levels[2])
    written = promotion_run.write_record

    def and_then_somebody_promotes(found: record.PromotionRecord, version: Version) -> None:
        written(found, version)
        if found["champion"]["number"] == 3:
            versions.set_alias("levels", "champion", 5)

    monkeypatch.setattr(promotion_run, "write_record", and_then_somebody_promotes)
    better = leveled(6)

    found = promote(better)

    assert found["verdict"] == "reject"
    assert found["champion"]["number"] == 5
    assert [
        (earlier["champion"]["number"], earlier["verdict"]) for earlier in found["earlier"]
    ] == [(3, "promote")]
    assert aliases() == {"champion": 5}


@pytest.mark.parametrize("lost_at", [1, 2], ids=["before the alias moves", "after it"])
def test_a_lock_that_is_lost_is_taken_again(
    levels: Levels, monkeypatch: pytest.MonkeyPatch, lost_at: int
) -> None:
    """Somebody takes the lock away exactly before one of the checks."""
    promote(levels[2])
    check, checks = lock.PromotionLock.check, []

    def robbed(held: lock.PromotionLock) -> None:
        checks.append(1)
        if len(checks) == lost_at:
            MlflowClient().delete_registered_model(held.name)
        check(held)

    monkeypatch.setattr(lock.PromotionLock, "check", robbed)

    found = promote(levels[4])

    assert found["verdict"] == "promote"
    assert aliases() == {"champion": 5, "previous-champion": 3}
    assert alias_history.read_history("levels", "champion").numbers == (3, 5)
    assert len(checks) > lost_at


def test_a_late_call_does_not_put_the_worse_one_over_a_new_champion(
    levels: Levels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The holder stalls before its alias is set, another one takes the lock and becomes champion, and then the call comes."""
    promote(levels[0], force="a history")
    set_alias = versions.set_alias
    stalled: list[str] = []

    def stalling(name: str, alias: str, number: int) -> None:
        if not stalled:
            stalled.append(alias)
            MlflowClient().delete_registered_model("levels.lock")
            promote(levels[4], force="somebody else's process")
        set_alias(name, alias, number)

    monkeypatch.setattr(versions, "set_alias", stalling)

    found = promote(levels[2])

    assert stalled == ["champion"]
    assert found["verdict"] == "reject"
    assert [earlier["verdict"] for earlier in found["earlier"]] == ["promote"]
    assert aliases()["champion"] == 5


@pytest.mark.parametrize("deleted", [1, 3])
def test_versions_that_were_deleted_stand_in_nobodys_way(levels: Levels, deleted: int) -> None:
    for number in (1, 3, 5):
        promote(levels[number - 1], force="a history")
    MlflowClient().delete_model_version("levels", str(deleted))

    rollback.roll_back("levels")
    rolled = aliases()
    promote(levels[3], force="go on")

    left = 4 - deleted
    assert rolled == {"champion": left}
    assert aliases() == {"champion": 4, "previous-champion": left}


def test_a_champion_that_was_deleted_is_followed_by_another(levels: Levels) -> None:
    promote(levels[2], force="a history")
    MlflowClient().delete_model_version("levels", "3")

    promote(levels[4], force="go on")

    assert aliases() == {"champion": 5}


def test_an_approval_ends_with_the_rollback(levels: Levels) -> None:
    promote(levels[2])
    MlflowClient().set_model_version_tag("levels", "5", "approval", "approved")
    promote(levels[4], approval=True)

    rollback.roll_back("levels")

    assert not promote(levels[4], approval=True)["moves"]
    assert aliases() == {"champion": 3}


def test_what_was_rolled_back_and_promoted_again_is_not_marked_any_more(levels: Levels) -> None:
    promote(levels[2])
    promote(levels[4])
    rollback.roll_back("levels")
    marked = versions.ROLLED_BACK_TAG in tags(levels[4])

    promote(levels[4])

    assert marked
    assert versions.ROLLED_BACK_TAG not in tags(levels[4])


def test_naming_the_judge_that_judges_anyway_is_no_other_chance(levels: Levels) -> None:
    promote(levels[4])

    found = [
        promote(levels[2], judge=judge)["episodes"] for judge in (None, "champion", "challenger")
    ]

    assert found[0] == found[1] == found[2]


def test_what_cannot_take_over_is_recorded_as_an_error(levels: Levels) -> None:
    MlflowClient().create_registered_model("levels.lock")

    with pytest.raises(MlflowException, match="is no lock"):
        promote(levels[4], force="try")
    assert aliases() == {}


def test_a_model_with_an_apostrophe_is_rolled_back_too(levels: Levels) -> None:
    for version in (levels[2], levels[4]):
        registered = registration.register_version(version.model_id, "bob's")
        promote(registered, force="a history")

    rollback.roll_back("bob's")

    assert aliases("bob's") == {"champion": 1}


def test_a_promotion_needs_a_run(levels: Levels) -> None:
    mlflow.end_run()

    with pytest.raises(MlflowException, match=r"call it inside mlflow\.start_run"):
        promote(levels[4])


def test_rolling_back_twice_goes_back_two(levels: Levels) -> None:
    for version in (levels[0], levels[2], levels[4]):
        promote(version, force="a history")

    first = rollback.roll_back("levels", why="it crashed")
    between = aliases()
    rollback.roll_back("levels")

    assert first["reason"] == "levels/3 is the champion again, in place of levels/5: it crashed."
    assert between == {"champion": 3, "previous-champion": 1}
    assert aliases() == {"champion": 1}
    assert logged()["verdict"] == logged()["rule"] == "rollback"
    with pytest.raises(MlflowException, match="nobody was champion of levels before version 1"):
        rollback.roll_back("levels")


def test_a_version_that_was_champion_twice_is_gone_back_over_twice(levels: Levels) -> None:
    for number in (1, 3, 1, 5):
        promote(levels[number - 1], force="a history")

    visited = []
    for _ in range(3):
        rollback.roll_back("levels")
        visited.append(aliases()["champion"])

    assert visited == [1, 3, 1]
    assert alias_history.read_history("levels", "champion").numbers == (1,)


def test_a_rollback_skips_what_was_deleted_and_does_without_the_champion(levels: Levels) -> None:
    for version in (levels[0], levels[2], levels[4]):
        promote(version, force="a history")
    MlflowClient().delete_model_version("levels", "3")
    MlflowClient().delete_model_version("levels", "5")

    rollback.roll_back("levels")

    assert aliases()["champion"] == 1


def test_a_champion_that_a_person_set_is_gone_back_from(levels: Levels) -> None:
    promote(levels[2])
    versions.set_alias("levels", "champion", 5)

    rollback.roll_back("levels")

    assert aliases() == {"champion": 3}


def test_a_champion_whose_files_are_gone_is_named_and_rolled_back(store: str) -> None:  # noqa: ARG001 files of this test alone
    with mlflow.start_run():
        first, second, third = leveled(5), leveled(7), leveled(6)
        promote(first, force="a history")
        promote(second, force="a history")
        shutil.rmtree(
            mlflow.get_logged_model(second.model_id).artifact_location.removeprefix("file://")
        )

        with pytest.raises(
            MlflowException,
            match="levels/2 cannot be loaded: model version levels/2 has no files any more",
        ):
            promote(third)
        refused = aliases(), logged()["verdict"]
        rollback.roll_back("levels")

    assert refused == ({"champion": 2, "previous-champion": 1}, "error")
    assert aliases() == {"champion": 1}
