"""The entry point ``reproduce`` in a clone of the project."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.entities import Run

from mlflow_sb3.training.provenance import POLICY_DIGEST_TAG
from mlflow_sb3.training.training_record import TRAINING_JSON
from tests.project.conftest import Place, cloned

pytestmark = pytest.mark.process

TRAINING = ("algo=ppo", "timesteps=3000", 'env_kwargs={"max_episode_steps": 50}')
"""Options of the training. Other algorithms are repeated in tests/faults/test_resume.py."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Clone of the project with a tracking store."""
    return cloned(tmp_path_factory.mktemp("reproduced"))


@pytest.fixture(scope="module")
def run(place: Place) -> Run:
    """Run of a training."""
    done = place.mlflow_run("train", *TRAINING, uri=str(place.folder))
    assert done.returncode == 0, done.stderr
    return place.runs("tags.mlflow.project.entryPoint = 'train'")[0]


def reproduce(place: Place, run_id: str) -> subprocess.CompletedProcess[str]:
    return place.mlflow_run("reproduce", f"run_id={run_id}", uri=str(place.folder))


@contextmanager
def changed_record(
    place: Place, run: Run, folder: Path, change: Callable[[dict[str, Any]], None]
) -> Iterator[None]:
    """Change ``training.json`` of a run inside the context."""
    uri, path = f"{run.info.artifact_uri}/{TRAINING_JSON}", folder / TRAINING_JSON
    original = mlflow.artifacts.load_text(uri)
    record = json.loads(original)
    change(record)
    path.write_text(json.dumps(record))
    place.client.log_artifact(run.info.run_id, str(path))
    try:
        yield
    finally:
        path.write_text(original)
        place.client.log_artifact(run.info.run_id, str(path))


def test_a_reproduced_training_has_identical_weights(place: Place, run: Run) -> None:
    done = reproduce(place, run.info.run_id)

    new_run = place.runs("tags.mlflow.project.entryPoint = 'train'")[0]
    reproduction = place.runs("tags.mlflow.project.entryPoint = 'reproduce'")[0]
    verdict = f"identical: the weights of run {run.info.run_id} and of run {new_run.info.run_id}"
    assert done.returncode == 0, done.stderr
    assert verdict in done.stdout
    assert reproduction.data.tags["mlflow_sb3.reproduction"] == "identical"
    assert new_run.data.tags["mlflow.parentRunId"] == reproduction.info.run_id
    assert new_run.data.tags[POLICY_DIGEST_TAG] == run.data.tags[POLICY_DIGEST_TAG]
    assert place.shell("git worktree list").stdout.count("\n") == 1


def test_a_changed_hyperparameter_of_the_record_is_named(
    place: Place, run: Run, tmp_path: Path
) -> None:
    def change(record: dict[str, Any]) -> None:
        record["recipe"]["hyperparams"]["gae_lambda"] = 0.5

    with changed_record(place, run, tmp_path, change):
        done = reproduce(place, run.info.run_id)

    difference = "hyperparameter gae_lambda was 0.8 in the parameters of the run, and is 0.5 now"
    assert done.returncode == 0, done.stderr
    assert difference in done.stdout
    assert "different: the weights of run" in done.stdout


def test_an_unknown_commit_is_an_error_in_one_line(place: Place, run: Run, tmp_path: Path) -> None:
    def change(record: dict[str, Any]) -> None:
        record["facts"]["commit"] = "a" * 40

    with changed_record(place, run, tmp_path, change):
        done = reproduce(place, run.info.run_id)

    assert done.returncode == 1
    assert f"Error: Commit {'a' * 40} is on no branch" in done.stderr


def test_a_run_without_a_training_is_an_error_in_one_line(place: Place) -> None:
    run_id = place.client.create_run("0").info.run_id

    done = reproduce(place, run_id)

    assert done.returncode == 1
    assert f"Error: Run {run_id} has no readable training.json. Pass the id of" in done.stderr
