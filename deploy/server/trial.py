"""Run an MLflow server on this machine for trials, with PostgreSQL, an S3 store and a login."""

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

from deploy.server import postgres, private_files, process, store
from deploy.server.store import Store

ADMIN = "admin"
_PASSWORD = "MLFLOW_AUTH_ADMIN_PASSWORD"  # noqa: S105 name of an environment variable of MLflow
_SERVER_JSON = "server.json"
_PERMISSIONS = ("READ", "USE", "EDIT", "MANAGE", "NO_PERMISSIONS")


@dataclass(frozen=True)
class TrialServer:
    """A running trial server."""

    uri: str
    folder: Path
    """Folder with the passwords, the logs and the configuration of the server."""
    store: Store

    @classmethod
    def load(cls, folder: Path) -> TrialServer:
        """Return the server that another process runs with this folder."""
        content = json.loads((folder / _SERVER_JSON).read_text())
        return cls(content["uri"], folder, Store(**content["store"]))

    def save(self) -> None:
        """Write server.json, so that other processes can load the server."""
        content = {"uri": self.uri, "store": asdict(self.store)}
        private_files.write_private(self.folder / _SERVER_JSON, json.dumps(content))

    def is_ready(self) -> bool:
        """Return whether the server accepts requests."""
        return process.is_reachable(f"{self.uri}/health")

    def login_env(self, user: str = ADMIN) -> dict[str, str]:
        """Return the environment variables by which MLflow logs in to the server."""
        return {
            "MLFLOW_TRACKING_URI": self.uri,
            "MLFLOW_TRACKING_USERNAME": user,
            "MLFLOW_TRACKING_PASSWORD": self.read_password(user),
        }

    def read_password(self, user: str = ADMIN) -> str:
        """Return the password of a user."""
        return private_files.password_file(user, self.folder).read_text()

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Call MLflow's REST API as the admin.

        Args:
            path: Path below ``/api/``.
            body: JSON body of the request.

        Returns:
            The JSON body of the response.

        Raises:
            click.ClickException: The server answered with an HTTP error.
        """
        response = requests.post(
            f"{self.uri}/api/{path}", json=body, auth=(ADMIN, self.read_password()), timeout=60
        )
        if not response.ok:
            raise click.ClickException(
                f"POST {path} failed with status {response.status_code}: {response.text.strip()}"
            )
        content: dict[str, Any] = response.json()
        return content

    def grant(
        self, user: str, permission: str, *, model: str | None = None, experiment: str | None = None
    ) -> None:
        """Grant a user a permission.

        Args:
            user: Name of the user.
            permission: READ, USE, EDIT, MANAGE or NO_PERMISSIONS.
            model: Name of the registered model. None grants the permission on the experiment.
            experiment: Id of the experiment.
        """
        resource = experiment if model is None else model
        body = {
            "username": user,
            "resource_type": "experiment" if model is None else "registered_model",
            "resource_id": resource,
            "permission": permission,
        }
        self.post("3.0/mlflow/users/permissions/grant", body)


@contextmanager
def run_trial(
    folder: Path, *, port: int, default_permission: str = "READ", users: Sequence[str] = ()
) -> Iterator[TrialServer]:
    """Run the server until the context ends. Then delete its databases and artifacts.

    The files in ``folder`` stay, except for ``server.json``.

    Args:
        folder: Folder for the passwords, the logs and the configuration of the server.
        port: Port on 127.0.0.1.
        default_permission: Permission of every user on resources without an explicit permission.
        users: Users to create besides the admin.

    Raises:
        click.ClickException: Another trial server uses the folder, the port is in use, or a part
            of the server does not start. Parts that already run are then stopped.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _check_available(folder, port)
    with ExitStack() as stack:
        stack.callback((folder / _SERVER_JSON).unlink, missing_ok=True)
        inherited = _inherited_env()
        database = stack.enter_context(postgres.run_postgres(folder / "postgresql.log"))
        objects = stack.enter_context(store.run_store(folder / "store.log", inherited))
        trial = TrialServer(f"http://127.0.0.1:{port}", folder, objects)
        database.create_database("auth")
        config = _write_config(folder, database.uri("auth"), default_permission)
        own = _server_env(database.uri(), config, folder)
        stack.enter_context(
            process.run_server(
                _server_command(port),
                ready=trial.is_ready,
                log=folder / "mlflow.log",
                variables=inherited | objects.client_env() | own,
            )
        )
        for user in users:
            add_user(trial, user)
        trial.save()
        yield trial


