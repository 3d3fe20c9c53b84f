from __future__ import annotations

import json
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

import mlflow_sb3
from mlflow_sb3.registry.model_version import Version
from tests.lifecycle.runs import list_runs
from tests.promotion.level_promotions import read_aliases


def load_record(run_id: str) -> dict[str, Any]:
    uri = mlflow.get_run(run_id).info.artifact_uri
    content: dict[str, Any] = json.loads(mlflow.artifacts.load_text(f"{uri}/promotion.json"))
    return content


@pytest.mark.usefixtures("levels")
def test_a_promotion_has_a_run_like_that_of_the_step() -> None:
    mlflow.end_run()

    result = mlflow_sb3.promote("levels", 5, n_episodes=60, progress_bar=False)

    run = list_runs()[-1]
    assert run.info.run_id == result.run_id
    assert (run.info.run_name, run.info.status) == ("promote levels/5 -> promoted", "FINISHED")
    assert run.data.metrics["promotion/mean_difference"] == result.mean_difference
    assert (result.verdict, result.is_promoted, result.version) == ("promote", True, 5)
    assert result.reason == load_record(result.run_id)["reason"]
    assert read_aliases() == {"champion": 5}
    assert mlflow.active_run() is None


@pytest.mark.usefixtures("levels")
def test_each_promotion_in_an_active_run_is_a_child_run() -> None:
    parent = mlflow.active_run()
    assert parent is not None

    results = [
        mlflow_sb3.promote("levels", number, n_episodes=60, progress_bar=False)
        for number in (5, "1")
    ]

    children = [mlflow.get_run(result.run_id) for result in results]
    parents = {child.data.tags["mlflow.parentRunId"] for child in children}
    assert parents == {parent.info.run_id}
    assert [child.info.status for child in children] == ["FINISHED"] * 2
    active = mlflow.active_run()
    assert active is not None
    assert active.info.run_id == parent.info.run_id
    assert [load_record(result.run_id)["verdict"] for result in results] == ["promote", "reject"]
    assert [result.is_promoted for result in results] == [True, False]
    for child in children:
        table = mlflow.load_table("promotion/episodes.json", run_ids=[child.info.run_id])
        assert len(table) == child.data.metrics["promotion/pairs"]


@pytest.mark.usefixtures("levels")
def test_the_options_reach_the_gate() -> None:
    MlflowClient().set_registered_model_alias("levels", "challenger", "4")

    result = mlflow_sb3.promote(
        "levels",
        alias="staging",
        n_episodes=30,
        alpha=0.02,
        min_improvement=0.5,
        min_return=99.0,
        env="challenger",
        approval="required",
        progress_bar=False,
    )

    record = load_record(result.run_id)
    gate = {"episodes": 30, "alpha": 0.02, "min_improvement": 0.5, "min_return": 99.0}
    assert gate.items() <= record["gate"].items()
    assert (record["alias"], record["judge"]) == ("staging", "challenger")
    assert (result.version, result.verdict, result.alias) == (4, record["verdict"], "staging")
    assert not result.is_promoted


@pytest.mark.usefixtures("levels")
def test_force_promotes_without_episodes() -> None:
    result = mlflow_sb3.promote("levels", 1, rule="force", reason="the first version")

    assert (result.is_promoted, result.mean_difference) == (True, None)
    assert "the first version" in result.reason
    assert "\n" not in repr(result)


@pytest.mark.usefixtures("levels")
def test_a_failed_promotion_ends_its_run_with_the_error() -> None:
    mlflow.end_run()

    with pytest.raises(MlflowException, match="levels has no version 9"):
        mlflow_sb3.promote("levels", 9)

    run = list_runs()[-1]
    assert run.info.status == "FAILED"
    assert "levels has no version 9" in run.data.tags["error"]
    assert mlflow.active_run() is None


@pytest.mark.usefixtures("levels")
def test_a_failed_child_run_leaves_its_parent_running() -> None:
    parent = mlflow.active_run()
    assert parent is not None

    with pytest.raises(MlflowException, match="levels has no version 9"):
        mlflow_sb3.promote("levels", 9)

    (child,) = (run for run in list_runs() if "mlflow.parentRunId" in run.data.tags)
    assert child.info.status == "FAILED"
    assert "levels has no version 9" in child.data.tags["error"]
    status = mlflow.get_run(parent.info.run_id).info.status
    assert (mlflow.active_run(), status) == (parent, "RUNNING")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"version": 0}, "version=0 is not the number of a model version"),
        ({"version": "two"}, "version='two' is not the number of a model version"),
        ({"rule": "forced"}, "rule='forced' is unknown. Use 'test' or 'force'"),
        ({"approval": "yes"}, "approval='yes' is unknown. Use 'none' or 'required'"),
        ({"rule": "force"}, "rule=force and reason must be set together"),
    ],
)
def test_wrong_arguments_are_refused_without_a_run(
    store: str, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(MlflowException, match=message):
        mlflow_sb3.promote("levels", **arguments)

    assert list_runs() == []


@pytest.mark.usefixtures("levels")
def test_a_rollback_restores_the_previous_champion_in_a_run_of_its_own(
    levels: list[Version],
) -> None:
    for number in (1, 5):
        mlflow_sb3.promote("levels", number, rule="force", reason="test")

    result = mlflow_sb3.rollback("levels", reason="it fell over")

    assert (result.name, result.version, result.alias) == ("levels", 1, "champion")
    assert read_aliases() == {"champion": 1}
    run = mlflow.get_run(result.run_id)
    assert run.info.run_name == "rollback levels -> version 1"
    assert "it fell over" in load_record(result.run_id)["reason"]
    with pytest.raises(MlflowException, match="No version of levels was champion before"):
        mlflow_sb3.rollback("levels")
    with pytest.raises(MlflowException, match="'latest' is not a valid alias"):
        mlflow_sb3.rollback("levels", "latest")
