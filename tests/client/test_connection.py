from __future__ import annotations

import os
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import mlflow
import pytest
import sqlalchemy as sa
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from deploy.server.trial import TrialServer
from mlflow_sb3.client import connection
from tests.project import people


@pytest.fixture
def silent_server() -> Iterator[str]:
    """A server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.fixture
def disconnecting_server() -> Iterator[str]:
    """A server that closes every connection."""
    listening = socket.create_server(("127.0.0.1", 0))

    def close_connections() -> None:
        while True:
            try:
                listening.accept()[0].close()
            except OSError:
                return

    thread = threading.Thread(target=close_connections, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join()


def fail_to_connect(uri: str) -> tuple[float, str]:
    """Return the seconds until the check fails, and its message."""
    mlflow.set_tracking_uri(uri)
    start = time.monotonic()
    with pytest.raises(MlflowException, match="does not answer") as caught:
        connection.check_connection()
    return time.monotonic() - start, caught.value.message


def test_a_store_whose_creation_was_killed_is_an_error_in_one_line(tmp_path: Path) -> None:
    """A migration of MLflow creates this table for a moment."""
    uri = f"sqlite:///{tmp_path}/half.db"
    with closing(sqlite3.connect(tmp_path / "half.db")) as database:
        database.execute("CREATE TABLE _alembic_tmp_latest_metrics (key VARCHAR)")
    mlflow.set_tracking_uri(uri)

    with pytest.raises(MlflowException) as caught:
        connection.check_connection()

    assert f"tracking store {uri} has tables that MLflow cannot use: " in caught.value.message
    assert "_alembic_tmp_latest_metrics already exists. The process" in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.usefixtures("store")
def test_a_store_that_answers_passes() -> None:
    connection.check_connection()


@pytest.mark.usefixtures("store")
def test_an_unreachable_server_fails_in_seconds_with_a_remedy() -> None:
    environment = dict(os.environ) | {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}

    seconds, message = fail_to_connect("http://127.0.0.1:9")

    assert seconds < 10
    assert message.startswith("tracking server http://127.0.0.1:9 does not answer: ")
    assert message.endswith("Start it, or set MLFLOW_TRACKING_URI to another server.")
    assert dict(os.environ) == environment


@pytest.mark.usefixtures("store")
def test_a_server_that_closes_connections_fails_in_seconds(disconnecting_server: str) -> None:
    assert fail_to_connect(disconnecting_server)[0] < 10


@pytest.mark.process
@pytest.mark.usefixtures("store")
def test_a_server_that_never_answers_fails_in_ten_seconds(silent_server: str) -> None:
    assert fail_to_connect(silent_server)[0] < 10


@pytest.mark.usefixtures("store")
def test_a_database_that_never_answers_fails_in_seconds(silent_server: str) -> None:
    seconds, message = fail_to_connect(
        silent_server.replace("http://", "postgresql+psycopg2://me:secret@") + "/mlflow"
    )

    assert seconds < 10
    assert message.startswith("tracking store postgresql+psycopg2://me:***@127.0.0.1:")


def test_a_missing_database_fails_in_seconds(tmp_path: Path, store: str) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/nowhere/mlflow.db")
    start = time.monotonic()

    with pytest.raises(
        MlflowException, match=r"tracking store .* does not answer: .*unable to open database file"
    ):
        connection.check_connection()

    mlflow.set_tracking_uri(store)
    assert time.monotonic() - start < 10


def test_a_uri_with_credentials_is_rejected(store: str) -> None:
    mlflow.set_tracking_uri("http://alice:secret@127.0.0.1:9")

    with pytest.raises(
        MlflowException,
        match=r"http://alice:\*\*\*@127\.0\.0\.1:9 contains credentials, .* set MLFLOW_TRACKING",
    ):
        connection.check_connection()

    mlflow.set_tracking_uri(store)


@pytest.mark.postgres
@pytest.mark.usefixtures("store")
def test_a_server_with_thousands_of_hidden_experiments_answers_in_time(
    closed_server: TrialServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = sa.create_engine(people.database(closed_server).set(database="postgres"))
    experiments = sa.Table("experiments", sa.MetaData(), autoload_with=engine)
    with engine.begin() as database:
        rows = [
            {"name": f"hidden {number}", "lifecycle_stage": "active", "artifact_location": "hidden"}
            for number in range(3000)
        ]
        database.execute(experiments.insert(), rows)
    engine.dispose()

    people.log_in(closed_server, "other", monkeypatch)
    connection.check_connection()


def test_a_request_that_fails_quickly_is_repeated() -> None:
    attempts: list[int] = []

    def fail() -> None:
        attempts.append(1)
        raise MlflowException("connection closed")

    with pytest.raises(MlflowException, match="connection closed"):
        connection.call_with_short_timeout(fail)

    assert len(attempts) == connection.MAX_ATTEMPTS


def test_an_answer_of_the_server_is_not_requested_again() -> None:
    attempts: list[int] = []

    def fail() -> None:
        attempts.append(1)
        raise MlflowException.invalid_parameter_value("no such name")

    with pytest.raises(MlflowException, match="no such name"):
        connection.call_with_short_timeout(fail)

    assert len(attempts) == 1


@pytest.mark.usefixtures("store")
def test_credentials_are_removed_from_the_source_tags() -> None:
    tags = {
        "mlflow.source.name": "https://token@host/a.git#b",
        "mlflow.source.git.repoURL": "https://me:token@host/a.git",
        "other": "a@b",
    }
    with mlflow.start_run(tags=tags) as run:
        connection.hide_credentials(run)

    stored = MlflowClient().get_run(run.info.run_id).data.tags
    assert stored["mlflow.source.name"] == "https://host/a.git#b"
    assert stored["mlflow.source.git.repoURL"] == "https://host/a.git"
    assert stored["other"] == "a@b"


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("ssh://git@host/a.git#b", "ssh://git@host/a.git#b"),
        ("git+ssh://me:secret@host/a.git", "git+ssh://me@host/a.git"),
    ],
    ids=["a user", "a password"],
)
def test_an_ssh_url_keeps_its_user_and_loses_its_password(url: str, expected: str) -> None:
    with mlflow.start_run(tags={"mlflow.source.name": url}) as run:
        connection.hide_credentials(run)

    assert MlflowClient().get_run(run.info.run_id).data.tags["mlflow.source.name"] == expected


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("postgresql://host/db?user=me&password=secret", "postgresql://host/db"),
        ("postgresql://me:sec?ret@host/db?sslmode=require", "postgresql://me:***@host/db"),
        (
            "postgresql+psycopg2://me:sec/r et#@host:5432/db",
            "postgresql+psycopg2://me:***@host:5432/db",
        ),
        ("sqlite:////home/me/a@b/mlflow.db", "sqlite:////home/me/a@b/mlflow.db"),
        ("http://host:5000/a@b", "http://host:5000/a@b"),
        (
            "mssql+pyodbc:///?odbc_connect=DRIVER%3D%7Bx%7D%3BUID%3Dme%3BPWD%3Dsecret",
            "mssql+pyodbc:///",
        ),
        ("https://token@host/path", "https://***@host/path"),
        ("mlflow-artifacts:/1/a%20b", "mlflow-artifacts:/1/a%20b"),
    ],
)
def test_a_redacted_uri_contains_no_password(uri: str, expected: str) -> None:
    assert connection.redact_uri(uri) == expected
