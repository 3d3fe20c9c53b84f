from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from mlflow_sb3.runs import state_dir
from mlflow_sb3.tracking import atomic_file
from mlflow_sb3.tracking.run_logger import RunLogger
from mlflow_sb3.tracking.snapshot_header import FIRST_LINE
from mlflow_sb3.tracking.snapshot_uploader import SNAPSHOT_DIR, SNAPSHOT_NAMES
from mlflow_sb3.training import provenance, resume
from mlflow_sb3.training.provenance import INEXACT_TAG
from mlflow_sb3.training.resume_point import RESUMED_AT_TAG
from mlflow_sb3.training.training_record import TrainingFacts
from tests.training.interrupted_runs import make_interrupted_run

pytestmark = pytest.mark.usefixtures("store")


def resume_run(interrupted_run_id: str, facts: TrainingFacts, folder: Path) -> str:
    """Resume an interrupted run in a new run, without learning, and return the new id."""
    with (
        mlflow.start_run() as run,
        resume.find_snapshot(interrupted_run_id) as resume_point,
        RunLogger(run.info.run_id, folder) as run_logger,
    ):
        resume_point.resume_in(run_logger, facts)
    return str(run.info.run_id)


def test_metrics_up_to_the_snapshot_are_restored_once_with_nan_and_infinity(
    tmp_path: Path,
) -> None:
    facts = provenance.collect_facts(1)

    run_id = resume_run(make_interrupted_run(facts), facts, tmp_path / "run")

    history = MlflowClient().get_metric_history(run_id, "a")
    tags = mlflow.get_run(run_id).data.tags
    assert sorted(point.step for point in history) == [1, 2, 3, 4]
    assert math.isnan(next(point.value for point in history if point.step == 2))
    assert tags[RESUMED_AT_TAG] == "32"
    assert INEXACT_TAG not in tags


def test_a_tag_names_another_machine_and_another_package(tmp_path: Path) -> None:
    facts = provenance.collect_facts(1)
    before = replace(facts, cpu="another", packages=facts.packages | {"torch": "1.0"})

    run_id = resume_run(make_interrupted_run(before), facts, tmp_path / "run")

    reasons = mlflow.get_run(run_id).data.tags[INEXACT_TAG]
    assert "package torch was 1.0, and is 2." in reasons
    assert "CPU was another, and is" in reasons


def test_the_tag_of_an_interrupted_run_is_inherited(tmp_path: Path) -> None:
    facts = provenance.collect_facts(1)
    interrupted_run_id = make_interrupted_run(facts)
    MlflowClient().set_tag(interrupted_run_id, INEXACT_TAG, "an earlier reason")

    run_id = resume_run(interrupted_run_id, facts, tmp_path / "run")

    assert mlflow.get_run(run_id).data.tags[INEXACT_TAG] == "an earlier reason"


def test_a_snapshot_is_not_unpickled_if_that_is_forbidden(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run_id = make_interrupted_run()
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")

    with (
        resume.find_snapshot(run_id) as resume_point,
        pytest.raises(mlflow.MlflowException, match=f"snapshot of run {run_id}"),
    ):
        resume_point.load()


def test_a_snapshot_of_an_older_version_is_rejected_in_one_line() -> None:
    run_id = make_interrupted_run()
    path = state_dir.get_run_dir(run_id) / SNAPSHOT_DIR / SNAPSHOT_NAMES[0]
    header = {"step": 32, "learned": False, "context": {}, "n_envs": 1, "schema": 3}
    path.write_bytes(FIRST_LINE + json.dumps(header).encode() + b"\nan old pickle")
    atomic_file.append_digest(path)

    with (
        pytest.raises(mlflow.MlflowException, match="has schema 3, but this version") as caught,
        resume.find_snapshot(run_id),
    ):
        pass

    assert "\n" not in caught.value.message
