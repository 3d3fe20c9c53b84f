"""Users of a tracking server, each with another home, clone and virtual environment."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import sys
import sysconfig
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pytest
from sqlalchemy import URL, make_url

from deploy.server import process
from deploy.server import trial as trial_server
from deploy.server.trial import TrialServer
from tests import ROOT
from tests.project.conftest import Place


@dataclass(frozen=True)
class Person:
    """A user of the server, with an experiment of the same name."""

    name: str
    place: Place

    def step(self, name: str, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a step as a process."""
        command = [sys.executable, "-m", f"steps.{name}", *options]
        own = (
            self.place.environment()
            | {"MLFLOW_EXPERIMENT_NAME": self.name, "PYTHONPATH": str(ROOT)}
            | variables
        )
        return subprocess.run(
            command,
            cwd=self.place.folder,
            env=own,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )


def join(trial: TrialServer, name: str, parent: Path) -> Person:
    """Add a user with a unique name and a new home folder."""
    user = f"{name}-{uuid.uuid4().hex[:6]}"
    trial_server.add_user(trial, user)
    return at_home(trial, user, parent)


def at_home(trial: TrialServer, user: str, parent: Path) -> Person:
    """Return an existing user with a home folder below another folder."""
    home = parent / user
    home.mkdir(exist_ok=True)
    quiet = {
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    }
    own = {"HOME": str(home), "XDG_STATE_HOME": str(home / "state")}
    return Person(user, Place(home, trial.login_env(user) | own | quiet))


def log_in(trial: TrialServer, user: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Log this process in to the server. The fixture `store` restores the previous server."""
    for name, value in trial.login_env(user).items():
        monkeypatch.setenv(name, value)
    mlflow.set_tracking_uri(trial.uri)


def database(trial: TrialServer) -> URL:
    """Return the URL of the database with users and permissions."""
    config = configparser.RawConfigParser()
    config.read_string((trial.folder / "auth.ini").read_text())
    return make_url(config["mlflow"]["database_uri"])


SUBFOLDER, TAG = "agents/sb3", "v1.2.0"
"""Folder of the project on the git server, and the tag of a commit that contains it."""


@contextmanager
def git_server(folder: Path) -> Iterator[str]:
    """Run a git server, and yield the URI of a repository with a broken HEAD.

    A `file://` URI would not do, because MLflow treats it as a folder.
    """
    _commit(folder / "repository")
    port = str(process.find_free_port())
    command = [
        "git",
        "daemon",
        "--export-all",
        f"--base-path={folder}",
        "--listen=127.0.0.1",
        f"--port={port}",
        str(folder),
    ]
    uri = f"git://127.0.0.1:{port}/repository"
    check = ["git", "ls-remote", "--quiet", uri]
    with process.run_server(
        command,
        ready=lambda: subprocess.run(check, capture_output=True, check=False).returncode == 0,
        log=folder / "git.log",
        variables=os.environ,
    ):
        yield uri


def _commit(repository: Path) -> None:
    git = [
        "git",
        "-C",
        str(repository),
        "-c",
        "user.name=Team",
        "-c",
        "user.email=team@example.com",
    ]
    project = repository / SUBFOLDER
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(project)], check=True)
    shutil.rmtree(project / ".git")
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "add", "--force", "."], check=True)
    subprocess.run([*git, "commit", "--quiet", "--message", "The project"], check=True)
    subprocess.run([*git, "tag", TAG], check=True)
    (project / "MLproject").write_text("broken")
    subprocess.run(
        [*git, "commit", "--quiet", "--all", "--message", "A broken project"], check=True
    )


def virtual_environment(folder: Path) -> Path:
    """Create a virtual environment that shares the packages of this one, and return its bin."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "shared.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "bin"
