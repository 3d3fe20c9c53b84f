"""Working folders with a store of their own, in which tests run `mlflow` as a process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Run

from deploy.server import process
from tests import ROOT
from tests.project.readme import short_example


@dataclass(frozen=True)
class Place:
    """A working folder of a user with a tracking store in it."""

    folder: Path
    variables: dict[str, str] = field(default_factory=dict)
    """More environment variables of the processes."""

    @property
    def store(self) -> str:
        return f"sqlite:///{self.folder}/mlflow.db"

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(self.store)

    def environment(self) -> dict[str, str]:
        own = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
        path = f"{Path(sys.executable).parent}{os.pathsep}{own['PATH']}"
        return own | {"PATH": path, "MLFLOW_TRACKING_URI": self.store} | self.variables

    def mlflow_run(
        self, entry_point: str, *parameters: str, uri: str = str(ROOT)
    ) -> subprocess.CompletedProcess[str]:
        options = [part for parameter in parameters for part in ("-P", parameter)]
        command = ["mlflow", "run", uri, "-e", entry_point, "--env-manager", "local"]
        return self.run([*command, *options])

    def shell(self, commands: str) -> subprocess.CompletedProcess[str]:
        """Run shell commands, and stop at the first one that fails."""
        return self.run(["bash", "-euo", "pipefail", "-c", commands])

    def run(self, command: Sequence[str], timeout: int = 900) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def runs(self, filter_string: str = "") -> list[Run]:
        """Return the runs of the experiment Default, the newest first."""
        return list(self.client.search_runs(["0"], filter_string))


@contextmanager
def run_server(place: Place, command: Sequence[str], ready: str) -> Iterator[None]:
    """Run a server until the context ends. Enter the context when the URL `ready` answers."""
    log = place.folder / f"server-{os.getpid()}.log"
    with process.run_server(
        command, ready=lambda: process.is_reachable(ready), log=log, variables=place.environment()
    ):
        yield


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def cloned(parent: Path) -> Place:
    """Return a new clone of the project. Its store is where MLflow creates it by default."""
    place = Place(parent / "mlflow-sb3")
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(place.folder)], check=True)
    return place


@pytest.fixture(scope="session")
def trained_place(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Place:
    """A clone in which the first command of the README has run.

    All workers share it. They may add runs, but must not change any.
    """
    base = tmp_path_factory.getbasetemp()
    parent = (base if worker_id == "master" else base.parent) / "trained"
    variables = {"XDG_STATE_HOME": str(parent / "state")}  # has the key that signed the agent
    with FileLock(f"{parent}.lock"):
        if not parent.exists():
            place = replace(cloned(parent), variables=variables)
            done = place.shell(short_example("set-up", timesteps=2000))
            assert done.returncode == 0, done.stdout + done.stderr
            assert "Mean reward: " in done.stdout
            shutil.copytree(parent / "mlflow-sb3", parent / "untouched")
    return Place(parent / "mlflow-sb3", variables)


@pytest.fixture(scope="session")
def untouched_folder(trained_place: Place) -> Path:
    """A copy of that clone to which no test adds runs, so that it can be copied at any time."""
    return trained_place.folder.with_name("untouched")
