from __future__ import annotations

import json

import pytest
from mlflow.exceptions import MlflowException

from mlflow_sb3.promotion.gate import Gate
from mlflow_sb3.promotion.matchup import arrange_matchup
from tests.conftest import register_level
from tests.promotion.level_promotions import Levels, evidence_of, promote, read_aliases

GATE = Gate(episodes=2)


@pytest.mark.train
def test_agents_of_different_environments_need_a_judging_environment(levels: Levels) -> None:
    promote(levels[2])
    other = register_level(7, spread=2.0)

    with pytest.raises(
        MlflowException,
        match=r"levels/6 and levels/3 were trained in different environments.*Set environment to",
    ):
        promote(other)
    promotion = promote(other, judging_environment="champion")

    assert promotion.verdict == "promote"
    assert json.loads(evidence_of(promotion).environment)["kwargs"] == {}
    assert read_aliases()["champion"] == 6


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ("CartPole-v1", r"has the observation space Box.*levels/5 was trained with Box\(-1"),
        ("Nope-v0", "Nope-v0"),
        ("{}", "EnvSpec JSON"),
    ],
)
def test_an_unsuitable_judging_environment_is_refused(
    levels: Levels, environment: str, message: str
) -> None:
    with pytest.raises(MlflowException, match=message):
        arrange_matchup(levels[4], None, GATE, judging_environment=environment)


def test_naming_the_shared_environment_does_not_change_the_episodes(levels: Levels) -> None:
    matchups = [
        arrange_matchup(levels[2], levels[4], GATE, judging_environment=environment)
        for environment in (None, "champion", "challenger")
    ]

    first, *others = (matchup.play() for matchup in matchups)
    assert len({matchup.seed for matchup in matchups}) == 1
    for other in others:
        assert other.challenger.returns.tolist() == first.challenger.returns.tolist()
        assert other.champion.returns.tolist() == first.champion.returns.tolist()


def test_without_a_champion_the_environment_of_the_challenger_is_used(levels: Levels) -> None:
    alone = arrange_matchup(levels[4], None, GATE, judging_environment="champion")

    assert alone.environment == arrange_matchup(levels[4], None, GATE).environment
    assert len(alone.play().champion.returns) == 2
