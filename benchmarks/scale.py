"""Measure time and HTTP requests of the steps, with one version and with thousands of versions."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import click
import sqlalchemy as sa
from mlflow import MlflowClient

from benchmarks import report
from deploy.server import postgres, process
from deploy.server.postgres import Postgres

NAME = "cartpole-v1-dqn"
_REQUEST = re.compile(r'"[A-Z]+ /\S* HTTP/1\.1" \d+')
"""Pattern of a request in the server's log."""


@dataclass
class BenchmarkServer:
    """An `mlflow server` with its own database and one trained, registered agent."""

    uri: str
    database: str
    log: Path
    seconds: dict[str, list[float]] = field(default_factory=dict)
    requests: dict[str, list[int]] = field(default_factory=dict)

    @property
    def client(self) -> MlflowClient:
        """Return a client of this server."""
        return MlflowClient(self.uri)

    def step(self, name: str, *options: str) -> None:
        """Run a step as a process that uses this server."""
        inherited = {
            key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")
        }
        command = [sys.executable, "-m", f"steps.{name}", *options]
        done = subprocess.run(
            command,
            cwd=report.FOLDER.parent,
            env=inherited | {"MLFLOW_TRACKING_URI": self.uri},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise click.ClickException(
                f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}"
            )

    def measure(self, what: str, name: str, *options: str) -> None:
        """Run a step, and store its duration and its number of requests."""
        before, start = self._count_requests(), time.perf_counter()
        self.step(name, *options)
        self.seconds.setdefault(what, []).append(time.perf_counter() - start)
        self.requests.setdefault(what, []).append(self._count_requests() - before)

    def _count_requests(self) -> int:
        return len(_REQUEST.findall(self.log.read_text()))

    def measure_all(self) -> None:
        """Log the trained agent again, and then compare, promote and evaluate the new version."""
        run_id = str(self.client.get_model_version(NAME, "1").run_id)
        self.measure("log_model", "log_model", "--run-id", run_id)
        number = str(self.client.get_model_version_by_alias(NAME, "challenger").version)
        self.measure("promote, a tie", "promote", "--version", number)
        self.measure(
            "promote, the best of the experiment",
            "promote",
            "--candidates",
            "best",
            "--top",
            "1",
            "--episodes",
            "2",
        )
        self.measure(
            "promote, a new champion",
            "promote",
            "--version",
            number,
            "--rule",
            "force",
            "--reason",
            "to move the alias",
        )
        self.measure("evaluate", "evaluate")


@contextmanager
def run_servers(
    folder: Path, database: Postgres, names: list[str]
) -> Iterator[dict[str, BenchmarkServer]]:
    """Run one server per name, each with its own database."""
    with ExitStack() as stack:
        servers = {}
        for name in names:
            database.create_database(name)
            port, log = process.find_free_port(), folder / f"{name}.log"
            server = BenchmarkServer(f"http://127.0.0.1:{port}", database.uri(name), log)
            variables = {
                key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")
            }
            variables |= {
                "MLFLOW_BACKEND_STORE_URI": server.database,
                "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            }
            command = [
                sys.executable,
                "-m",
                "mlflow",
                "server",
                "--port",
                str(port),
                "--workers",
                "1",
            ]
            command += ["--artifacts-destination", str(folder / name)]
            ready = partial(process.is_reachable, f"{server.uri}/health")
            stack.enter_context(
                process.run_server(command, ready=ready, log=log, variables=variables)
            )
            servers[name] = server
        yield servers


def add_copies(server: BenchmarkServer, versions: int, runs: int) -> None:
    """Copy the training run and its version in the database, up to a number of runs and versions.

    The copies have the parameters, tags and last metrics of the original.
    """
    engine = sa.create_engine(server.database)
    tables = sa.MetaData()
    tables.reflect(engine)
    copies = sa.Table(
        "copies", sa.MetaData(), sa.Column("run_id", sa.String(32)), sa.Column("number", sa.Integer)
    )
    run_id = server.client.get_model_version(NAME, "1").run_id
    with engine.begin() as connection:
        copies.create(connection)
        connection.execute(
            copies.insert(),
            [{"run_id": f"{number:032x}", "number": number} for number in range(2, runs + 1)],
        )
        for table in ("runs", "params", "tags", "latest_metrics"):
            _copy(
                connection,
                tables.tables[table],
                copies,
                {"run_uuid": copies.c.run_id},
                tables.tables[table].c.run_uuid == run_id,
            )
        for table, changed in (
            ("model_versions", {"version": copies.c.number, "run_id": copies.c.run_id}),
            ("model_version_tags", {"version": copies.c.number}),
        ):
            first = sa.and_(
                tables.tables[table].c.name == NAME,
                tables.tables[table].c.version == 1,
                copies.c.number <= versions,
            )
            _copy(connection, tables.tables[table], copies, changed, first)
        copies.drop(connection)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("ANALYZE"))
    engine.dispose()


def _copy(
    connection: sa.Connection,
    table: sa.Table,
    copies: sa.Table,
    changed: Mapping[str, sa.ColumnElement[Any]],
    which: sa.ColumnElement[bool],
) -> None:
    columns = list(table.c)
    chosen = (
        sa.select(*(changed.get(column.name, column) for column in columns))
        .select_from(table.join(copies, sa.true()))
        .where(which)
    )
    connection.execute(table.insert().from_select(columns, chosen))


@click.command()
@click.option(
    "--versions",
    default=5_000,
    show_default=True,
    type=click.IntRange(min=2),
    help="Number of versions on the second server.",
)
@click.option(
    "--runs",
    default=20_000,
    show_default=True,
    type=click.IntRange(min=2),
    help="Number of runs on the second server.",
)
@click.option(
    "--pairs",
    default=3,
    show_default=True,
    type=click.IntRange(min=1),
    help="Measurements of each step.",
)
def main(versions: int, runs: int, pairs: int) -> None:
    """Run the steps on a server with one version and on one with thousands. Print the results."""
    with (
        tempfile.TemporaryDirectory() as name,
        postgres.run_postgres(Path(name) / "postgres.log") as database,
        run_servers(Path(name), database, ["one", "many"]) as servers,
    ):
        for server in servers.values():
            server.step("train", "--timesteps", "300", "--state-folder", f"{name}/state")
            run_id = server.client.search_runs(["0"])[0].info.run_id
            server.step("log_model", "--run-id", run_id)
            server.step("promote", "--rule", "force", "--reason", "first champion")
        add_copies(servers["many"], versions, runs)
        for _ in range(pairs):
            for server in servers.values():
                server.measure_all()
        _print_table(
            servers["one"],
            servers["many"],
            f"{versions} versions, {runs} runs, PostgreSQL, {pairs} pairs",
        )


def _print_table(one: BenchmarkServer, many: BenchmarkServer, title: str) -> None:
    click.echo(f"{report.machine()}\n{title}\n")
    click.echo(
        report.header(
            "step",
            "s, one version",
            "s, thousands",
            "ratio (range)",
            "target",
            "verdict",
            "requests",
            "the same",
        )
    )
    for step, seconds in one.seconds.items():
        # The minimum, because a step that takes longer than 30 s sends a second heartbeat.
        few, more = (min(server.requests[step]) for server in (one, many))
        times = [f"{median(server.seconds[step]):.2f}" for server in (one, many)]
        same = report.verdict(met=few == more)
        click.echo(
            report.row(
                step,
                *times,
                *report.compare(many.seconds[step], seconds, at_most=1.5),
                f"{few}; {more}",
                same,
            )
        )


if __name__ == "__main__":
    main()
