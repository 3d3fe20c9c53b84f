"""A real PostgreSQL and a real `mlflow server` in front of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
import pytest

from deploy.server import postgres as postgres_server
from deploy.server.process import find_free_port
from tests.project.conftest import Place, run_server


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URI of a database of its own."""
    with postgres_server.run_postgres(
        tmp_path_factory.mktemp("postgres") / "postgresql.log"
    ) as found:
        yield found.uri()


@pytest.fixture
def mlflow_server(postgres: str, tmp_path: Path) -> Iterator[str]:
    """The URI of an `mlflow server`, which this process talks to."""
    with served(postgres, tmp_path) as uri:
        yield uri


@contextmanager
def served(postgres: str, folder: Path) -> Iterator[str]:
    """An `mlflow server` that lasts as long as the context, which this process talks to meanwhile."""
    place = Place(folder, {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"})
    uri = f"http://127.0.0.1:{find_free_port()}"
    command = [
        "mlflow",
        "server",
        "--backend-store-uri",
        postgres,
        "--artifacts-destination",
        str(folder / "served"),
        "--workers",
        "2",
    ]
    before = mlflow.get_tracking_uri()
    with run_server(place, [*command, "--port", uri.rpartition(":")[2]], f"{uri}/health"):
        mlflow.set_tracking_uri(uri)
        yield uri
    mlflow.set_tracking_uri(before)
