from __future__ import annotations

import logging

import mlflow
import pytest
import requests
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED
from stable_baselines3 import PPO

import mlflow_sb3
from deploy.server.trial import TrialServer
from mlflow_sb3.client import permissions
from mlflow_sb3.promotion import matchup
from mlflow_sb3.promotion.gate import Gate
from mlflow_sb3.registry import versions
from tests.project import people

DENIED = (
    "API request to endpoint /api/2.0/mlflow/runs/create failed with error code 403 != 200. "
    "Response body: 'Permission denied'"
)


def http_error(status: int) -> requests.HTTPError:
    """Return the error that MLflow raises for artifacts on an HTTP server."""
    response = requests.Response()
    response.status_code = status
    return requests.HTTPError(f"{status} for url: http://host/artifacts", response=response)


@pytest.mark.usefixtures("store")
def test_a_store_without_authentication_grants_every_permission() -> None:
    permissions.check_permission("MANAGE", model="agent")
    permissions.check_permission("EDIT", experiment="0")
    permissions.check_registration("agent", "MANAGE")


@pytest.mark.usefixtures("store")
def test_the_check_of_a_registration_creates_no_model() -> None:
    permissions.check_registration("agent")

    assert list(MlflowClient().search_registered_models()) == []


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("error", [MlflowException(DENIED, PERMISSION_DENIED), http_error(403)])
def test_a_denied_request_is_explained_with_its_permission(error: Exception) -> None:
    assert permissions.explain_denial(error, "EDIT", "experiment 3") == (
        "user '(not logged in)' lacks EDIT on experiment 3; ask its owner or an admin for it."
    )


@pytest.mark.usefixtures("store")
def test_a_denied_request_of_unknown_permission_is_explained_with_the_answer_of_the_server() -> (
    None
):
    assert permissions.explain_denial(MlflowException(DENIED, PERMISSION_DENIED)) == (
        f"user '(not logged in)' lacks the permission for a request: {DENIED}; "
        "ask the owner of the resource or an admin for it."
    )


@pytest.mark.usefixtures("store")
def test_a_missing_permission_keeps_its_message() -> None:
    error = permissions.build_permission_error("MANAGE", "registered model agent", held="READ")

    assert permissions.explain_denial(error, "EDIT", "experiment 3") == (
        "user '(not logged in)' lacks MANAGE on registered model agent, and has READ; "
        "ask its owner or an admin for it."
    )


@pytest.mark.parametrize(
    "error",
    [
        MlflowException(DENIED.replace("403", "500")),
        ValueError("/api/2.0/mlflow/runs/get"),
        http_error(404),
    ],
)
def test_other_errors_are_not_explained(error: Exception) -> None:
    assert permissions.explain_denial(error, "EDIT", "experiment 3") is None


@pytest.mark.usefixtures("store")
def test_metrics_are_logged_to_the_run_and_to_the_model() -> None:
    with mlflow.start_run() as run:
        model = mlflow.initialize_logged_model("agent")
        permissions.log_metrics({"score": 3.0}, model.model_id)

    logged = MlflowClient().get_logged_model(model.model_id).metrics
    assert logged is not None
    assert MlflowClient().get_run(run.info.run_id).data.metrics == {"score": 3.0}
    assert [(metric.key, metric.value) for metric in logged] == [("score", 3.0)]


@pytest.mark.postgres
@pytest.mark.usefixtures("store")
def test_a_model_that_the_user_cannot_read_fails_at_registration(
    closed_server: TrialServer, ppo: PPO, monkeypatch: pytest.MonkeyPatch
) -> None:
    people.log_in(closed_server, "owner", monkeypatch)
    MlflowClient().create_registered_model("owned")
    permissions.check_registration("owned", "MANAGE")

    people.log_in(closed_server, "other", monkeypatch)
    mlflow.set_experiment("experiment of other")
    permissions.check_registration("owned", "MANAGE")
    permissions.check_registration("absent", "MANAGE")
    with pytest.raises(
        MlflowException, match="user 'other' lacks EDIT on registered model owned; ask its owner"
    ):
        mlflow_sb3.log_model(ppo, name="agent", registered_model_name="owned")

    people.log_in(closed_server, "admin", monkeypatch)
    names = [model.name for model in MlflowClient().search_registered_models()]
    assert "absent" not in names


@pytest.mark.postgres
@pytest.mark.usefixtures("store")
def test_a_model_whose_files_the_user_cannot_read_names_the_permission(
    closed_server: TrialServer, ppo: PPO, monkeypatch: pytest.MonkeyPatch
) -> None:
    people.log_in(closed_server, "owner", monkeypatch)
    mlflow.set_experiment("experiment of owner")
    mlflow_sb3.log_model(ppo, name="agent", registered_model_name="hidden-files")
    closed_server.grant("other", "MANAGE", model="hidden-files")

    people.log_in(closed_server, "other", monkeypatch)
    version = versions.find_version("hidden-files", number=1)
    with pytest.raises(
        MlflowException,
        match=r"hidden-files/1 cannot be loaded: user 'other' lacks READ on the experiment of",
    ):
        matchup.arrange_matchup(version, None, Gate())


@pytest.mark.postgres
@pytest.mark.usefixtures("store")
def test_metrics_of_a_model_of_another_user_are_logged_to_the_run_only(
    closed_server: TrialServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    people.log_in(closed_server, "owner", monkeypatch)
    mlflow.set_experiment("models of owner")
    model = mlflow.initialize_logged_model("agent")

    people.log_in(closed_server, "other", monkeypatch)
    mlflow.set_experiment("runs of other")
    with mlflow.start_run() as run, caplog.at_level(logging.WARNING):
        permissions.log_metrics({"score": 3.0}, model.model_id)

    assert MlflowClient().get_run(run.info.run_id).data.metrics == {"score": 3.0}
    assert "metrics are logged to the run only: user 'other' lacks EDIT" in caplog.text
