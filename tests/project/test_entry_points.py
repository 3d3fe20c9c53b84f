"""Tests that run every entry point with `mlflow run`."""

from __future__ import annotations

import pytest

from tests.project.conftest import Place

pytestmark = pytest.mark.process

TINY_TRAINING = ("algo=ppo", "timesteps=64", "preset=none", 'hyperparams={"n_steps": 64}')


def test_main_creates_four_child_runs_a_champion_and_tags(trained_place: Place) -> None:
    parent = trained_place.runs("tags.mlflow.project.entryPoint = 'main'")[0]
    children = trained_place.runs(f"tags.mlflow.parentRunId = '{parent.info.run_id}'")
    champion = trained_place.client.get_model_version_by_alias("cartpole-v1-dqn", "champion")

    assert parent.data.tags["mlflow_sb3.version"] == "cartpole-v1-dqn/1"
    assert parent.data.tags["mlflow_sb3.verdict"] == "promote"
    names = [child.info.run_name for child in reversed(children)]
    assert names == ["train", "log_model", "promote", "evaluate"]
    assert {run.info.status for run in [parent, *children]} == {"FINISHED"}
    assert int(champion.version) == 1


def test_each_entry_point_runs_alone(place: Place) -> None:
    name, version = "model_name=cartpole-v1-ppo", "version=1"
    trained = place.mlflow_run("train", *TINY_TRAINING)
    run_id = place.runs()[0].info.run_id
    logged = place.mlflow_run("log_model", f"run_id={run_id}")
    reason = 'reason=it\'s the "first" one'
    promoted = place.mlflow_run("promote", name, version, "rule=force", reason)
    by_alias = place.mlflow_run("evaluate", name, "alias=champion", "episodes=3")
    by_version = place.mlflow_run("evaluate", name, version, "episodes=3", "video=true")
    gate = ("alias=other", "min_return=-5", "episodes=30")
    rejected = place.mlflow_run("promote", name, version, *gate)
    rolled_back = place.mlflow_run("rollback", name)

    succeeded = (trained, logged, promoted, by_alias, by_version, rejected)
    assert [done.returncode for done in succeeded] == [0] * 6
    assert (
        "promote: Without a gate, cartpole-v1-ppo/1 becomes the champion. "
        'Reason: it\'s the "first" one.' in promoted.stdout
    )
    assert "The mean return of cartpole-v1-ppo/1 is " in rejected.stdout
    error = "Error: No version of cartpole-v1-ppo was champion before version 1"
    assert (rolled_back.returncode, rolled_back.stderr.count(error)) == (1, 1)
    assert "Mean reward: " in by_alias.stdout
    returns = [done.stdout.partition("Returns: ")[2] for done in (by_alias, by_version)]
    assert returns[0] == returns[1]
    assert [run.info.status for run in place.runs()] == ["FAILED"] + ["FINISHED"] * 6


def test_a_failed_step_fails_main_and_registers_nothing(place: Place) -> None:
    done = place.mlflow_run("main", "env=Nope-v1")

    parent = place.runs("tags.mlflow.project.entryPoint = 'main'")[0]
    child = place.runs("tags.mlflow.project.entryPoint = 'train'")[0]
    assert done.returncode == 1
    assert f"Error: {child.data.tags['error']}" in done.stderr
    assert "'Nope-v1'" in child.data.tags["error"]
    assert "Error: Step train failed" in done.stderr
    assert (parent.info.status, child.info.status) == ("FAILED", "FAILED")
    assert place.client.search_registered_models() == []


def test_wrong_usage_fails_the_run(place: Place) -> None:
    done = place.mlflow_run("train", "timesteps=0")

    assert done.returncode == 1
    assert "Error: Invalid value for '--timesteps': 0 is not in the range x>=1." in done.stderr
    assert place.runs()[0].info.status == "FAILED"
