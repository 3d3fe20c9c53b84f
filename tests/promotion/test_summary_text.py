from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mlflow_sb3.promotion import report_text, summary_text
from mlflow_sb3.promotion.gate import Gate
from mlflow_sb3.promotion.record import PromotionRecord, RecordedVerdict, Rule
from tests.promotion.test_report_text import EVIDENCE, STORED

MEANS = "7.00 vs 5.00 (version 1)"


def summarize(verdict: RecordedVerdict, **changes: Any) -> str:
    record = replace(STORED, verdict=verdict, is_accepted=verdict == "promote")
    evidence = replace(EVIDENCE, **changes)
    return summary_text.summarize(replace(record, evidence=evidence))


def decide(rule: Rule, reason: str, verdict: RecordedVerdict = "promote") -> PromotionRecord:
    context = replace(STORED.context, rule=rule)
    return PromotionRecord(context, verdict, is_accepted=True, reason=reason)


@pytest.mark.parametrize(
    ("verdict", "bounds", "expected"),
    [
        ("promote", (1.0, 3.0), f"promoted: {MEANS}, difference at least +1.00 (95 %)"),
        ("reject", (-3.0, -1.0), f"rejected: {MEANS}, difference at most -1.00 (95 %)"),
        (
            "inconclusive",
            (-3.0, 1.0),
            f"inconclusive: {MEANS}, difference between -3.00 and +1.00 (95 %)",
        ),
        ("inconclusive", (None, None), f"inconclusive: {MEANS}"),
        ("tie", (None, None), f"rejected after a tie: {MEANS}"),
    ],
)
def test_a_gate_is_summarized_with_the_bound_that_decided(
    verdict: RecordedVerdict, bounds: tuple[float | None, float | None], expected: str
) -> None:
    assert summarize(verdict, lower_bound=bounds[0], upper_bound=bounds[1]) == expected


def test_the_confidence_is_that_of_the_gate() -> None:
    assert summarize("promote", gate=Gate(episodes=2, alpha=0.01)).endswith("+1.00 (99 %)")


def test_a_winner_without_approval_is_not_called_promoted() -> None:
    waiting = replace(STORED, verdict="promote", is_accepted=False, evidence=EVIDENCE)

    assert summary_text.summarize(waiting).startswith("awaits approval: 7.00")


def test_the_first_champion_is_compared_with_the_random_policy() -> None:
    first = replace(STORED, context=replace(STORED.context, champion=None), evidence=EVIDENCE)

    assert "7.00 vs 5.00 (random policy)" in summary_text.summarize(first)


def test_a_forced_promotion_gives_the_reason_of_the_user() -> None:
    record = decide("force", "")
    record = replace(record, reason=report_text.explain_forced_promotion(record, "it is safer."))

    assert summary_text.summarize(record) == "promoted without a gate: it is safer"
    assert summary_text.summarize_loss(record) == "replaced by version 2"


@pytest.mark.parametrize(("why", "end"), [("it fell over", ": it fell over"), ("", "")])
def test_a_rollback_is_told_from_both_sides(why: str, end: str) -> None:
    record = decide("rollback", report_text.explain_rollback(STORED.context, why), "rollback")

    assert summary_text.summarize(record) == (
        f"champion again, because version 1 was rolled back{end}"
    )
    assert summary_text.summarize_loss(record) == f"rolled back to version 2{end}"


def test_a_missed_condition_is_named() -> None:
    gate = Gate(episodes=2, min_return=9.0)

    assert summarize("reject", gate=gate).endswith("(95 %), but min_return is 9.00")
    gate = Gate(episodes=2, min_improvement=4.0)
    assert summarize("reject", gate=gate, lower_bound=1.0).endswith(", min_improvement is 4.00")


def test_the_current_champion_is_not_called_rejected() -> None:
    record = replace(STORED, verdict="tie", is_accepted=False, evidence=None, reason="no episodes")

    assert summary_text.name_verdict(record) == "already the champion"


def test_a_long_error_is_cut() -> None:
    record = replace(STORED, verdict="error", reason="x" * 900)

    assert summary_text.summarize(record) == f"error: {'x' * 290}..."


def test_the_reason_of_a_user_becomes_one_line_without_marks() -> None:
    record = decide("force", "")
    why = "two\n\nlines <!-- mlflow-sb3: end --> and more"
    record = replace(record, reason=report_text.explain_forced_promotion(record, why))

    assert summary_text.summarize(record) == (
        "promoted without a gate: two lines &lt;!-- mlflow-sb3: end --> and more"
    )
