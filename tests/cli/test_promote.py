"""Tests of the step promote."""

from __future__ import annotations

import json
from pathlib import Path

import mlflow
import pytest
from mlflow.entities import Run

from mlflow_sb3.cli.log_model import log_model
from mlflow_sb3.cli.promote import promote
from mlflow_sb3.cli.train import train
from mlflow_sb3.registry import versions
from mlflow_sb3.registry.model_version import Version
from mlflow_sb3.runs import heartbeat
from tests.cli.commands import (
    TINY_TRAINING,
    assert_fails,
    get_last_run,
    invoke,
    list_artifacts,
    succeed,
)

BEST = ["--candidates", "best", "--top", "2", "--episodes", "30"]


def log_two_challengers() -> None:
    for seed in ("1", "2"):
        trained = succeed(train, *TINY_TRAINING, "--seed", seed)
        succeed(log_model, "--run-id", trained.info.run_id)


def get_child_runs(parent: Run) -> list[Run]:
    filter_string = f"tags.mlflow.parentRunId = '{parent.info.run_id}'"
    return mlflow.search_runs(filter_string=filter_string, output_format="list")


def test_a_tie_keeps_the_champion_and_logs_the_record(champion: Version) -> None:
    succeed(log_model, "--run-id", str(champion.run_id))
    assert versions.find_version(champion.name, alias="challenger").number == 2

    result = invoke(promote, "--model-name", champion.name, "--episodes", "30")

    run = get_last_run()
    assert result.exit_code == 0, result.output
    assert "tie: cartpole-v1-ppo/2 and cartpole-v1-ppo/1" in result.output
    assert versions.find_version(champion.name, alias="champion").number == 1
    assert run.data.tags["mlflow_sb3.verdict"] == "tie"
    assert run.data.metrics["promotion/pairs"] == 30
    assert {"promotion.json"} <= list_artifacts(run)
    paths = {"promotion/episodes.json", "promotion/returns.png"}
    assert list_artifacts(run, "promotion") == paths
    table = mlflow.load_table("promotion/episodes.json", run_ids=[run.info.run_id])
    assert table.columns.tolist()[:2] == ["seed", "challenger_return"]


def test_fail_on_reject_fails_on_a_tie(champion: Version) -> None:
    succeed(log_model, "--run-id", str(champion.run_id))
    options = ["--episodes", "30", "--fail-on-reject", "true"]

    result = invoke(promote, "--model-name", champion.name, *options)

    message = "cartpole-v1-ppo/2 did not become the champion of cartpole-v1-ppo"
    assert_fails(result, 1, message)
    assert "tie: cartpole-v1-ppo/2 and cartpole-v1-ppo/1" in result.output


@pytest.mark.train
def test_a_replay_repeats_the_promotion(champion: Version) -> None:
    succeed(log_model, "--run-id", str(champion.run_id))
    run = succeed(promote, "--model-name", champion.name, "--episodes", "30")

    result = invoke(promote, "--replay", run.info.run_id)

    assert result.exit_code == 0, result.output
    assert f"identical: the replay of run {run.info.run_id}" in result.output
    training = invoke(promote, "--replay", str(champion.run_id))
    assert_fails(training, 1, "promotion.json")


@pytest.mark.train
def test_the_best_trained_versions_become_challengers(champion: Version) -> None:
    log_two_challengers()

    parent = succeed(promote, "--model-name", champion.name, *BEST)

    children = get_child_runs(parent)
    records = [
        json.loads(mlflow.artifacts.load_text(f"{run.info.artifact_uri}/promotion.json"))
        for run in children
    ]
    assert {record["challenger"]["number"] for record in records} == {2, 3}
    assert {record["gate"]["alpha"] for record in records} == {0.025}
    assert parent.data.tags["mlflow_sb3.verdict"] in ("promote", "reject", "inconclusive")
    assert all(heartbeat.HEARTBEAT_TAG in run.data.tags for run in children)


@pytest.mark.train
def test_an_undecidable_challenger_does_not_stop_the_others(champion: Version) -> None:
    log_two_challengers()
    broken = versions.find_version(champion.name, number=2)
    location = mlflow.get_logged_model(broken.model_id).artifact_location
    Path(location.removeprefix("file://"), "MLmodel").unlink()

    result = invoke(promote, "--model-name", champion.name, *BEST)

    verdicts = {
        run.data.tags["mlflow_sb3.version"]: run.data.tags["mlflow_sb3.verdict"]
        for run in get_child_runs(get_last_run())
    }
    assert result.exit_code == 1
    assert f"Error: The promotion of {broken} failed: " in result.stderr
    assert verdicts.pop(str(broken)) == "error"
    assert list(verdicts) == [f"{champion.name}/3"]
    assert verdicts.popitem()[1] != "error"


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--rule", "force"], 2, "rule=force and reason must be set together"),
        (["--reason", "because"], 2, "rule=force and reason must be set together"),
        (["--candidates", "best", "--version", "1"], 2, "Leave version and rule=force out"),
        (["--candidates", "best", "--experiment", "nowhere"], 2, "'nowhere' does not exist"),
        (["--candidates", "best"], 1, "Registered model 'nobody' does not exist"),
        (["--episodes", "1"], 2, "1 is not in the range"),
        (["--min-return", "high"], 2, "'high' is not a valid float"),
        (["--replay", "0" * 32], 1, "not found"),
        (["--alias", "latest"], 1, "'latest' is not a valid alias"),
        (["--alias", "challenger"], 1, "Alias 'challenger' cannot mark a champion"),
        (["--alias", "previous-champion"], 1, "Alias 'previous-champion' cannot mark a champion"),
        (["--public-key", "/nowhere.pem"], 1, "/nowhere.pem"),
    ],
)
def test_invalid_options_are_refused(arguments: list[str], code: int, message: str) -> None:
    assert_fails(invoke(promote, "--model-name", "nobody", *arguments), code, message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--alpha", "0.7"], "alpha"),
        (["--min-improvement", "-1"], "min_improvement"),
        (["--min-return", "nan"], "min_return"),
    ],
)
def test_invalid_settings_of_the_gate_are_refused(
    champion: Version, arguments: list[str], message: str
) -> None:
    result = invoke(promote, "--model-name", champion.name, "--version", "1", *arguments)

    assert_fails(result, 2, message)