def add_user(trial: TrialServer, user: str) -> None:
    """Create a user and write the password to a file in the folder of the server."""
    password = private_files.choose_password(user, trial.folder, None)
    trial.post("2.0/mlflow/users/create", {"username": user, "password": password})


def _check_available(folder: Path, port: int) -> None:
    if (folder / _SERVER_JSON).exists() and TrialServer.load(folder).is_ready():
        raise click.ClickException(
            f"A trial server already uses {folder}. It listens at {TrialServer.load(folder).uri}. "
            "Stop it or give another --folder."
        )
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise click.ClickException(
                f"Cannot listen on port {port}: {error.strerror}. Give another --port."
            ) from error


def _inherited_env() -> dict[str, str]:
    """Return the environment without variables that would point to other servers."""
    foreign = ("MLFLOW_", "AWS_")
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign)}


def _server_command(port: int) -> list[str]:
    command = [sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    return [*command, "--artifacts-destination", f"s3://{store.BUCKET}"]


def _server_env(database_uri: str, config: Path, folder: Path) -> dict[str, str]:
    return {
        # A variable, because other users of this machine can read a command line.
        "MLFLOW_BACKEND_STORE_URI": database_uri,
        "MLFLOW_AUTH_CONFIG_PATH": str(config),
        _PASSWORD: private_files.choose_password(ADMIN, folder, os.environ.get(_PASSWORD)),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(16),
        "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": Fernet.generate_key().decode(),
        # A receiver for trials has no certificate and listens on this machine.
        "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
        "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }


def _write_config(folder: Path, database: str, default_permission: str) -> Path:
    config = configparser.RawConfigParser()
    config["mlflow"] = {
        "default_permission": default_permission,
        "database_uri": database,
        "admin_username": ADMIN,
        # MLflow checks the password twice per request, and each check is slow by design.
        "auth_cache_ttl_seconds": "300",
    }
    text = io.StringIO()
    config.write(text)
    path = folder / "auth.ini"
    private_files.write_private(path, text.getvalue())
    return path


def _interrupt_once(_signal: int, _frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt, and ignore further signals while the servers stop."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


@click.command()
@click.option(
    "--folder",
    default="~/mlflow-trial",
    show_default=True,
    help="Folder for passwords, logs and the configuration.",
)
@click.option(
    "--port",
    default=5000,
    show_default=True,
    type=click.IntRange(1, 65535),
    help="Port on 127.0.0.1.",
)
@click.option(
    "--user",
    "users",
    multiple=True,
    help="User to create besides the admin. Repeat the option for several users.",
)
@click.option(
    "--default-permission",
    default="READ",
    show_default=True,
    type=click.Choice(_PERMISSIONS),
    help="Permission of every user on resources without an explicit permission.",
)
def trial(folder: str, port: int, users: tuple[str, ...], default_permission: str) -> None:
    """Run MLflow with a login, PostgreSQL and an S3 store until Ctrl-C.

    Then delete the databases and the artifacts. The passwords and logs stay in the folder.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _interrupt_once)
    path = Path(folder).expanduser().absolute()
    try:
        with run_trial(
            path, port=port, default_permission=default_permission, users=users
        ) as server:
            password_file = private_files.password_file(ADMIN, path)
            click.echo(
                f"MLflow runs at {server.uri} with the users {', '.join((ADMIN, *users))}. "
                f"Log in: export MLFLOW_TRACKING_URI={server.uri} MLFLOW_TRACKING_USERNAME={ADMIN} "
                f"MLFLOW_TRACKING_PASSWORD=$(cat {password_file})"
            )
            while True:
                time.sleep(3600)
    except KeyboardInterrupt:
        click.echo("The trial server has stopped and its data are deleted.", err=True)


if __name__ == "__main__":
    trial()
