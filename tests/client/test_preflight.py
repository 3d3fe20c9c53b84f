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
from tests.project.people import log_in


def create_run(experiment_id: str) -> str:
    return str(MlflowClient().create_run(experiment_id).info.run_id)


def get_experiment_id() -> str:
    return str(MlflowClient().search_experiments(filter_string="name = 'test'")[0].experiment_id)


@pytest.mark.usefixtures("store")
def test_a_writable_artifact_store_gets_a_small_file() -> None:
    run_id = create_run(get_experiment_id())

    preflight.check_artifacts(run_id)

    assert [file.path for file in MlflowClient().list_artifacts(run_id)] == [
        preflight.PREFLIGHT_FILE
    ]


@pytest.mark.usefixtures("store")
def test_an_unwritable_artifact_store_is_named_with_the_reason(
    tmp_path: Path,
) -> None:
    (tmp_path / "a file").touch()
    run_id = create_run(
        mlflow.create_experiment("nowhere", artifact_location=f"{tmp_path.as_uri()}/a%20file/of")
    )

    with pytest.raises(
        MlflowException,
        match=r"artifacts cannot be written to .*/a%20file/of/.*Not a directory.* Ask the adm",
    ):
        preflight.check_artifacts(run_id)


@pytest.mark.process
@pytest.mark.usefixtures("store")
def test_an_unreachable_object_store_behind_a_server_fails_in_seconds(
    tmp_path: Path,
) -> None:
    store = f"sqlite:///{tmp_path}/server.db"
    uri = f"http://127.0.0.1:{find_free_port()}"
    variables = {
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
        Place(tmp_path, variables), [*command, "--port", uri.rpartition(":")[2]], f"{uri}/health"
    ):
        mlflow.set_tracking_uri(uri)
        run_id = create_run("0")
        environment, start = dict(os.environ), time.monotonic()

        with pytest.raises(
            MlflowException, match="artifacts cannot be written to mlflow-artifacts:/"
        ):
            preflight.check_artifacts(run_id)
        seconds = time.monotonic() - start

    assert seconds < 10
    assert dict(os.environ) == environment


@pytest.mark.usefixtures("store")
def test_the_check_of_a_registry_without_users_passes_and_creates_nothing() -> None:
    MlflowClient().create_registered_model("present")

    preflight.check_registry("present", "MANAGE")
    preflight.check_registry("absent", "MANAGE")

    assert [model.name for model in MlflowClient().search_registered_models()] == ["present"]


@pytest.mark.postgres
@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("held", ["DENY", "READ", "EDIT"])
def test_a_user_without_manage_may_not_promote(
    trial: TrialServer, monkeypatch: pytest.MonkeyPatch, held: str
) -> None:
    user, model = create_model_of_admin(trial, held)
    log_in(trial, user, monkeypatch)

    with pytest.raises(
        MlflowException,
        match=f"user '{user}' lacks MANAGE on registered model {model}.*; ask its owner",
    ):
        preflight.check_registry(model, "MANAGE")


@pytest.mark.postgres
@pytest.mark.usefixtures("store")
def test_a_user_may_promote_with_manage_and_create_new_models(
    trial: TrialServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    user, model = create_model_of_admin(trial, "MANAGE")
    log_in(trial, user, monkeypatch)

    preflight.check_registry(model, "MANAGE")
    preflight.check_registry(f"{model}-new", "MANAGE")


def create_model_of_admin(trial: TrialServer, permission: str) -> tuple[str, str]:
    """Create a user and a registered model on which the user has one permission."""
    model = user = f"user-{uuid.uuid4().hex[:6]}"
    trial_server.add_user(trial, user)
    trial.post("2.0/mlflow/registered-models/create", {"name": model})
    trial.grant(user, permission, model=model)
    return user, model
