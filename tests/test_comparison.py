from __future__ import annotations

import numpy as np
import pytest

from mlflow_sb3 import comparison
from mlflow_sb3.evaluation import Episodes


def episodes(*returns: float, seed: int = 0) -> Episodes:
    return Episodes(np.arange(seed, seed + len(returns)), np.array(returns, dtype=float), np.full(len(returns), 7))


@pytest.mark.parametrize(
    ("challenger", "champion", "verdict", "reason"),
    [
        (episodes(1, 2), None, "promote", "there is no champion yet, and the challenger returns 1.50 on average"),
        (episodes(2, 3), episodes(1, 3), "promote", "the challenger returns 2.50 on average, the champion 2.00, over the same 2 episodes"),
        (episodes(1, 3), episodes(2, 3), "reject", "the challenger returns only 2.00"),
        (episodes(1, 3), episodes(3, 1), "tie", "a tie keeps the champion"),
    ],
)
def test_the_higher_mean_wins_and_a_tie_keeps_the_champion(
    challenger: Episodes, champion: Episodes | None, verdict: str, reason: str
) -> None:
    decided = comparison.decide(challenger, champion)

    assert decided.verdict == verdict
    assert decided.promoted == (verdict == "promote")
    assert reason in decided.reason


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_returns_that_are_not_finite_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        comparison.decide(episodes(1, value), None)
    with pytest.raises(ValueError, match="not finite"):
        comparison.decide(episodes(1, 2), episodes(1, value))


def test_different_seeds_are_refused() -> None:
    with pytest.raises(ValueError, match="played different seeds"):
        comparison.decide(episodes(1, 2), episodes(1, 2, seed=5))


def test_every_pair_has_seeds_of_its_own() -> None:
    pairs = [("a", "m-1", "m-2", 100), ("b", "m-1", "m-2", 100), ("a", "m-2", "m-1", 100), ("a", "m-1", None, 100), ("a", "m-1", "m-2", 50)]

    assert len({comparison.gate_seed(*pair) for pair in pairs}) == len(pairs)
    assert comparison.gate_seed(*pairs[0]) == comparison.gate_seed(*pairs[0])


def test_the_difference_is_that_of_the_pairs() -> None:
    metrics = comparison.metrics(episodes(2, 5), episodes(1, 2))

    assert metrics["promotion/mean_difference"] == 2.0
    assert metrics["promotion/challenger_mean_return"] == 3.5
    assert metrics["promotion/champion_mean_return"] == 1.5


def test_the_record_holds_every_episode() -> None:
    challenger, champion = episodes(2, 5), episodes(1, 2)

    record = comparison.record(comparison.decide(challenger, champion), challenger, champion)

    assert record["verdict"] == "promote"
    assert record["episodes"]["seed"] == [0, 1]
    assert record["episodes"]["challenger_return"] == [2.0, 5.0]
    assert record["episodes"]["champion_return"] == [1.0, 2.0]
