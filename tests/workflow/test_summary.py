from __future__ import annotations

from dataclasses import replace
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from mlflow_sb3.registry.model_version import Version
from mlflow_sb3.workflow import summary
from mlflow_sb3.workflow.summary import Summary

METRICS: dict[str, dict[str, float]] = {
    "train": {"eval/kept_step": 45000.0, "eval/kept_mean_reward": 500.0, "rollout/fps": 1.0},
    "promote": {"promotion/lower_bound": -12.0},
    "evaluate": {
        "evaluation/mean_return": 480.25,
        "evaluation/std_return": 3.5,
        "evaluation/episodes": 100.0,
    },
}


def create_step(name: str, seconds: int = 7, **tags: str) -> Run:
    client = MlflowClient()
    run = client.create_run("0", start_time=1_000_000)
    for key, metric in METRICS.get(name, {}).items():
        client.log_metric(run.info.run_id, key, metric)
    for key, tag in tags.items():
        client.set_tag(run.info.run_id, f"mlflow_sb3.{key}", tag)
    client.set_terminated(run.info.run_id, end_time=1_000_000 + 1000 * seconds)
    return client.get_run(run.info.run_id)


def find_version(number: int) -> Version:
    return Version("agent", number, f"m-{number}", None, None)


@pytest.fixture
def rejected(store: str) -> Summary:
    """The summary of a ``main`` whose version 2 lost against the champion, version 1."""
    promoted = create_step("promote", version="agent/2", verdict="reject")
    MlflowClient().set_tag(promoted.info.run_id, "mlflow.note.content", "It is worse.")
    return Summary(
        "main CartPole-v1 dqn seed 0",
        find_version(1),
        trained=create_step("train", 3725),
        logged=create_step("log_model", 61, version="agent/2"),
        promoted=mlflow.get_run(promoted.info.run_id),
        evaluated=create_step("evaluate", version="agent/1"),
    )


def change_verdict(rejected: Summary, verdict: str, **values: Any) -> Summary:
    MlflowClient().set_tag(rejected.promoted.info.run_id, "mlflow_sb3.verdict", verdict)
    return replace(rejected, promoted=mlflow.get_run(rejected.promoted.info.run_id), **values)


def test_a_rejected_challenger_is_called_rejected(rejected: Summary) -> None:
    assert rejected.describe() == {
        "trained": "CartPole-v1 dqn seed 0: kept the checkpoint of step 45000 with a mean return "
        "of 500.00",
        "version": "agent/2",
        "verdict": "v2 rejected. It is worse.",
        "champion": "agent/1: mean return 480.25 +/- 3.50 in 100 new episodes",
        "times": "train 1 h 2 min, log_model 1 min 1 s, promote 7 s, evaluate 7 s",
    }


@pytest.mark.parametrize(
    ("verdict", "champion", "outcome"),
    [
        ("promote", 2, "v2 promoted"),
        ("promote", 1, "v2 awaits approval"),
        ("promote", None, "v2 awaits approval"),
        ("tie", 1, "v2 rejected after a tie"),
        ("inconclusive", 1, "v2 inconclusive"),
    ],
)
def test_the_outcome_says_what_happened_to_the_version(
    rejected: Summary, verdict: str, champion: int | None, outcome: str
) -> None:
    version = None if champion is None else find_version(champion)

    assert change_verdict(rejected, verdict, champion=version).outcome == outcome


def test_without_a_champion_the_version_was_evaluated(rejected: Summary) -> None:
    evaluated = create_step("evaluate", version="agent/2")

    text = replace(rejected, champion=None, evaluated=evaluated).describe()["champion"]

    assert text.startswith("none yet; evaluated agent/2: mean return 480.25")


def test_the_run_of_main_gets_the_metrics_and_the_outcome(rejected: Summary) -> None:
    with mlflow.start_run() as run:
        rejected.log(run.info.run_id)

    data = mlflow.get_run(run.info.run_id).data
    assert mlflow.get_run(run.info.run_id).info.run_name == (
        "main CartPole-v1 dqn seed 0 -> v2 rejected"
    )
    assert data.tags["mlflow_sb3.verdict"] == "reject"
    assert "**verdict**: v2 rejected. It is worse." in data.tags["mlflow.note.content"]
    expected = METRICS["promote"] | METRICS["evaluate"] | METRICS["train"]
    del expected["rollout/fps"]
    assert data.metrics == expected


def test_the_summary_ends_with_the_id_of_the_run(rejected: Summary) -> None:
    with mlflow.start_run() as run:
        lines = summary.format_summary(rejected).splitlines()

    assert len(lines) == 7
    assert lines[1].startswith("  trained   CartPole-v1 dqn seed 0: kept")
    assert lines[-1] == f"  run       {run.info.run_id}"
