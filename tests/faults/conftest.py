"""PostgreSQL, and an `mlflow server` that uses it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest

from deploy.server.postgres import run_postgres
from deploy.server.process import find_free_port
from tests.project.conftest import Place, run_server


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URI of a new database."""
    with run_postgres(tmp_path_factory.mktemp("postgres") / "postgresql.log") as server:
        yield server.uri()


@pytest.fixture
def mlflow_server(postgres: str, tmp_path: Path) -> Iterator[str]:
    """URI of an `mlflow server` on PostgreSQL. It is the tracking URI during the test."""
    place = Place(tmp_path, {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"})
    port = find_free_port()
    uri = f"http://127.0.0.1:{port}"
    command = ["mlflow", "server", "--backend-store-uri", postgres]
    command += ["--artifacts-destination", str(tmp_path / "served")]
    command += ["--workers", "2", "--port", str(port)]
    previous_uri = mlflow.get_tracking_uri()
    with run_server(place, command, f"{uri}/health"):
        mlflow.set_tracking_uri(uri)
        yield uri
    mlflow.set_tracking_uri(previous_uri)
