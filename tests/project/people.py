"""People of a team, each on a machine of their own: another home, another clone, another virtual environment."""

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
    """A user of the server, with an experiment that is called after them."""

    name: str
    place: Place

    def step(self, name: str, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Call a step as a program."""
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
    """Add a user of that name, made unique, whose home is a new folder."""
    user = f"{name}-{uuid.uuid4().hex[:6]}"
    trial_server.add_user(trial, user)
    return at_home(trial, user, parent)


def at_home(trial: TrialServer, user: str, parent: Path) -> Person:
    """A user in their folder."""
    home = parent / user
    home.mkdir(exist_ok=True)
    quiet = {
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    }
    own = {"HOME": str(home), "XDG_STATE_HOME": str(home / "state")}
    return Person(user, Place(home, trial.login_env(user) | own | quiet))


def log_in(trial: TrialServer, user: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process talk to the server as a user, for a test whose `store` puts back where it talked to before."""
    for name, value in trial.login_env(user).items():
        monkeypatch.setenv(name, value)
    mlflow.set_tracking_uri(trial.uri)


def database(trial: TrialServer) -> URL:
    """The database of users and rights, as the server's own configuration has it, beside the one of runs and models."""
    config = configparser.RawConfigParser()
    config.read_string((trial.folder / "auth.ini").read_text())
    return make_url(config["mlflow"]["database_uri"])


SUBFOLDER, TAG = "agents/sb3", "v1.2.0"
"""Where the project lies on the git server, and the tag of the commit in which it is what is committed here."""


@contextmanager
def git_server(folder: Path) -> Iterator[str]:
    """The URI of a repository on a git server, whose HEAD is broken. (MLflow takes a `file://` that exists for a folder.)"""
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
    asked = ["git", "ls-remote", "--quiet", uri]
    with process.run_server(
        command,
        ready=lambda: subprocess.run(asked, capture_output=True, check=False).returncode == 0,
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
    subprocess.run([*git, "commit", "--quiet", "--all", "--message", "A broken one"], check=True)


def virtual_environment(folder: Path) -> Path:
    """Another virtual environment with the packages of this one; returns the folder of its programs."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "shared.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "bin"
