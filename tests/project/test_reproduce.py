"""Trainings that are done again on their commit."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.entities import Run

from mlflow_sb3.training.provenance import POLICY_DIGEST_TAG, TRAINING_JSON
from tests.project.conftest import Place, cloned

pytestmark = pytest.mark.process

TRAININGS = {
    "dqn": ("algo=dqn", "timesteps=3000"),
    "ppo": ("algo=ppo", "timesteps=3000"),
    "sac": ("algo=sac", "env=Pendulum-v1", "timesteps=600", "preset=none"),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return cloned(tmp_path_factory.mktemp("reproduced"))


@pytest.fixture(scope="module")
def trained(place: Place) -> Callable[[str], Run]:
    """The run of an algorithm, trained once."""

    @cache
    def train(algo: str) -> Run:
        done = place.mlflow_run("train", *TRAININGS[algo], uri=str(place.folder))
        assert done.returncode == 0, done.stderr
        return place.runs("tags.mlflow.project.entryPoint = 'train'")[0]

    return train


@contextmanager
def changed_record(
    place: Place, run: Run, folder: Path, change: Callable[[dict[str, Any]], None]
) -> Iterator[None]:
    """The record of a run with a change in it."""
    uri, path = f"{run.info.artifact_uri}/{TRAINING_JSON}", folder / TRAINING_JSON
    before = mlflow.artifacts.load_text(uri)
    record = json.loads(before)
    change(record)
    path.write_text(json.dumps(record))
    place.client.log_artifact(run.info.run_id, str(path))
    try:
        yield
    finally:
        path.write_text(before)
        place.client.log_artifact(run.info.run_id, str(path))


@pytest.mark.parametrize("algo", TRAININGS)
def test_a_training_is_done_again_with_identical_weights(
    place: Place, trained: Callable[[str], Run], algo: str
) -> None:
    run = trained(algo)

    done = place.mlflow_run("reproduce", f"run_id={run.info.run_id}", uri=str(place.folder))

    again = place.runs("tags.mlflow.project.entryPoint = 'train'")[0]
    reproduction = place.runs("tags.mlflow.project.entryPoint = 'reproduce'")[0]
    assert done.returncode == 0, done.stderr
    assert (
        f"identical: the weights of run {run.info.run_id} and of run {again.info.run_id}"
        in done.stdout
    )
    assert reproduction.data.tags["mlflow_sb3.reproduction"] == "identical"
    assert again.data.tags["mlflow.parentRunId"] == reproduction.info.run_id
    assert again.data.tags[POLICY_DIGEST_TAG] == run.data.tags[POLICY_DIGEST_TAG]
    assert place.shell("git worktree list").stdout.count("\n") == 1


def test_a_hyperparameter_that_was_changed_in_the_record_is_named(
    place: Place, trained: Callable[[str], Run], tmp_path: Path
) -> None:
    run = trained("ppo")

    with changed_record(
        place, run, tmp_path, lambda record: record["recipe"]["hyperparams"].update(gae_lambda=0.5)
    ):
        done = place.mlflow_run("reproduce", f"run_id={run.info.run_id}", uri=str(place.folder))

    assert done.returncode == 0, done.stderr
    assert (
        "hyperparameter gae_lambda was 0.8 in the parameters of the run, and 0.5 now" in done.stdout
    )
    assert "different: the weights of run" in done.stdout


def test_a_run_that_trained_nothing_and_a_commit_that_is_gone_are_one_line(
    place: Place, trained: Callable[[str], Run], tmp_path: Path
) -> None:
    run = trained("ppo")

    with changed_record(
        place, run, tmp_path, lambda record: record["facts"].update(commit="a" * 40)
    ):
        gone = place.mlflow_run("reproduce", f"run_id={run.info.run_id}", uri=str(place.folder))
    empty = place.mlflow_run(
        "reproduce", f"run_id={place.client.create_run('0').info.run_id}", uri=str(place.folder)
    )

    assert f"Error: commit {'a' * 40} is neither in" in gone.stderr
    assert (
        "holds no training.json; give the id of a finished run of the entry point train."
        in empty.stderr
    )
    assert (gone.returncode, empty.returncode) == (1, 1)
