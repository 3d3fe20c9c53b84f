"""Whole projects: a store and a working folder of their own, `mlflow` as a process, nothing shared with this one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
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
    """A working folder with a tracking store in it, as a user has one."""

    folder: Path
    variables: dict[str, str] = field(default_factory=dict)
    """Environment variables besides MLFLOW_TRACKING_URI."""

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
        given = [part for parameter in parameters for part in ("-P", parameter)]
        return self.run(["mlflow", "run", uri, "-e", entry_point, "--env-manager", "local", *given])

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
        """Runs of the Default experiment, the newest first."""
        return list(self.client.search_runs(["0"], filter_string))


@contextmanager
def run_server(place: Place, command: Sequence[str], ready: str) -> Iterator[None]:
    """A server as a process, from the moment that it answers at the URL `ready`; ended with all its children."""
    log = place.folder / f"server-{os.getpid()}.log"
    with process.run_server(
        command, ready=lambda: process.is_reachable(ready), log=log, variables=place.environment()
    ):
        yield


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def cloned(parent: Path) -> Place:
    """A new clone of the project to work in, with its store where MLflow has it by default."""
    place = Place(parent / "mlflow-sb3")
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(place.folder)], check=True)
    return place


@pytest.fixture(scope="session")
def trained_place(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Place:
    """A clone in which the README's first command ran for a short while: one for all workers, who add to it and change nothing."""
    base = tmp_path_factory.getbasetemp()
    parent = (base if worker_id == "master" else base.parent) / "trained"
    with FileLock(f"{parent}.lock"):
        if not parent.exists():
            done = cloned(parent).shell(short_example("set-up", timesteps=2000))
            assert done.returncode == 0, done.stdout + done.stderr
            assert "Mean reward: " in done.stdout
            shutil.copytree(parent / "mlflow-sb3", parent / "untouched")
    return Place(parent / "mlflow-sb3")


@pytest.fixture(scope="session")
def untouched_folder(trained_place: Place) -> Path:
    """The same as nobody adds to it, to be copied: where others are at work, files go meanwhile, and a store is half written."""
    return trained_place.folder.with_name("untouched")
