from __future__ import annotations

from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient

from mlflow_sb3.promotion import recorded_returns, replay
from mlflow_sb3.promotion.record import MissedReturn, PromotionRecord
from mlflow_sb3.promotion.recorded_returns import RecordedReturns
from mlflow_sb3.registry import versions
from mlflow_sb3.registry.model_version import Version
from tests.promotion.level_promotions import Levels, promote, read_aliases, read_promotion_json

GATE = {"champion_mean": 200.0, "champion_max": 230.0, "lower_bound": 5.0, "min_improvement": 0.0}


def find(recorded: RecordedReturns, **changes: Any) -> MissedReturn | None:
    return recorded_returns.find_missed_return(recorded, **GATE | changes)


def log_returns(version: Version, prefix: str, episodes: int, max_return: float) -> None:
    """Log the metrics of other episodes of a version, as evaluate and promote do."""
    client = MlflowClient()
    run = mlflow.active_run()
    assert run is not None
    for name, value in (("episodes", episodes), ("max_return", max_return)):
        client.log_metric(run.info.run_id, f"{prefix}{name}", value, model_id=version.model_id)


def test_a_rare_high_return_that_would_change_the_result_is_found() -> None:
    assert find(RecordedReturns(500, 10_200.0)) == MissedReturn(10_200.0, 500, 20.0)


@pytest.mark.parametrize(
    ("recorded", "changes"),
    [
        (RecordedReturns(500, 230.0), {}),  # the gate has seen as much
        (RecordedReturns(500, 260.0), {}),  # too small to matter
        (RecordedReturns(500, 10_200.0), {"lower_bound": 21.0}),
    ],
)
def test_other_recorded_returns_do_not_matter(
    recorded: RecordedReturns, changes: dict[str, Any]
) -> None:
    assert find(recorded, **changes) is None


def test_the_improvement_must_exceed_min_improvement_with_the_return() -> None:
    assert find(RecordedReturns(500, 10_200.0), lower_bound=30.0, min_improvement=15.0) is not None


def test_all_evaluations_and_gates_of_an_agent_are_summarized(levels: Levels) -> None:
    assert recorded_returns.find_recorded_returns(levels[0]) is None

    log_returns(levels[0], "evaluation/", 100, 7.0)
    log_returns(levels[0], "promotion/challenger_", 400, 9.0)
    log_returns(levels[0], "promotion/champion_", 400, 99.0)  # of its opponent

    assert recorded_returns.find_recorded_returns(levels[0]) == RecordedReturns(500, 9.0)


def test_a_recorded_return_of_the_champion_prevents_its_replacement(levels: Levels) -> None:
    versions.set_alias("levels", "champion", 3)
    log_returns(levels[2], "evaluation/", 100, 1e6)

    record = promote(levels[4])

    run = mlflow.active_run()
    assert run is not None
    assert record.verdict == "inconclusive"
    assert record.missed_return is not None
    assert "levels/3 had a return of 1000000.00 in its 100 recorded episodes" in record.reason
    assert record.reason.endswith("so levels/3 stays the champion.")
    assert read_aliases()["champion"] == 3
    assert PromotionRecord.from_json(read_promotion_json()) == record
    assert replay.replay_promotion(run.info.run_id) == []
