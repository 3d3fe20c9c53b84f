from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mlflow_sb3.promotion import promote, promotion_run, replay
from mlflow_sb3.promotion.gate import Gate
from mlflow_sb3.promotion.promote import PromotionOptions
from mlflow_sb3.registry.model_version import Version


@pytest.fixture
def run_id(levels: list[Version]) -> str:
    """A promotion of version 5 in place of version 3."""
    promote.promote_version(levels[2], PromotionOptions(force="the first"))
    return str(
        promote.promote_version(levels[4], PromotionOptions(gate=Gate(episodes=60)))["run_id"]
    )


def rewrite(run_id: str, **changes: Any) -> None:
    found = promotion_run.load_record(run_id) | changes
    Path(
        mlflow.get_run(run_id).info.artifact_uri.removeprefix("file://"), "promotion.json"
    ).write_text(json.dumps(found))


def test_a_promotion_is_identical_when_it_is_played_again(run_id: str) -> None:
    before = MlflowClient().get_registered_model("levels").aliases

    assert replay.replay(run_id) == []
    assert MlflowClient().get_registered_model("levels").aliases == before


def test_a_first_promotion_and_one_with_a_judge_are_identical_too(levels: list[Version]) -> None:
    first = promote.promote_version(levels[4], PromotionOptions(gate=Gate(episodes=60)))
    assert replay.replay(first["run_id"]) == []

    judged = promote.promote_version(
        levels[2], PromotionOptions(gate=Gate(episodes=60), judge="tests.environments:Levels-v0")
    )
    assert replay.replay(judged["run_id"]) == []


def test_what_differs_is_named(run_id: str) -> None:
    before = promotion_run.load_record(run_id)
    returns = [
        before["episodes"]["challenger_return"][0] + 1,
        *before["episodes"]["challenger_return"][1:],
    ]

    rewrite(run_id, verdict="reject", episodes=before["episodes"] | {"challenger_return": returns})

    assert replay.replay(run_id) == [
        "verdict was reject and is promote",
        "episodes differ in challenger_return",
    ]


def test_another_model_under_the_same_number_is_refused(run_id: str) -> None:
    before = promotion_run.load_record(run_id)

    rewrite(run_id, challenger=before["challenger"] | {"digest": "0" * 64})

    with pytest.raises(
        MlflowException,
        match=r"levels/5 is the model .* and .* with 0000.* played; the games cannot be played again",
    ):
        replay.replay(run_id)


def test_a_promotion_without_games_cannot_be_played_again(levels: list[Version]) -> None:
    forced = promote.promote_version(levels[2], PromotionOptions(force="the first"))

    with pytest.raises(MlflowException, match="decided by force without games"):
        replay.replay(forced["run_id"])


def test_a_record_of_another_schema_is_refused(run_id: str) -> None:
    rewrite(run_id, schema=1)

    with pytest.raises(MlflowException, match="has the schema 1, and this version reads 2"):
        replay.replay(run_id)
