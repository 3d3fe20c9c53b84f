"""Run a temporary PostgreSQL server."""

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

_USER = "mlflow"
_HOST = "127.0.0.1"


@dataclass(frozen=True)
class Postgres:
    """A running PostgreSQL server."""

    port: int
    password: str

    def uri(self, database: str = "postgres") -> str:
        """Return the SQLAlchemy URI of a database.

        The URI contains the password. Do not put it on a command line.
        """
        return f"postgresql+psycopg2://{_USER}:{self.password}@{_HOST}:{self.port}/{database}"

    def create_database(self, name: str) -> None:
        """Create an empty database."""
        address = ["-h", _HOST, "-p", str(self.port), "-U", _USER]
        command = [find_program("createdb"), *address, name]
        subprocess.run(command, env={"PGPASSWORD": self.password}, check=True)


def find_program(name: str) -> str:
    """Return the path of a PostgreSQL program. Debian does not put these programs on PATH.

    Raises:
        click.ClickException: The program is not installed.
    """
    paths = sorted(map(str, Path("/usr/lib/postgresql").glob(f"*/bin/{name}")))
    if (on_path := shutil.which(name)) is not None:
        paths.append(on_path)
    if not paths:
        raise click.ClickException(
            f"The PostgreSQL program {name!r} is not installed. "
            "Install PostgreSQL (Debian: apt-get install postgresql)."
        )
    return paths[0]


@contextmanager
def run_postgres(log: Path) -> Iterator[Postgres]:
    """Run PostgreSQL on a free port of 127.0.0.1. Delete its data when the context ends.

    PostgreSQL refuses to run as root. If the current user is root, PostgreSQL runs as the user
    ``postgres``. That user cannot read root's folders, so the data are in the system's folder for
    temporary files.

    Args:
        log: File for the output of PostgreSQL.
    """
    server = Postgres(process.find_free_port(), secrets.token_hex(16))
    user = "postgres" if os.geteuid() == 0 else None
    address = ["-h", _HOST, "-p", str(server.port)]
    # No socket file. No fsync, because the data are temporary.
    options = [*address, "-k", "", "-F"]
    check_ready = [find_program("pg_isready"), "-q", *address]
    with tempfile.TemporaryDirectory(prefix="postgres-") as name:
        folder = Path(name)
        _initialize_data(folder, server.password, user)
        with process.run_server(
            [find_program("postgres"), "-D", str(folder / "data"), *options],
            ready=lambda: subprocess.run(check_ready, check=False).returncode == 0,
            log=log,
            variables={"LC_ALL": "C"},
            user=user,
            end=signal.SIGQUIT,  # PostgreSQL then ends its child processes and exits at once.
        ):
            yield server


def _initialize_data(folder: Path, password: str, user: str | None) -> None:
    password_file = folder / "password"
    password_file.touch(mode=0o600)
    password_file.write_text(password)
    if user is not None:
        for path in (folder, password_file):
            shutil.chown(path, user)
    command = [find_program("initdb"), "-D", str(folder / "data"), "-U", _USER, "--no-sync"]
    command += ["-A", "scram-sha-256", "--pwfile", str(password_file)]
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
        raise click.ClickException(
            f"PostgreSQL cannot create its data folder {folder / 'data'}: {done.stderr.strip()}"
        )
    password_file.unlink()
