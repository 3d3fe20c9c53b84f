from __future__ import annotations

import math

import mlflow
import pytest

from mlflow_sb3.promotion import error_budget, replay
from mlflow_sb3.promotion.gate import MIN_ALPHA, Gate
from mlflow_sb3.promotion.promotion_request import (
    PromotionRequest,
    PromotionRequestError,
    run_promotion,
)
from mlflow_sb3.promotion.record import ErrorBudget, PromotionRecord
from mlflow_sb3.registry import versions
from tests.promotion.level_promotions import Levels, promote, read_aliases, read_promotion_json


def budget_of(record: PromotionRecord) -> ErrorBudget:
    assert record.error_budget is not None
    return record.error_budget


def test_the_shares_of_a_reign_add_up_to_its_error_probability() -> None:
    shares = [error_budget.compute_share(0.05, position) for position in range(1, 50)]

    assert shares[0] == pytest.approx(0.05 * 6 / math.pi**2)
    assert shares == sorted(shares, reverse=True)
    assert 0.049 < sum(shares) < 0.05


def test_a_late_gate_keeps_the_smallest_alpha() -> None:
    assert error_budget.compute_share(0.05, 1000) == MIN_ALPHA


def test_each_challenger_gets_a_smaller_share_until_the_next_promotion(levels: Levels) -> None:
    versions.set_alias("levels", "champion", 3)

    first = budget_of(promote(levels[0], alpha_per_reign=0.05))
    second = budget_of(promote(levels[1], alpha_per_reign=0.05))
    winner = promote(levels[4], alpha_per_reign=0.05)
    next_reign = budget_of(promote(levels[0], alpha_per_reign=0.05))

    assert (first.position, second.position, budget_of(winner).position) == (1, 2, 3)
    assert second.alpha == pytest.approx(first.alpha / 4)
    assert winner.evidence is not None
    assert winner.evidence.gate.alpha == budget_of(winner).alpha
    assert read_aliases()["champion"] == 5
    assert next_reign.position == 1


def test_a_repeated_gate_is_not_counted_again(levels: Levels) -> None:
    versions.set_alias("levels", "champion", 3)
    before = promote(levels[0], alpha_per_reign=0.05)
    promote(levels[1], alpha_per_reign=0.05)

    again = promote(levels[0], alpha_per_reign=0.05)
    longer = promote(levels[0], gate=Gate(episodes=61), alpha_per_reign=0.05)

    assert again.error_budget == before.error_budget
    assert again.evidence == before.evidence
    assert budget_of(longer).position == 3  # other episodes are another chance


def test_many_gates_fit_into_the_tag(levels: Levels, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(error_budget, "_MAX_IDS", 2)
    versions.set_alias("levels", "champion", 3)

    for number in (0, 1):
        promote(levels[number], alpha_per_reign=0.05)
    promote(levels[0], gate=Gate(episodes=61), alpha_per_reign=0.05)

    assert budget_of(promote(levels[1], alpha_per_reign=0.05)).position == 2
    assert budget_of(promote(levels[0], alpha_per_reign=0.05)).position == 4


def test_the_record_and_the_reason_name_the_share_and_a_replay_is_identical(
    levels: Levels,
) -> None:
    versions.set_alias("levels", "champion", 3)

    record = promote(levels[4], alpha_per_reign=0.05)

    run = mlflow.active_run()
    assert run is not None
    assert record.reason.endswith(
        "This is gate 1 since the last promotion, so its alpha is 3 % of 5 % for all gates."
    )
    assert PromotionRecord.from_json(read_promotion_json()) == record
    assert replay.replay_promotion(run.info.run_id) == []


def test_a_request_uses_the_budget_in_place_of_alpha(levels: Levels) -> None:
    records: list[PromotionRecord] = []
    versions.set_alias("levels", "champion", 3)
    request = PromotionRequest("levels", number=5, episodes=60, alpha_per_reign=0.02)

    run_promotion(request, on_record=records.append, progress=False)

    assert budget_of(records[0]).alpha == pytest.approx(0.02 * 6 / math.pi**2)
    with pytest.raises(PromotionRequestError, match=r"below 0\.5, got alpha=0\.7"):
        run_promotion(PromotionRequest("levels", number=5, alpha_per_reign=0.7))
