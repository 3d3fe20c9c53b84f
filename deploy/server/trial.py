"""An MLflow server as a team has it, to try on this machine: PostgreSQL, an S3-compatible store, and a login."""

from __future__ import annotations

import configparser
import io
import json
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import click
import requests
from cryptography.fernet import Fernet

from deploy.server import postgres, process, store
from deploy.server.store import Store

ADMIN = "admin"
_PASSWORD = "MLFLOW_AUTH_ADMIN_PASSWORD"  # noqa: S105 the name of MLflow's variable
_FACTS = "server.json"
_PERMISSIONS = ("READ", "USE", "EDIT", "MANAGE", "NO_PERMISSIONS")


@dataclass(frozen=True)
class Trial:
    """A running trial server."""

    uri: str
    folder: Path
    store: Store

    @classmethod
    def load(cls, folder: Path) -> Trial:
        """The server that runs in a folder, as other processes see it."""
        facts = json.loads((folder / _FACTS).read_text())
        return cls(facts["uri"], folder, Store(**facts["store"]))

    def save(self) -> None:
        """Tell other processes that it is ready."""
        _write(self.folder / _FACTS, json.dumps({"uri": self.uri, "store": asdict(self.store)}))

    def is_ready(self) -> bool:
        """Whether it answers."""
        return process.answers(f"{self.uri}/health")

    def login(self, user: str = ADMIN) -> dict[str, str]:
        """Environment variables by which MLflow finds the server and logs in."""
        return {
            "MLFLOW_TRACKING_URI": self.uri,
            "MLFLOW_TRACKING_USERNAME": user,
            "MLFLOW_TRACKING_PASSWORD": self.password(user),
        }

    def password(self, user: str = ADMIN) -> str:
        """The password of a user."""
        return _password_of(user, self.folder).read_text()

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Call MLflow's REST API as the admin, as for users and rights.

        Raises:
            click.ClickException: It is refused.
        """
        answer = requests.post(
            f"{self.uri}/api/{path}", json=body, auth=(ADMIN, self.password()), timeout=60
        )
        if not answer.ok:
            raise click.ClickException(f"{path} is refused: {answer.text.strip()}")
        answered: dict[str, Any] = answer.json()
        return answered

    def grant(
        self, user: str, permission: str, *, model: str | None = None, experiment: str | None = None
    ) -> None:
        """Give a user a right to a registered model, by its name, or to an experiment, by its id."""
        kind, resource = (
            ("registered_model", model) if model is not None else ("experiment", experiment)
        )
        body = {
            "username": user,
            "resource_type": kind,
            "resource_id": resource,
            "permission": permission,
        }
        self.post("3.0/mlflow/users/permissions/grant", body)


@contextmanager
def running(
    folder: Path, *, port: int, default_permission: str = "READ", users: Sequence[str] = ()
) -> Iterator[Trial]:
    """Run the server; what it holds is gone when the context ends, but for passwords and logs.

    Args:
        folder: For passwords, logs and the server's configuration.
        port: On 127.0.0.1.
        default_permission: Of every user on what nobody gave them a right to.
        users: To add, besides the admin.

    Raises:
        click.ClickException: Something does not start; what had been started is ended.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _check_free(folder, port)
    with ExitStack() as stack:
        stack.callback((folder / _FACTS).unlink, missing_ok=True)
        own = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("MLFLOW_", "AWS_"))
        }
        database = stack.enter_context(postgres.running(folder / "postgresql.log"))
        objects = stack.enter_context(store.running(folder / "store.log", own))
        trial = Trial(f"http://127.0.0.1:{port}", folder, objects)
        database.create("auth")
        variables = {
            "MLFLOW_BACKEND_STORE_URI": database.uri(),  # with its password, so not on the command line
            "MLFLOW_AUTH_CONFIG_PATH": str(
                _write_config(folder, database.uri("auth"), default_permission)
            ),
            _PASSWORD: _password(ADMIN, folder, os.environ.get(_PASSWORD)),
            "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(16),
            "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": Fernet.generate_key().decode(),
            "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",  # a receiver to try with has no certificate, and
            "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",  # listens on this machine
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        }
        command = [
            sys.executable,
            "-m",
            "mlflow",
            "server",
            "--app-name",
            "basic-auth",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
        ]
        command += ["--workers", "1", "--artifacts-destination", f"s3://{store.BUCKET}"]
        stack.enter_context(
            process.serving(
                command,
                ready=trial.is_ready,
                log=folder / "mlflow.log",
                variables=own | objects.variables() | variables,
            )
        )
        for user in users:
            add(trial, user)
        trial.save()
        yield trial


