from __future__ import annotations

import os
import time
import uuid
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from deploy.server import trial as trial_server
from deploy.server.process import find_free_port
from deploy.server.trial import TrialServer
from mlflow_sb3.client import preflight
from tests.project.conftest import Place, run_server


def a_run(experiment_id: str) -> str:
    return str(MlflowClient().create_run(experiment_id).info.run_id)


def active_experiment() -> str:
    return str(MlflowClient().search_experiments(filter_string="name = 'test'")[0].experiment_id)


@pytest.mark.usefixtures("store")
def test_artifacts_that_can_be_written_pass_and_hold_the_proof() -> None:
    run_id = a_run(active_experiment())

    preflight.check_artifacts(run_id)

    assert [file.path for file in MlflowClient().list_artifacts(run_id)] == [
        preflight.PREFLIGHT_FILE
    ]


@pytest.mark.usefixtures("store")
def test_artifacts_that_cannot_be_written_are_refused_with_the_place_and_the_reason(
    tmp_path: Path,
) -> None:
    (tmp_path / "a file").touch()
    run_id = a_run(
        mlflow.create_experiment("nowhere", artifact_location=f"{tmp_path.as_uri()}/a%20file/of")
    )

    with pytest.raises(
        MlflowException,
        match=r"artifacts cannot be written to .*/a%20file/of/.*Not a directory.* Ask who runs",
    ):
        preflight.check_artifacts(run_id)


@pytest.mark.process
@pytest.mark.usefixtures("store")
def test_an_object_store_that_is_away_behind_a_server_that_answers_is_refused_in_seconds(
    tmp_path: Path,
) -> None:
    store = f"sqlite:///{tmp_path}/server.db"
    uri = f"http://127.0.0.1:{find_free_port()}"
    away = {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_S3_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
    }
    command = [
        "mlflow",
        "server",
        "--backend-store-uri",
        store,
        "--artifacts-destination",
        "s3://away",
        "--workers",
        "1",
    ]
    with run_server(
        Place(tmp_path, away), [*command, "--port", uri.rpartition(":")[2]], f"{uri}/health"
    ):
        mlflow.set_tracking_uri(uri)
        run_id, before, start = a_run("0"), dict(os.environ), time.monotonic()

        with pytest.raises(
            MlflowException, match="artifacts cannot be written to mlflow-artifacts:/"
        ):
            preflight.check_artifacts(run_id)
        seconds = time.monotonic() - start

    assert seconds < 10
    assert dict(os.environ) == before


@pytest.mark.usefixtures("store")
def test_a_registry_without_users_passes_and_is_left_as_it_was() -> None:
    MlflowClient().create_registered_model("there")

    preflight.check_registry("there", "MANAGE")
    preflight.check_registry("not there", "MANAGE")

    assert [model.name for model in MlflowClient().search_registered_models()] == ["there"]


@pytest.mark.process
@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    ("has", "lacks"),
    [("DENY", "MANAGE"), ("READ", "MANAGE"), ("EDIT", "MANAGE"), ("MANAGE", None)],
    ids=["none", "read", "edit", "manage"],
)
def test_who_may_not_promote_a_model_is_told_the_right_by_name(
    trial: TrialServer, monkeypatch: pytest.MonkeyPatch, has: str, lacks: str | None
) -> None:
    model = user = f"user-{uuid.uuid4().hex[:6]}"
    trial_server.add_user(trial, user)
    trial.post("2.0/mlflow/registered-models/create", {"name": model})
    trial.grant(user, has, model=model)
    for name, value in trial.login_env(user).items():
        monkeypatch.setenv(name, value)
    mlflow.set_tracking_uri(trial.uri)

    if lacks is None:
        preflight.check_registry(model, "MANAGE")
    else:
        with pytest.raises(
            MlflowException,
            match=f"user '{user}' lacks {lacks} on registered model {model}.*; ask its owner or an admin",
        ):
            preflight.check_registry(model, "MANAGE")
    preflight.check_registry(f"{model}-of-my-own", "MANAGE")
