from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import mlflow
import pytest
import requests
import sqlalchemy as sa
from mlflow import MlflowClient
from mlflow.entities.model_registry import RegisteredModel
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED
from stable_baselines3 import PPO

import mlflow_sb3
from deploy.server import trial as trial_server
from deploy.server.process import find_free_port
from deploy.server.trial import TrialServer
from mlflow_sb3.client import permissions
from mlflow_sb3.client.connection import check_connection, hide_credentials
from mlflow_sb3.client.registry_client import RegistryClient
from mlflow_sb3.promotion import matchup
from mlflow_sb3.promotion.gate import Gate
from mlflow_sb3.registry import versions
from tests.project import people


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrialServer]:
    """A server on which nobody may do anything that nobody gave them a right to."""
    folder, users = tmp_path_factory.mktemp("closed"), ("owner", "other")
    with trial_server.run_trial(
        folder, port=find_free_port(), default_permission="NO_PERMISSIONS", users=users
    ) as trial:
        yield trial


@pytest.mark.usefixtures("store")
def test_a_store_without_a_login_refuses_nobody() -> None:
    permissions.check_permission("MANAGE", model="agent")
    permissions.check_permission("EDIT", experiment="0")


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    ("call", "lacks"),
    [
        ("mlflow/runs/create", "lacks EDIT on the experiment"),
        ("mlflow/runs/get", "lacks READ on the experiment"),
        ("mlflow/model-versions/set-tag", "lacks EDIT on the registered model"),
        ("mlflow/registered-models/delete", "lacks MANAGE on the registered model"),
        ("mlflow/model-versions/delete-tag", "lacks MANAGE on the registered model"),
        ("mlflow/runs/delete-tag", "lacks EDIT on the experiment"),
        ("mlflow/registered-models/alias", "lacks a right on the registered model"),
    ],
)
def test_what_the_server_refuses_is_named(call: str, lacks: str) -> None:
    error = MlflowException(
        f"API request to endpoint /api/2.0/{call} failed with error code 403 != 200. Response body: 'Permission denied'",
        PERMISSION_DENIED,
    )

    assert (
        permissions.explain_denial(error)
        == f"user '(not logged in)' {lacks} that {call} is about; ask its owner or an admin for it."
    )


@pytest.mark.usefixtures("store")
def test_other_errors_are_not_explained() -> None:
    assert (
        permissions.explain_denial(
            MlflowException(
                "API request to endpoint /api/2.0/mlflow/runs/get failed with error code 500"
            )
        )
        is None
    )
    assert permissions.explain_denial(ValueError("/api/2.0/mlflow/runs/get")) is None
    assert (
        permissions.explain_denial(
            requests.HTTPError("404 for url: http://host/api/2.0/mlflow-artifacts/artifacts/0")
        )
        is None
    )


def test_a_login_in_the_address_is_refused(store: str) -> None:
    mlflow.set_tracking_uri("http://alice:secret@127.0.0.1:9")

    with pytest.raises(
        MlflowException,
        match=r"http://alice:\*\*\*@127\.0\.0\.1:9 holds a login, .* set MLFLOW_TRACKING_USERNAME",
    ):
        check_connection()

    mlflow.set_tracking_uri(store)


@pytest.mark.usefixtures("store")
def test_a_token_is_taken_out_of_where_a_project_comes_from() -> None:
    client = MlflowClient()
    tags = {
        "mlflow.source.name": "https://token@host/a.git#b",
        "mlflow.source.git.repoURL": "https://me:token@host/a.git",
        "other": "a@b",
    }
    with mlflow.start_run(tags=tags) as run:
        hide_credentials(run.info.run_id)

    found = client.get_run(run.info.run_id).data.tags
    assert found["mlflow.source.name"] == "https://host/a.git#b"
    assert found["mlflow.source.git.repoURL"] == "https://host/a.git"
    assert found["other"] == "a@b"


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    ("address", "kept"),
    [
        ("ssh://git@host/a.git#b", "ssh://git@host/a.git#b"),
        ("git+ssh://me:secret@host/a.git", "git+ssh://me@host/a.git"),
    ],
    ids=["a user", "a password"],
)
def test_an_address_for_ssh_keeps_its_user_and_loses_its_password(address: str, kept: str) -> None:
    with mlflow.start_run(tags={"mlflow.source.name": address}) as run:
        hide_credentials(run.info.run_id)

    assert MlflowClient().get_run(run.info.run_id).data.tags["mlflow.source.name"] == kept


class Overtaken(RegistryClient):
    """Another process of the same user is faster; or MLflow calls again, as the answer to its first call was lost."""

    def create_registered_model(self, *args: Any, **kwargs: Any) -> RegisteredModel:
        """Two calls, of which the second is answered."""
        MlflowClient().create_registered_model(*args, **kwargs)
        return super().create_registered_model(*args, **kwargs)


@pytest.mark.postgres
@pytest.mark.usefixtures("store")
def test_a_hidden_model_is_refused_unless_it_turns_out_to_be_the_users_own(
    closed: TrialServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    people.log_in(closed, "owner", monkeypatch)
    with monkeypatch.context() as patched:
        patched.setattr(permissions, "Client", Overtaken)
        permissions.check_registration("agent", "MANAGE")
    permissions.check_registration("agent", "MANAGE")

    people.log_in(closed, "other", monkeypatch)
    with pytest.raises(
        MlflowException, match="user 'other' lacks EDIT on registered model agent; ask its owner"
    ):
        permissions.check_registration("agent", "EDIT")


@pytest.mark.postgres
@pytest.mark.usefixtures("store")
def test_who_may_promote_a_model_and_not_read_its_files_is_told_the_right(
    closed: TrialServer, ppo: PPO, monkeypatch: pytest.MonkeyPatch
) -> None:
    people.log_in(closed, "owner", monkeypatch)
    mlflow.set_experiment("of the owner")
    mlflow_sb3.log_model(ppo, name="agent", registered_model_name="hidden-files")
    closed.grant("other", "MANAGE", model="hidden-files")

    people.log_in(closed, "other", monkeypatch)
    version = versions.find_version("hidden-files", number=1)
    with pytest.raises(
        MlflowException,
        match=r"hidden-files/1 cannot be loaded: user 'other' lacks READ on the experiment that .* ask its",
    ):
        matchup.arrange_matchup(version, None, Gate())


@pytest.mark.postgres
@pytest.mark.usefixtures("store")
def test_a_server_answers_in_time_where_thousands_of_experiments_are_hidden(
    closed: TrialServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = sa.create_engine(people.database(closed).set(database="postgres"))
    experiments = sa.Table("experiments", sa.MetaData(), autoload_with=engine)
    with engine.begin() as connection:
        rows = [
            {"name": f"hidden {number}", "lifecycle_stage": "active", "artifact_location": "hidden"}
            for number in range(3000)
        ]
        connection.execute(experiments.insert(), rows)
    engine.dispose()

    people.log_in(closed, "other", monkeypatch)
    check_connection()