def add(trial: Trial, user: str) -> None:
    """Add a user, whose password lies in a file of the folder."""
    password = _password(user, trial.folder, None)
    trial.post("2.0/mlflow/users/create", {"username": user, "password": password})


def _check_free(folder: Path, port: int) -> None:
    if (folder / _FACTS).exists() and Trial.load(folder).is_ready():
        raise click.ClickException(
            f"a server runs in {folder} at {Trial.load(folder).uri} already; end it, or give another folder."
        )
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(("127.0.0.1", port))
        except OSError as error:
            raise click.ClickException(
                f"port {port} is taken ({error.strerror}); give another one by --port."
            ) from error


def _password_of(user: str, folder: Path) -> Path:
    return folder / f"{user}.password"


def _password(user: str, folder: Path, given: str | None) -> str:
    """The given password, else the one of an earlier time, else a new one; kept in a file that nobody else reads."""
    path = _password_of(user, folder)
    password = given or (path.read_text() if path.exists() else secrets.token_urlsafe(18))
    _write(path, password)
    return password


def _write_config(folder: Path, database: str, default_permission: str) -> Path:
    config = configparser.RawConfigParser()
    config["mlflow"] = {
        "default_permission": default_permission,
        "database_uri": database,
        "admin_username": ADMIN,
        "auth_cache_ttl_seconds": "300",  # checking a password takes long on purpose, and MLflow does it for every request, twice
    }
    text = io.StringIO()
    config.write(text)
    path = folder / "auth.ini"
    _write(path, text.getvalue())
    return path


def _write(path: Path, text: str) -> None:
    """Write a file for this user alone, which others see whole or not at all."""
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    new.touch(mode=0o600)
    new.write_text(text)
    new.replace(path)


def _stop(_signal: int, _frame: FrameType | None) -> None:
    """End once; more signals are not to disturb that."""
    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, signal.SIG_IGN)
    raise KeyboardInterrupt


@click.command()
@click.option(
    "--folder", default="~/mlflow-trial", show_default=True, help="For passwords and logs."
)
@click.option(
    "--port",
    default=5000,
    show_default=True,
    type=click.IntRange(1, 65535),
    help="Of this machine, 127.0.0.1.",
)
@click.option(
    "--user",
    "users",
    multiple=True,
    help="Add this user, besides the admin; may be given several times.",
)
@click.option(
    "--default-permission",
    default="READ",
    show_default=True,
    type=click.Choice(_PERMISSIONS),
    help="Of all users on everything.",
)
def trial(folder: str, port: int, users: tuple[str, ...], default_permission: str) -> None:
    """Run MLflow with a login on PostgreSQL and an S3-compatible store, until Ctrl-C; nothing of it lasts longer."""
    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, _stop)
    try:
        with running(
            Path(folder).expanduser().absolute(),
            port=port,
            default_permission=default_permission,
            users=users,
        ) as found:
            click.echo(
                f"MLflow answers at {found.uri}. Log in as {', '.join((ADMIN, *users))}: export MLFLOW_TRACKING_URI={found.uri} "
                f"MLFLOW_TRACKING_USERNAME={ADMIN} MLFLOW_TRACKING_PASSWORD=$(cat {_password_of(ADMIN, found.folder)})"
            )
            while True:
                time.sleep(3600)
    except KeyboardInterrupt:
        click.echo("Ended, and all it held with it.", err=True)


if __name__ == "__main__":
    trial()
