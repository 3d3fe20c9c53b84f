"""Every entry point as a real `mlflow run`."""

from __future__ import annotations

import pytest

from tests.project.conftest import Place

pytestmark = pytest.mark.process

TINY = ("algo=ppo", "timesteps=64", "preset=none", 'hyperparams={"n_steps": 64}')


def test_main_leaves_four_children_a_champion_and_tags(trained_place: Place) -> None:
    parent = trained_place.runs("tags.mlflow.project.entryPoint = 'main'")[0]
    children = trained_place.runs(f"tags.mlflow.parentRunId = '{parent.info.run_id}'")

    assert parent.data.tags["mlflow_sb3.version"] == "cartpole-v1-dqn/1"
    assert parent.data.tags["mlflow_sb3.verdict"] == "promote"
    assert [child.info.run_name for child in reversed(children)] == [
        "train",
        "log_model",
        "promote",
        "evaluate",
    ]
    assert {run.info.status for run in [parent, *children]} == {"FINISHED"}
    assert (
        int(trained_place.client.get_model_version_by_alias("cartpole-v1-dqn", "champion").version)
        == 1
    )


def test_each_entry_point_runs_alone(place: Place) -> None:
    trained = place.mlflow_run("train", *TINY)
    run_id = place.runs()[0].info.run_id
    logged = place.mlflow_run("log_model", f"run_id={run_id}")
    promoted = place.mlflow_run(
        "promote",
        "model_name=cartpole-v1-ppo",
        "version=1",
        "rule=force",
        'reason=it\'s the "first" one',
    )
    by_alias = place.mlflow_run(
        "evaluate", "model_name=cartpole-v1-ppo", "alias=champion", "episodes=3"
    )
    by_version = place.mlflow_run(
        "evaluate", "model_name=cartpole-v1-ppo", "version=1", "episodes=3", "video=true"
    )

    rejected = place.mlflow_run(
        "promote",
        "model_name=cartpole-v1-ppo",
        "version=1",
        "alias=other",
        "min_return=-5",
        "episodes=30",
    )
    rolled = place.mlflow_run("rollback", "model_name=cartpole-v1-ppo")

    assert [
        step.returncode for step in (trained, logged, promoted, by_alias, by_version, rejected)
    ] == [0] * 6
    assert (
        "promote: Without a gate, cartpole-v1-ppo/1 becomes the champion. "
        'Reason: it\'s the "first" one.'
        in promoted.stdout
    )
    assert "The mean return of cartpole-v1-ppo/1 is " in rejected.stdout
    assert (
        rolled.returncode,
        rolled.stderr.count("Error: No version of cartpole-v1-ppo was champion before version 1"),
    ) == (1, 1)
    assert "Mean reward: " in by_alias.stdout
    assert (
        by_alias.stdout.partition("Episode returns")[2]
        == by_version.stdout.partition("Episode returns")[2]
    )
    assert [run.info.status for run in place.runs()] == ["FAILED"] + ["FINISHED"] * 6


def test_a_step_that_fails_fails_main_and_registers_nothing(place: Place) -> None:
    done = place.mlflow_run("main", "env=Nope-v1")

    parent, child = (
        place.runs("tags.mlflow.project.entryPoint = 'main'")[0],
        place.runs("tags.mlflow.project.entryPoint = 'train'")[0],
    )
    assert done.returncode == 1
    assert "Error: environment 'Nope-v1' cannot be made" in done.stderr
    assert "Error: train failed" in done.stderr
    assert (parent.info.status, child.info.status) == ("FAILED", "FAILED")
    assert place.client.search_registered_models() == []


def test_wrong_usage_fails_the_run(place: Place) -> None:
    done = place.mlflow_run("train", "timesteps=0")

    assert done.returncode == 1
    assert "Error: Invalid value for '--timesteps': 0 is not in the range x>=1." in done.stderr
    assert place.runs()[0].info.status == "FAILED"
