from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mlflow_sb3.promotion import promotion_run, replay
from tests.promotion.level_promotions import Levels, promote


@pytest.fixture
def run_id(levels: Levels) -> str:
    """Run of a promotion of version 5 in place of version 3."""
    promote(levels[2], force_reason="the first")
    return promote(levels[4]).context.run_id


def edit_record(run_id: str, **changes: Any) -> None:
    """Change keys of promotion.json of a run."""
    content = promotion_run.load_record(run_id).to_json() | changes
    folder = mlflow.get_run(run_id).info.artifact_uri.removeprefix("file://")
    Path(folder, "promotion.json").write_text(json.dumps(content))


def test_a_replay_is_identical_and_changes_no_alias(run_id: str) -> None:
    before = MlflowClient().get_registered_model("levels").aliases

    assert replay.replay_promotion(run_id) == []
    assert MlflowClient().get_registered_model("levels").aliases == before


def test_a_first_promotion_is_replayed(levels: Levels) -> None:
    assert replay.replay_promotion(promote(levels[4]).context.run_id) == []


def test_a_promotion_with_a_judging_environment_is_replayed(levels: Levels) -> None:
    promotion = promote(levels[2], judging_environment="tests.environments:Levels-v0")

    assert replay.replay_promotion(promotion.context.run_id) == []


@pytest.mark.train
def test_a_record_with_the_keys_of_earlier_versions_is_replayed(
    levels: Levels, run_id: str
) -> None:
    """Replay the record that the code before the dataclasses wrote about the same versions."""
    content = promotion_run.load_record(run_id).to_json()
    recorded = json.loads((Path(__file__).parent / "records" / "schema_2_test.json").read_text())
    assert set(recorded) == set(content)
    assert all(
        set(recorded[key]) == set(content[key])
        for key in ("challenger", "gate", "challenger_episodes", "episodes")
    )
    edit_record(run_id, challenger=content["challenger"] | {"model_id": levels[4].model_id})

    assert replay.replay_promotion(run_id) == []


@pytest.mark.train
def test_a_replay_names_what_differs(run_id: str) -> None:
    episodes = promotion_run.load_record(run_id).to_json()["episodes"]
    first, *others = episodes["challenger_return"]

    edit_record(
        run_id,
        verdict="reject",
        episodes=episodes | {"challenger_return": [first + 1, *others]},
    )

    assert replay.replay_promotion(run_id) == [
        "verdict was reject and is promote",
        "episodes differ in challenger_return",
    ]


def test_a_changed_version_is_refused(run_id: str) -> None:
    challenger = promotion_run.load_record(run_id).to_json()["challenger"]

    edit_record(run_id, challenger=challenger | {"digest": "0" * 64})

    with pytest.raises(
        MlflowException, match=r"levels/5 has model .* used model .* with digest 0000"
    ):
        replay.replay_promotion(run_id)


def test_a_forced_promotion_cannot_be_replayed(levels: Levels) -> None:
    forced = promote(levels[2], force_reason="the first")

    with pytest.raises(MlflowException, match=r"\(rule force, .*\) played no episodes"):
        replay.replay_promotion(forced.context.run_id)


def test_a_failed_promotion_cannot_be_replayed(run_id: str) -> None:
    edit_record(run_id, verdict="error", reason="the disk was full")

    with pytest.raises(MlflowException, match=r"failed after its episodes \(the disk was full\)"):
        replay.replay_promotion(run_id)
