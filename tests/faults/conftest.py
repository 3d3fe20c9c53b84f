"""A real PostgreSQL and a real `mlflow server` in front of it."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest

from tests.project.conftest import Place, free_port, serving


def program(name: str) -> str:
    """A program of PostgreSQL, which Debian does not put on PATH."""
    found = [*sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}")), *filter(None, [shutil.which(name)])]
    assert found, f"{name} is missing; install PostgreSQL (Debian: apt-get install postgresql)"
    return str(found[0])


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URI of a database of its own. PostgreSQL does not run as root, so root hands it over to the user postgres."""
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    as_user = []
    if os.geteuid() == 0:
        os.chown(folder, pwd.getpwnam("postgres").pw_uid, -1)
        as_user = ["runuser", "-u", "postgres", "--"]
    port = free_port()

    def run(*command: str) -> None:
        subprocess.run([*as_user, *command], cwd=folder, check=True, stdout=subprocess.DEVNULL)

    run(program("initdb"), "-D", f"{folder}/data", "-U", "mlflow", "--auth", "trust")
    control = [program("pg_ctl"), "-D", f"{folder}/data", "-w", "-l", f"{folder}/log"]
    run(*control, "-o", f"-p {port} -k {folder} -h 127.0.0.1", "start")
    yield f"postgresql+psycopg2://mlflow@127.0.0.1:{port}/postgres"
    run(*control, "-m", "immediate", "stop")
    shutil.rmtree(folder)


@pytest.fixture
def mlflow_server(postgres: str, tmp_path: Path) -> Iterator[str]:
    """The URI of an `mlflow server`, which this process talks to."""
    place = Place(tmp_path, {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"})
    uri = f"http://127.0.0.1:{free_port()}"
    command = ["mlflow", "server", "--backend-store-uri", postgres, "--artifacts-destination", str(tmp_path / "served"), "--workers", "2"]
    before = mlflow.get_tracking_uri()
    with serving(place, [*command, "--port", uri.rpartition(":")[2]], f"{uri}/health"):
        mlflow.set_tracking_uri(uri)
        yield uri
    mlflow.set_tracking_uri(before)
