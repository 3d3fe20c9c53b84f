"""Trainings that are done again on their commit."""

from __future__ import annotations

import json
from pathlib import Path

import mlflow
import pytest
from mlflow.entities import Run

from mlflow_sb3.provenance import DIGEST, RECORD
from tests.project.conftest import Place, cloned

pytestmark = pytest.mark.slow

TRAININGS = {
    "dqn": ("algo=dqn", "timesteps=3000"),
    "ppo": ("algo=ppo", "timesteps=3000"),
    "sac": ("algo=sac", "env=Pendulum-v1", "timesteps=600", "preset=none"),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return cloned(tmp_path_factory.mktemp("reproduced"))


def trained(place: Place, algo: str) -> Run:
    done = place.mlflow_run("train", *TRAININGS[algo], uri=str(place.folder))
    assert done.returncode == 0, done.stderr
    return place.runs("tags.mlflow.project.entryPoint = 'train'")[0]


@pytest.mark.parametrize("algo", TRAININGS)
def test_a_training_is_done_again_with_identical_weights(place: Place, algo: str) -> None:
    run = trained(place, algo)

    done = place.mlflow_run("reproduce", f"run_id={run.info.run_id}", uri=str(place.folder))

    again, first = (found for found in place.runs("tags.mlflow.project.entryPoint = 'train'")[:2])
    reproduction = place.runs("tags.mlflow.project.entryPoint = 'reproduce'")[0]
    assert done.returncode == 0, done.stderr
    assert f"identical: the weights of run {run.info.run_id} and of run {again.info.run_id}" in done.stdout
    assert reproduction.data.tags["mlflow_sb3.reproduction"] == "identical"
    assert again.data.tags["mlflow.parentRunId"] == reproduction.info.run_id
    assert again.data.tags[DIGEST] == first.data.tags[DIGEST]
    assert place.shell("git worktree list").stdout.count("\n") == 1


def test_a_hyperparameter_that_was_changed_in_the_record_is_named(place: Place, tmp_path: Path) -> None:
    run = trained(place, "ppo")
    uri = f"{run.info.artifact_uri}/{RECORD}"
    record = json.loads(mlflow.artifacts.load_text(uri))
    record["recipe"]["hyperparams"]["gae_lambda"] = 0.5
    (tmp_path / RECORD).write_text(json.dumps(record))
    place.client.log_artifact(run.info.run_id, str(tmp_path / RECORD))

    done = place.mlflow_run("reproduce", f"run_id={run.info.run_id}", uri=str(place.folder))

    assert done.returncode == 0, done.stderr
    assert "hyperparameter gae_lambda was 0.8 in the parameters of the run, and 0.5 now" in done.stdout
    assert "different: the weights of run" in done.stdout


def test_a_run_that_trained_nothing_and_a_commit_that_is_gone_are_one_line(place: Place, tmp_path: Path) -> None:
    run = trained(place, "ppo")
    record = json.loads(mlflow.artifacts.load_text(f"{run.info.artifact_uri}/{RECORD}"))
    record["facts"]["commit"] = "a" * 40
    (tmp_path / RECORD).write_text(json.dumps(record))
    place.client.log_artifact(run.info.run_id, str(tmp_path / RECORD))

    gone = place.mlflow_run("reproduce", f"run_id={run.info.run_id}", uri=str(place.folder))
    empty = place.mlflow_run("reproduce", f"run_id={place.client.create_run('0').info.run_id}", uri=str(place.folder))

    assert f"Error: commit {'a' * 40} is neither in" in gone.stderr
    assert "holds no training.json; give the id of a finished run of the entry point train." in empty.stderr
    assert (gone.returncode, empty.returncode) == (1, 1)
