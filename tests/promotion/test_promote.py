from __future__ import annotations

from dataclasses import replace

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mlflow_sb3.envs import env_spec
from mlflow_sb3.envs.seeds import generate_episode_seeds
from mlflow_sb3.promotion import record
from mlflow_sb3.promotion.gate import Gate
from mlflow_sb3.registry import versions
from mlflow_sb3.registry.versions import STATE_TAG
from tests.promotion.level_promotions import (
    QUICK,
    STRICT,
    Levels,
    evidence_of,
    promote,
    read_aliases,
    read_promotion_json,
    read_tags,
)


def test_the_first_champion_must_be_better_than_random_actions(levels: Levels) -> None:
    worst, *_, best = levels

    rejected = promote(worst)
    aliases_before = read_aliases()
    promoted = promote(best)

    assert (rejected.verdict, aliases_before) == ("reject", {})
    assert "a uniform random policy" in rejected.reason
    assert "there is no champion yet" in rejected.reason
    assert (promoted.verdict, read_aliases()) == ("promote", {"champion": 5})


def test_a_better_challenger_becomes_champion_and_the_old_one_previous_champion(
    levels: Levels,
) -> None:
    promote(levels[2])

    promotion = promote(levels[4])

    lower_bound = evidence_of(promotion).lower_bound
    assert promotion.verdict == "promote"
    assert lower_bound is not None
    assert lower_bound > 0
    assert read_aliases() == {"champion": 5, "previous-champion": 3}


def test_a_worse_challenger_is_rejected_at_the_first_look(levels: Levels) -> None:
    promote(levels[4])

    promotion = promote(levels[2])

    assert promotion.verdict == "reject"
    assert read_tags(levels[2])[STATE_TAG] == "rejected"
    assert [look.pairs for look in evidence_of(promotion).looks] == [25]
    assert len(evidence_of(promotion).episodes.seed) == 25
    assert read_aliases() == {"champion": 5}


def test_a_tie_keeps_the_champion(levels: Levels) -> None:
    promote(levels[2])

    promotion = promote(levels[3])

    assert promotion.verdict == "tie"
    assert "at most 4.87 % of further pairs would differ" in promotion.reason
    assert len(evidence_of(promotion).episodes.seed) == 60
    assert read_aliases() == {"champion": 3}


def test_a_small_difference_is_inconclusive(levels: Levels) -> None:
    promote(levels[0], force_reason="the first one")

    promotion = promote(levels[1], gate=STRICT)

    evidence = evidence_of(promotion)
    assert promotion.verdict == "inconclusive"
    assert evidence.lower_bound is not None
    assert evidence.upper_bound is not None
    assert evidence.lower_bound < 0 < evidence.upper_bound
    assert "levels/1 stays the champion" in promotion.reason


def test_the_champion_ties_with_itself_without_episodes(levels: Levels) -> None:
    promote(levels[4])
    tags_before = read_tags(levels[4])

    promotion = promote(levels[4])

    assert (promotion.verdict, promotion.evidence) == ("tie", None)
    assert promotion.reason == "levels/5 is already the champion, so no episodes were played."
    assert read_tags(levels[4]) == tags_before


def test_a_difference_below_min_improvement_is_rejected(levels: Levels) -> None:
    promote(levels[2])

    rejected = promote(levels[4], gate=Gate(episodes=60, min_improvement=4.0))
    promoted = promote(levels[4], gate=Gate(episodes=60, min_improvement=1.0))

    assert (rejected.verdict, promoted.verdict) == ("reject", "promote")
    assert "min_improvement is 4.00" in rejected.reason


@pytest.mark.train
def test_a_better_challenger_must_reach_min_return(levels: Levels) -> None:
    rejected = promote(levels[4], gate=Gate(episodes=60, min_return=9.0))
    inconclusive = promote(levels[4], gate=replace(STRICT, min_return=6.0))
    promoted = promote(levels[4], gate=Gate(episodes=60, min_return=5.0))

    verdicts = (rejected.verdict, inconclusive.verdict, promoted.verdict)
    assert verdicts == ("reject", "inconclusive", "promote")
    assert "min_return is 9.00" in rejected.reason


@pytest.mark.train
def test_both_agents_play_the_seeds_derived_from_the_gate(levels: Levels) -> None:
    promote(levels[4])

    evidence = evidence_of(promote(levels[2]))

    challenger, champion = levels[2].model_id, levels[4].model_id
    seed = QUICK.derive_seed("levels", challenger, champion, evidence.environment)
    seeds = generate_episode_seeds(seed, "gate", 25)
    assert evidence.episodes.seed == seeds
    assert evidence.seeds == record.hash_seeds(seeds)


def test_a_decided_challenger_loses_the_alias_challenger(levels: Levels) -> None:
    is_challenger = []
    for number in (3, 4, 1, 5):
        versions.set_alias("levels", "challenger", number)
        promote(levels[number - 1])
        is_challenger.append("challenger" in read_aliases())
    assert is_challenger == [False] * 4


def test_an_inconclusive_challenger_keeps_the_alias_challenger(levels: Levels) -> None:
    promote(levels[0], force_reason="almost as good as the next")
    versions.set_alias("levels", "challenger", 2)

    promotion = promote(levels[1], gate=STRICT)

    assert (promotion.verdict, read_aliases()["challenger"]) == ("inconclusive", 2)


def test_the_alias_of_another_challenger_is_kept(levels: Levels) -> None:
    promote(levels[4])
    versions.set_alias("levels", "challenger", 3)

    promote(levels[0])

    assert read_aliases()["challenger"] == 3


def test_a_forced_promotion_plays_no_episodes_and_records_its_reason(levels: Levels) -> None:
    promote(levels[4])

    promotion = promote(levels[0], force_reason="the best one hurts the gripper")

    assert read_aliases() == {"champion": 1, "previous-champion": 5}
    assert promotion.reason == (
        "Without a gate, levels/1 becomes the champion in place of levels/5. "
        "Reason: the best one hurts the gripper."
    )
    assert read_promotion_json()["rule"] == "force"
    assert "episodes" not in read_promotion_json()


@pytest.mark.parametrize(
    ("fault", "message"),
    [("nan", "returned nan, which cannot be compared"), ("crash", "the simulator is gone")],
)
def test_a_failed_gate_is_recorded_as_an_error_and_keeps_the_champion(
    levels: Levels, fault: str, message: str
) -> None:
    promote(levels[2])
    environment = env_spec.compose_spec("tests.environments:Levels-v0", kwargs={"fault": fault})

    with pytest.raises((ValueError, LookupError), match=message):
        promote(levels[4], judging_environment=environment)

    content = read_promotion_json()
    assert content["verdict"] == "error"
    assert STATE_TAG not in read_tags(levels[4])
    assert message in content["reason"]
    assert read_aliases() == {"champion": 3}


def test_a_move_that_fails_is_recorded_as_an_error(levels: Levels) -> None:
    MlflowClient().create_registered_model("levels.lock")

    with pytest.raises(MlflowException, match="is not a lock"):
        promote(levels[4], force_reason="try")
    assert read_aliases() == {}


def test_a_deleted_champion_is_replaced(levels: Levels) -> None:
    promote(levels[2], force_reason="history")
    MlflowClient().delete_model_version("levels", "3")

    promote(levels[4], force_reason="continue")

    assert read_aliases() == {"champion": 5}


def test_a_promotion_needs_an_active_run(levels: Levels) -> None:
    mlflow.end_run()

    with pytest.raises(MlflowException, match=r"Call it inside of mlflow\.start_run"):
        promote(levels[4])
