from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mlflow_sb3.promotion import report_text
from mlflow_sb3.promotion.gate import Gate
from mlflow_sb3.promotion.record import (
    GateEvidence,
    PromotionRecord,
    RecordedBounds,
    RecordedVerdict,
)

STORED = PromotionRecord.from_json(
    json.loads((Path(__file__).parent / "records" / "schema_2_test.json").read_text())
)
"""levels/2 against the champion levels/1, two pairs."""
assert STORED.evidence is not None
EVIDENCE = replace(
    STORED.evidence,
    gate=Gate(episodes=2),
    mean_difference=2.0,
    lower_bound=1.0,
    upper_bound=3.0,
    smallest_detectable_difference=0.8,
    challenger_episodes=replace(STORED.evidence.challenger_episodes, mean_return=7.0),
    champion_episodes=replace(STORED.evidence.champion_episodes, mean_return=5.0),
)
MEANS = (
    "The mean return of levels/2 is 7.00 and the mean return of levels/1 is 5.00, "
    "over 2 episodes on the same seeds."
)


def explain(verdict: RecordedVerdict, evidence: GateEvidence, *, is_accepted: bool = False) -> str:
    record = replace(STORED, verdict=verdict, is_accepted=is_accepted)
    return report_text.explain_verdict(record, evidence)


def test_a_promotion_is_explained_by_the_lower_bound() -> None:
    assert explain("promote", EVIDENCE, is_accepted=True) == (
        f"{MEANS} The mean difference is 2.00, and with 95 % confidence at least 1.00, "
        "so levels/2 becomes the champion."
    )


def test_a_promotion_without_approval_names_the_tag() -> None:
    assert explain("promote", EVIDENCE).endswith(
        "so levels/2 can become the champion after approval "
        "(set the tag approval=approved on version 2 and promote it again)."
    )


def test_a_rejection_is_explained_by_the_upper_bound() -> None:
    evidence = replace(EVIDENCE, lower_bound=-3.0, upper_bound=-1.0, mean_difference=-2.0)

    assert explain("reject", evidence) == (
        f"{MEANS} The mean difference is -2.00, and with 95 % confidence at most -1.00, "
        "so levels/1 stays the champion."
    )


def test_a_missed_min_improvement_is_named() -> None:
    evidence = replace(EVIDENCE, gate=Gate(episodes=2, min_improvement=4.0))

    assert "with 95 % confidence at most 3.00, and min_improvement is 4.00, so" in explain(
        "reject", evidence
    )


def test_a_missed_min_return_is_named() -> None:
    bounds = RecordedBounds(6.0, 8.0, 6.0, 8.0, 6.0, 8.0)
    evidence = replace(
        EVIDENCE, gate=Gate(episodes=2, min_return=9.0), challenger_return_bounds=bounds
    )

    assert explain("reject", evidence) == (
        f"{MEANS} The bounds of the mean return of levels/2 are 6.00 and 8.00 "
        "(95 % confidence each), and min_return is 9.00, so levels/1 stays the champion."
    )
    assert "80 % power" not in explain("inconclusive", evidence)


def test_an_inconclusive_gate_names_the_detectable_difference() -> None:
    evidence = replace(EVIDENCE, lower_bound=-1.0)

    assert explain("inconclusive", evidence) == (
        f"{MEANS} The mean difference is 2.00, and its bounds are -1.00 and 3.00 "
        "(95 % confidence each), "
        "so levels/1 stays the champion. "
        "With this number of pairs, the gate detects a difference of 0.80 with 80 % power."
    )


def test_a_gate_without_bounds_says_that_too_few_pairs_differ() -> None:
    evidence = replace(EVIDENCE, lower_bound=None, upper_bound=None)

    assert explain("inconclusive", evidence) == (
        f"{MEANS} The mean difference is 2.00, but too few pairs differ to compute its bounds, "
        "so levels/1 stays the champion."
    )


def test_a_tie_names_the_largest_share_of_pairs_that_differ() -> None:
    evidence = replace(EVIDENCE, largest_share_of_other_pairs=0.0487)

    assert explain("tie", evidence) == (
        "levels/2 and levels/1 have equal returns in all 2 pairs of episodes, with a mean of 7.00. "
        "With 95 % confidence, at most 4.87 % of further pairs would differ, "
        "so levels/1 stays the champion."
    )


@pytest.mark.parametrize(
    ("threshold", "reached"),
    [
        (7.0, " Both reach the environment's reward threshold of 7.00."),
        (8.0, ""),
        (None, ""),
    ],
)
def test_a_tie_at_the_reward_threshold_names_the_threshold(
    threshold: float | None, reached: str
) -> None:
    evidence = replace(EVIDENCE, all_returns_equal=True, reward_threshold=threshold)

    assert explain("tie", evidence) == (
        f"levels/2 and levels/1 both have a return of 7.00 in all 2 pairs of episodes.{reached} "
        "These episodes cannot show which agent is better, so levels/1 stays the champion."
    )


def test_without_a_champion_the_opponent_is_the_random_policy() -> None:
    context = replace(STORED.context, champion=None)
    record = replace(STORED, verdict="reject", context=context)

    reason = report_text.explain_verdict(record, EVIDENCE)

    assert report_text.get_opponent_name(context) == "a uniform random policy"
    assert "the mean return of a uniform random policy is 5.00" in reason
    assert reason.endswith("so there is no champion yet.")


def test_a_forced_promotion_gives_the_reason_of_the_user() -> None:
    accepted = replace(STORED, verdict="promote", is_accepted=True)
    first = replace(accepted, context=replace(STORED.context, champion=None))

    assert report_text.explain_forced_promotion(accepted, "it is safer.") == (
        "Without a gate, levels/2 becomes the champion in place of levels/1. Reason: it is safer."
    )
    assert report_text.explain_forced_promotion(first, "the first") == (
        "Without a gate, levels/2 becomes the champion. Reason: the first."
    )


def test_a_rollback_gives_the_reason_of_the_user() -> None:
    without_champion = replace(STORED.context, champion=None)

    assert report_text.explain_rollback(STORED.context, "it crashed") == (
        "levels/2 is the champion again, in place of levels/1. Reason: it crashed."
    )
    assert report_text.explain_rollback(without_champion, "") == "levels/2 is the champion again."


def test_a_gate_without_common_seeds_speaks_of_episodes() -> None:
    unpaired = replace(EVIDENCE, is_paired=False, lower_bound=-1.0)
    undecided = replace(unpaired, lower_bound=None, upper_bound=None)
    equal = replace(unpaired, all_returns_equal=True)

    assert "over 2 episodes each, without common seeds." in explain("inconclusive", unpaired)
    assert "With this number of episodes, the gate detects" in explain("inconclusive", unpaired)
    assert "too few returns differ" in explain("inconclusive", undecided)
    assert "in all 2 episodes each." in explain("tie", equal)
    assert "pairs" not in explain("tie", equal) + explain("inconclusive", unpaired)
