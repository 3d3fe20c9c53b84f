"""Do the steps take as long, and ask the server as often, where a model has thousands of versions and a store thousands of runs?"""

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
"""A line of the server's log."""


@dataclass
class Team:
    """An `mlflow server` on a database of its own, with one agent that was trained and registered by the steps themselves."""

    uri: str
    database: str
    log: Path
    seconds: dict[str, list[float]] = field(default_factory=dict)
    requests: dict[str, list[int]] = field(default_factory=dict)

    @property
    def client(self) -> MlflowClient:
        """Of this server."""
        return MlflowClient(self.uri)

    def step(self, name: str, *options: str) -> None:
        """Run a step as a process."""
        theirs = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
        command = [sys.executable, "-m", f"steps.{name}", *options]
        done = subprocess.run(
            command,
            cwd=report.FOLDER.parent,
            env=theirs | {"MLFLOW_TRACKING_URI": self.uri},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise click.ClickException(
                f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}"
            )

    def measure(self, what: str, name: str, *options: str) -> None:
        """Run a step, and write down how long it took and what it asked the server."""
        before, start = self._asked(), time.perf_counter()
        self.step(name, *options)
        self.seconds.setdefault(what, []).append(time.perf_counter() - start)
        self.requests.setdefault(what, []).append(self._asked() - before)

    def _asked(self) -> int:
        return len(_REQUEST.findall(self.log.read_text()))

    def measure_all(self) -> None:
        """Register the trained agent once more, and let the new version be judged, crowned and played with."""
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
def teams(folder: Path, database: Postgres, names: list[str]) -> Iterator[dict[str, Team]]:
    """Start servers beside each other."""
    with ExitStack() as stack:
        found = {}
        for name in names:
            database.create(name)
            port, log = process.free_port(), folder / f"{name}.log"
            team = Team(f"http://127.0.0.1:{port}", database.uri(name), log)
            own = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
            own |= {
                "MLFLOW_BACKEND_STORE_URI": team.database,
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
            ready = partial(process.answers, f"{team.uri}/health")
            stack.enter_context(process.serving(command, ready=ready, log=log, variables=own))
            found[name] = team
        yield found


def fill(team: Team, versions: int, runs: int) -> None:
    """Copy the training run and its version within the database, with their parameters, tags and last metrics, until there are so many."""
    engine = sa.create_engine(team.database)
    tables = sa.MetaData()
    tables.reflect(engine)
    copies = sa.Table(
        "copies", sa.MetaData(), sa.Column("run_id", sa.String(32)), sa.Column("number", sa.Integer)
    )
    run_id = team.client.get_model_version(NAME, "1").run_id
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
@click.option("--versions", default=5_000, show_default=True, type=click.IntRange(min=2))
@click.option("--runs", default=20_000, show_default=True, type=click.IntRange(min=2))
@click.option("--pairs", default=3, show_default=True, type=click.IntRange(min=1))
def main(versions: int, runs: int, pairs: int) -> None:
    """Run the steps in turn against a server with one version and one with thousands; print times, ratios and requests."""
    with (
        tempfile.TemporaryDirectory() as name,
        postgres.running(Path(name) / "postgres.log") as database,
        teams(Path(name), database, ["one", "many"]) as found,
    ):
        for team in found.values():
            team.step("train", "--timesteps", "300", "--state-folder", f"{name}/state")
            run_id = team.client.search_runs(["0"])[0].info.run_id
            team.step("log_model", "--run-id", run_id)
            team.step("promote", "--rule", "force", "--reason", "somebody has to be the first")
        fill(found["many"], versions, runs)
        for _ in range(pairs):
            for team in found.values():
                team.measure_all()
        _print(
            found["one"],
            found["many"],
            f"{versions} versions, {runs} runs, PostgreSQL, {pairs} pairs",
        )


def _print(one: Team, many: Team, what: str) -> None:
    click.echo(f"{report.machine()}\n{what}\n")
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
        asked, more = (
            min(team.requests[step]) for team in (one, many)
        )  # a step that takes longer than 30 s beats twice
        times = [f"{median(team.seconds[step]):.2f}" for team in (one, many)]
        same = report.verdict(met=asked == more)
        click.echo(
            report.row(
                step,
                *times,
                *report.compare(many.seconds[step], seconds, at_most=1.5),
                f"{asked}; {more}",
                same,
            )
        )


if __name__ == "__main__":
    main()
