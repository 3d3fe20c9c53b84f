"""A PostgreSQL that lasts as long as a context does."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from deploy.server import process


@dataclass(frozen=True)
class Postgres:
    """A running PostgreSQL."""

    port: int
    password: str

    def uri(self, database: str = "postgres") -> str:
        """The URI of a database, with its password: nothing for a command line."""
        return f"postgresql+psycopg2://mlflow:{self.password}@127.0.0.1:{self.port}/{database}"

    def create(self, database: str) -> None:
        """Make a new database."""
        command = [
            program("createdb"),
            "-h",
            "127.0.0.1",
            "-p",
            str(self.port),
            "-U",
            "mlflow",
            database,
        ]
        subprocess.run(command, env={"PGPASSWORD": self.password}, check=True)


def program(name: str) -> str:
    """A program of PostgreSQL, which Debian does not put on PATH.

    Raises:
        click.ClickException: It is not installed.
    """
    found = [
        *sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}")),
        *filter(None, [shutil.which(name)]),
    ]
    if not found:
        raise click.ClickException(
            f"{name} is missing; install PostgreSQL (Debian: apt-get install postgresql)."
        )
    return str(found[0])


@contextmanager
def running(log: Path) -> Iterator[Postgres]:
    """Start PostgreSQL on a free port of this machine, over new data that are deleted in the end.

    The data lie in the folder for temporary files: PostgreSQL does not run as root, and the user ``postgres``, who runs it
    then, cannot enter root's folders.

    Args:
        log: File that takes its output.
    """
    found = Postgres(process.free_port(), secrets.token_hex(16))
    user = "postgres" if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="postgres-") as name:
        folder = Path(name)
        _initialize(folder, found.password, user)
        listen = [
            "-h",
            "127.0.0.1",
            "-p",
            str(found.port),
            "-k",
            "",
            "-F",
        ]  # no socket file; no fsync for data that go anyway
        asked = [program("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(found.port)]
        with process.serving(
            [program("postgres"), "-D", str(folder / "data"), *listen],
            ready=lambda: subprocess.run(asked, check=False).returncode == 0,
            log=log,
            variables={"LC_ALL": "C"},
            user=user,
            end=signal.SIGQUIT,  # its way to stop at once, with its children
        ):
            yield found


def _initialize(folder: Path, password: str, user: str | None) -> None:
    secret = folder / "password"
    secret.touch(mode=0o600)
    secret.write_text(password)
    if user is not None:
        for path in (folder, secret):
            shutil.chown(path, user)
    command = [
        program("initdb"),
        "-D",
        str(folder / "data"),
        "-U",
        "mlflow",
        "-A",
        "scram-sha-256",
        "--pwfile",
        str(secret),
        "--no-sync",
    ]
    done = subprocess.run(
        command,
        env={"LC_ALL": "C"},
        cwd=folder,
        user=user,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise click.ClickException(f"PostgreSQL makes no data folder: {done.stderr.strip()}")
    secret.unlink()
