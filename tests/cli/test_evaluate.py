"""Tests of the step evaluate."""

from __future__ import annotations

import json
from pathlib import Path

import click
import mlflow
import pytest
from mlflow import MlflowClient

from mlflow_sb3.cli.evaluate import evaluate
from mlflow_sb3.cli.log_model import log_model
from mlflow_sb3.cli.promote import promote
from mlflow_sb3.registry import versions
from mlflow_sb3.registry.model_version import Version
from tests.cli.commands import assert_fails, get_last_run, invoke, list_artifacts, succeed

COMMANDS = pytest.mark.parametrize("command", [promote, evaluate], ids=["promote", "evaluate"])


def test_evaluation_prints_and_logs_the_returns(champion: Version) -> None:
    options = ("--version", "1", "--episodes", "3", "--print-returns", "true")

    result = invoke(evaluate, "--model-name", champion.name, *options)

    run = get_last_run()
    returns = json.loads(result.stdout.partition("Episode returns: ")[2].partition("\n")[0])
    lowest, median, highest = sorted(returns)
    words = f"Returns: min {lowest:.2f}, median {median:.2f}, max {highest:.2f}\n"
    assert words in result.stdout
    assert f"Mean reward: {sum(returns) / 3:.2f} +/- " in result.stdout
    assert run.data.metrics["evaluation/episodes"] == 3
    table = mlflow.load_table("evaluation/episodes.json", run_ids=[run.info.run_id])
    assert table["return"].tolist() == returns
    paths = {"evaluation/episodes.json", "evaluation/returns.png"}
    assert list_artifacts(run, "evaluation") == paths
    metrics = mlflow.get_logged_model(champion.model_id).metrics or []
    on_model = {metric.key: metric.value for metric in metrics}
    assert on_model["evaluation/mean_return"] == run.data.metrics["evaluation/mean_return"]


def test_evaluation_names_its_run_and_prints_no_list(champion: Version) -> None:
    result = invoke(evaluate, "--model-name", champion.name, "--episodes", "3")

    run = get_last_run()
    assert "Episode returns" not in result.stdout
    assert run.info.run_name == f"evaluate {champion}"
    assert "over 3 new episodes" in run.data.tags["mlflow.note.content"]


def test_evaluation_records_a_video(champion: Version) -> None:
    run = succeed(evaluate, "--model-name", champion.name, "--episodes", "1", "--video", "true")

    assert "evaluation/episode.mp4" in list_artifacts(run, "evaluation")


def test_an_unknown_alias_is_refused(champion: Version) -> None:
    result = invoke(evaluate, "--model-name", champion.name, "--alias", "hero")

    assert_fails(result, 1, "has no alias 'hero'. Its aliases are")


@COMMANDS
@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--model-name", "nobody"], 1, "Registered model 'nobody' does not exist"),
        (["--version", "77"], 1, "has no version 77. Its aliases are champion (version 1)"),
        (["--version", "two"], 2, "'two' is not the number of a model version"),
        (["--version", "0"], 2, "'0' is not the number of a model version"),
    ],
)
def test_unknown_versions_are_refused(
    command: click.Command, arguments: list[str], code: int, message: str, champion: Version
) -> None:
    name = [] if "--model-name" in arguments else ["--model-name", champion.name]

    assert_fails(invoke(command, *arguments, *name), code, message)


@COMMANDS
def test_a_changed_byte_of_the_graph_is_refused(command: click.Command, champion: Version) -> None:
    succeed(log_model, "--run-id", str(champion.run_id))
    version = versions.find_version(champion.name, number=2)
    location = mlflow.get_logged_model(version.model_id).artifact_location
    graph = Path(location.removeprefix("file://"), "agent", "policy.onnx")
    content = bytearray(graph.read_bytes())
    content[-1] ^= 1
    graph.write_bytes(content)

    result = invoke(command, "--model-name", champion.name, "--version", "2")

    assert_fails(result, 1, "changed after registration")
    model = MlflowClient().get_registered_model(champion.name)
    assert model.aliases == {"champion": 1, "challenger": 2}
