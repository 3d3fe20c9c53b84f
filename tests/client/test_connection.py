from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from mlflow.exceptions import MlflowException

from mlflow_sb3.client import connection


@pytest.fixture
def silent_server() -> Iterator[str]:
    """A server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.fixture
def broken_server() -> Iterator[str]:
    """A server that closes every connection."""
    listening = socket.create_server(("127.0.0.1", 0))

    def close_all() -> None:
        while True:
            try:
                listening.accept()[0].close()
            except OSError:
                return

    thread = threading.Thread(target=close_all, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join()


@pytest.mark.usefixtures("store")
def test_a_store_that_answers_passes() -> None:
    connection.check_connection()


def refusal(uri: str) -> tuple[float, str]:
    """How long the check takes to refuse, and what it says."""
    mlflow.set_tracking_uri(uri)
    start = time.monotonic()
    with pytest.raises(MlflowException, match="does not answer") as caught:
        connection.check_connection()
    return time.monotonic() - start, caught.value.message


@pytest.mark.usefixtures("store")
def test_a_server_that_is_away_is_refused_in_seconds_with_the_way_out() -> None:
    variables = dict(os.environ) | {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}

    seconds, message = refusal("http://127.0.0.1:9")

    assert seconds < 10
    assert message.startswith("tracking server http://127.0.0.1:9 does not answer: ")
    assert message.endswith("Set MLFLOW_TRACKING_URI to one that does.")
    assert dict(os.environ) == variables


@pytest.mark.usefixtures("store")
def test_a_server_that_hangs_up_is_refused_in_seconds(broken_server: str) -> None:
    assert refusal(broken_server)[0] < 10


@pytest.mark.process
@pytest.mark.usefixtures("store")
def test_a_server_that_never_answers_is_refused_in_ten_seconds(silent_server: str) -> None:
    assert refusal(silent_server)[0] < 10


@pytest.mark.usefixtures("store")
def test_a_database_that_never_answers_is_refused_in_seconds(silent_server: str) -> None:
    seconds, message = refusal(
        silent_server.replace("http://", "postgresql+psycopg2://me:secret@") + "/mlflow"
    )

    assert seconds < 10
    assert message.startswith("tracking store postgresql+psycopg2://me:***@127.0.0.1:")


def test_a_database_that_is_away_is_refused_in_seconds(tmp_path: Path, store: str) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/nowhere/mlflow.db")
    start = time.monotonic()

    with pytest.raises(
        MlflowException, match=r"tracking store .* does not answer: .*unable to open database file"
    ):
        connection.check_connection()

    mlflow.set_tracking_uri(store)
    assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    ("uri", "shown"),
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
def test_no_password_of_an_address_is_shown(uri: str, shown: str) -> None:
    assert connection.redact_uri(uri) == shown
